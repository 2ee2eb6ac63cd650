"""Stored runs, and networks to be scored, found by what a user calls them."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.execution.evaluate import Model
from pipeline.data.catalogue.table import DATASETS
from pipeline.data.stored import find_stored
from pipeline.errors import InputError
from pipeline.recipe.experiments import Experiment
from pipeline.recipe.layers import Padding
from pipeline.recipe.other_libraries import EXPORTED
from pipeline.recipe.overrides import changes_text, experiment_named
from pipeline.runs.checkpoint import final_weights
from pipeline.runs.run import Run, read_result, stored_runs
from pipeline.storage import Storage, check_regular, regular_file

# These load torch, which only who reads weights needs.
if TYPE_CHECKING:
    from pipeline.training.exported_weights import ExportedWeights


WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth", ".th", ".tar", ".ckpt", ".bin")
"""A name with one of them is a file's, and no run's. What a file is, its content says."""
MOST_NAMED = 4
"""Recipes that a line names to choose among."""
MOST_WEIGHTS = 4 << 30
"""Bytes of a file of weights: the paper's largest network has a sixteenth of it."""


def stored_runs_named(storage: Storage, which: str) -> list[Run]:
    """The stored runs that are meant, such as all seeds of an experiment.

    Raises:
        InputError: none.
    """
    name = which.rstrip("/")
    if name.startswith("/") and not name.startswith(storage.path("").rstrip("/") + "/"):
        raise InputError(f"{which}: is not in {storage.uri}; name its --storage")
    runs = stored_runs(storage)
    # By what `status` or a path completion shows: an experiment's name, or a folder as it stands in
    # the storage, on disk, or relative to wherever the user is.
    matching = [
        run for run in runs if name in (run.experiment.name, run.folder, storage.path(run.folder))
    ]
    matching = matching or [run for run in runs if f"/{name}".endswith(f"/{run.folder}")]
    if not matching:
        raise _no_such_run(storage, which)
    return matching


def _no_such_run(storage: Storage, which: str) -> InputError:
    return InputError(
        f"{which}: no such run in {storage.uri}; `resnet-repro status --json` lists their folders"
    )


def stored_run_named(storage: Storage, which: str, seed: int | None) -> Run:
    """The one stored run that is meant.

    Raises:
        InputError: none, or several.
    """
    named = stored_runs_named(storage, which)
    matching = [run for run in named if seed in (None, run.seed)]
    if not matching:
        raise _no_such_run(storage, which)
    if len(matching) > 1:
        raise InputError(
            f"{which}: {len(matching)} runs are meant; name one by its folder: "
            f"{_by_recipe(matching)}"
        )
    return matching[0]


def _by_recipe(runs: list[Run]) -> str:
    """Runs for somebody to choose among: of each recipe and dataset a folder, and the seeds."""
    groups = dict[tuple[Experiment, str], list[Run]]()
    for run in runs:
        groups.setdefault((run.experiment, run.dataset_key), []).append(run)
    says = [
        f"{of_group[0].folder} ({changes_text(experiment) or 'the recipe of the paper'}; seed "
        f"{', '.join(str(run.seed) for run in of_group)})"
        for (experiment, _), of_group in groups.items()
    ]
    return ", ".join(says[:MOST_NAMED]) + (", ..." if len(says) > MOST_NAMED else "")


def model_named(
    storage: Storage,
    which: str,
    experiment: str | None,
    settings: list[str],
    padding: Padding | None = None,
    data: str = "",
) -> Model:
    """A weights file, the folder of an export, or the final network of a stored run.

    A file that does not say its row needs `--as`. What was made of it is said on standard error.
    `data` is the dataset that was named; without, an export's own is looked for.

    Raises:
        InputError: neither, a run that has not finished, a file without a row, or an export whose
            dataset is unknown here.
    """
    # A file before a run: runs are folders, so the two cannot be taken for each other.
    file = weights_file(which)
    if file is None:
        run = stored_run_named(storage, which, None)
        weights = weights_of(storage, run)
        return Model(str(run), run.experiment, weights, run, run.dataset_id)
    exported = read_exported_file(file, which) if experiment is None and not settings else None
    if exported is not None:
        dataset = "" if data else _dataset_of(storage, exported, which)
        return Model(which, exported.run.experiment, exported.weights, dataset=dataset)
    return foreign_model(file, which, experiment, settings, padding)


