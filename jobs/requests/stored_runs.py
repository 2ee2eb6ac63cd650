"""Stored runs, and networks to be scored, found by what a user calls them."""

from pathlib import Path

from jobs.execution.evaluate import Model
from pipeline.errors import InputError
from pipeline.recipe.overrides import experiment_named
from pipeline.runs.checkpoint import final_weights
from pipeline.runs.run import Run, read_result, stored_runs
from pipeline.storage import Storage, regular_file


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
        folders = ", ".join(run.folder for run in matching[:4])
        raise InputError(
            f"{which}: {len(matching)} runs are meant ({folders}, ...); name one's folder or its "
            "--seed"
        )
    return matching[0]


def model_named(storage: Storage, which: str, experiment: str | None, settings: list[str]) -> Model:
    """A weights file (with `--as`), or the final network of a stored run.

    Raises:
        InputError: neither, a run that has not finished, or a file without a row.
    """
    # A file before a run: runs are folders, so the two cannot be taken for each other.
    file = Path(which)
    if not file.is_file():
        if file.suffix in (".safetensors", ".pth"):
            raise InputError(f"{which}: no such file")
        run = stored_run_named(storage, which, None)
        result = read_result(storage, run)
        weights = final_weights(storage, run, result) if result else None
        if weights is None:
            raise InputError(f"{run}: has no final weights; it is not finished")
        return Model(str(run), run.experiment, weights, run)
    # A weights file says which tensors there are, not which network they belong to.
    if experiment is None:
        raise InputError(f"{which}: say with --as which row's network these weights are for")
    content = regular_file(file)
    # Read by torch's own restricted loader, and handed on as safetensors, like all others.
    if file.suffix == ".pth":
        from pipeline.training.step.weights import torch_file_bytes

        content = torch_file_bytes(content, which)
    return Model(which, experiment_named(experiment, settings), content)
