"""Stored runs, and networks to be scored, found by what a user calls them."""

import sys
from pathlib import Path

from jobs.execution.evaluate import Model
from pipeline.errors import InputError
from pipeline.recipe.experiments import Experiment
from pipeline.recipe.layers import Padding
from pipeline.recipe.overrides import changes_text, experiment_named
from pipeline.runs.checkpoint import final_weights
from pipeline.runs.run import Run, read_result, stored_runs
from pipeline.storage import Storage, check_regular

WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth", ".th", ".tar", ".ckpt", ".bin")
"""A name with one of them is a file's, and no run's. What a file is, its content says."""
MOST_NAMED = 4
"""Recipes that a line names to choose among."""
MOST_WEIGHTS = 4 << 30
"""Bytes of a file of weights: the paper's largest network has a sixteenth of it."""


def stored_run_named(storage: Storage, which: str, seed: int | None) -> Run:
    """The one stored run that is meant.

    Raises:
        InputError: none, or several.
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
    matching = [run for run in matching if seed in (None, run.seed)]
    if not matching:
        raise InputError(
            f"{which}: no such run in {storage.uri}; `resnet-repro status --json` lists their "
            "folders"
        )
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
) -> Model:
    """A weights file (with `--as`), or the final network of a stored run.

    What was made of a file is said on standard error.

    Raises:
        InputError: neither, a run that has not finished, or a file without a row.
    """
    # A file before a run: runs are folders, so the two cannot be taken for each other.
    file = Path(which)
    if not file.is_file():
        if file.suffix in WEIGHTS_SUFFIXES:
            raise InputError(f"{which}: no such file")
        run = stored_run_named(storage, which, None)
        result = read_result(storage, run)
        weights = final_weights(storage, run, result) if result else None
        if weights is None:
            raise InputError(f"{run}: has no final weights; it is not finished")
        return Model(str(run), run.experiment, weights, run)
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