def _dataset_of(storage: Storage, exported: "ExportedWeights", which: str) -> str:
    """What an export's network is tested on: a prepared dataset's id, or a name of the catalogue.

    Nothing else that a file says: a path would be read, and kept in the storage.

    Raises:
        InputError: neither has it.
    """
    name, theirs = exported.dataset["row"]["name"], exported.run.dataset_id
    for known in (theirs, name):
        manifest = find_stored(storage, known)
        if manifest is None:
            continue
        if manifest["id"] != theirs:
            print(
                f"note: {which}: its run was on {name} {theirs}; {name} is {manifest['id']} in "
                f"{storage.uri}, and is what it is tested on",
                file=sys.stderr,
            )
        return str(manifest["id"])
    if name in DATASETS:
        return str(name)
    raise InputError(
        f"{which}: its run was on {name} {theirs}, which is neither prepared in {storage.uri} nor "
        "one of `resnet-repro data list`; name a dataset with --data"
    )


def weights_of(storage: Storage, run: Run) -> bytes:
    """The final weights of a stored run.

    Raises:
        InputError: it has none.
    """
    result = read_result(storage, run)
    weights = final_weights(storage, run, result) if result else None
    if weights is None:
        raise InputError(
            f"{run}: has no final weights; it is not finished, or was brought here without them"
        )
    return weights


def weights_file(which: str) -> Path | None:
    """The file that is meant by a file's name or the folder of an export; None for a run.

    Raises:
        InputError: a file's name, and there is none.
    """
    # A file before a run: a run's folder has no such file, so the two cannot be taken for each
    # other.
    for file in (Path(which), Path(which) / EXPORTED):
        if file.is_file():
            return file
    if Path(which).suffix in WEIGHTS_SUFFIXES:
        raise InputError(f"{which}: no such file")
    return None


def read_exported_file(file: Path, which: str) -> "ExportedWeights | None":
    """What a file says of itself, with its weights in our names; None where it says nothing.

    Raises:
        InputError: it is damaged, or cannot be read.
    """
    try:
        content = regular_file(file, MOST_WEIGHTS)
    except OSError as error:
        raise InputError(f"{which}: cannot be read ({error.strerror or error})") from error
    return read_exported(content, which)


def read_exported(content: bytes, which: str) -> "ExportedWeights | None":
    """`read_exported_file` of a file's bytes.

    Raises:
        InputError: it is damaged, or its weights are not for the network that it states.
    """
    from pipeline.training.exported_weights import read_export
    from pipeline.training.step.foreign_weights import read_weights_bytes

    exported = read_export(content, which)
    if exported is None:
        return None
    row, classes = exported.run.experiment, len(exported.class_names)
    return replace(exported, weights=read_weights_bytes(content, which, row, classes))


def foreign_model(
    file: Path, which: str, experiment: str | None, settings: list[str], padding: Padding | None
) -> Model:
    """The network of a weights file that does not say its row, or is taken for another's.

    Raises:
        InputError: no row is named, or these are no weights of its network.
    """
    try:
        check_regular(file, MOST_WEIGHTS)
    except OSError as error:
        raise InputError(f"{which}: {error}; these are no weights of a network of ours") from error
    # A weights file says which tensors there are, not which network they belong to.
    if experiment is None:
        raise InputError(f"{which}: say with --as which row's network these weights are for")
    from pipeline.training.step.foreign_weights import read_weights

    row = experiment_named(experiment, settings)
    content, notes = read_weights(file, which, row, padding)
    for note in notes:
        print(f"note: {which}: {note}", file=sys.stderr)
    return Model(which, row, content)
