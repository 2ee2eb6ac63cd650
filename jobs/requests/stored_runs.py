"""Stored runs, and networks to be scored, found by what a user calls them."""

from pathlib import Path

from jobs.execution.evaluate import Model
from pipeline.errors import InputError
from pipeline.recipe.overrides import experiment_named
from pipeline.runs.checkpoint import final_weights
from pipeline.runs.run import Run, read_result, stored_runs
from pipeline.storage import Storage


def stored_run_named(storage: Storage, which: str, seed: int | None) -> Run:
    """The one stored run that is meant.

    Raises:
        InputError: none, or several.
    """
    named = which.rstrip("/")
    if named.startswith("/") and not named.startswith(storage.path("").rstrip("/") + "/"):
        raise InputError(f"{which}: is not in {storage.uri}; name its --storage")
    runs = stored_runs(storage)
    found = [
        run for run in runs if named in (run.experiment.name, run.folder, storage.path(run.folder))
    ]
    found = found or [run for run in runs if ("/" + named).endswith("/" + run.folder)]
    found = [run for run in found if seed in (None, run.seed)]
    if not found:
        raise InputError(
            f"{which}: no such run in {storage.uri}; `resnet-repro status --json` lists their "
            "folders"
        )
    if len(found) > 1:
        several = ", ".join(run.folder for run in found[:4])
        raise InputError(
            f"{which}: {len(found)} runs are meant ({several}, ...); name one's folder or its "
            "--seed"
        )
    return found[0]


def model_named(storage: Storage, which: str, experiment: str | None, settings: list[str]) -> Model:
    """A weights file (with `--as`), or the final network of a stored run.

    Raises:
        InputError: neither, a run that has not finished, or a file without a row.
    """
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
    if experiment is None:
        raise InputError(f"{which}: say with --as which row's network these weights are for")
    content = file.read_bytes()
    if file.suffix == ".pth":
        from pipeline.training.step.weights import torch_file_bytes

        content = torch_file_bytes(content, which)
    return Model(which, experiment_named(experiment, settings), content)
