"""What a user asked for, made exact before anything starts: the runs, and where and how they are
carried out.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from jobs.execution.launch import check_workers
from jobs.requests.options import Device
from pipeline.data.datasets import dataset_key
from pipeline.data.photo_shards import holds_photographs
from pipeline.errors import InputError
from pipeline.recipe.experiments import Experiment
from pipeline.runs.checkpoint import check_ours
from pipeline.runs.execution import Execution
from pipeline.runs.run import Run, check_run, stored_runs
from pipeline.storage import Storage


def runs_of(
    storage: Storage,
    experiments: list[Experiment],
    manifest: dict[str, Any],
    seeds: Iterable[int],
    workers: int,
) -> list[Run]:
    """The runs asked for, refused where workers, the dataset, or what lies in their folders cannot
    carry them.
    """
    for experiment in experiments:
        check_suits(experiment, manifest["row"]["name"], holds_photographs(manifest))
    key = dataset_key(manifest["row"]["name"], manifest["id"])
    runs = [
        Run(experiment, manifest["id"], key, seed) for experiment in experiments for seed in seeds
    ]
    for run in runs:
        check_workers(run, workers)
        check_run(storage, run)
        check_ours(storage, run)
        check_holdout(run.experiment, manifest["train_images"])
    return runs


def check_holdout(experiment: Experiment, train_images: int) -> None:
    """Refuse a row that would hold out all training images.

    Raises:
        InputError: it would.
    """
    if experiment.holdout >= train_images:
        raise InputError(
            f"holdout {experiment.holdout} leaves nothing of {train_images:,} training images"
        )


def check_suits(experiment: Experiment, name: str, photographs: bool | None) -> None:
    """Refuse a row whose network is for another kind of images than the dataset's; None is a kind
    not known yet.

    Raises:
        InputError: says which rows would do.
    """
    if photographs is not None and photographs != (experiment.family == "imagenet"):
        kinds = ("of photographs", "the rows of Table 1, such as resnet18")
        is_of, wanted = (
            kinds if photographs else ("of small images", "rows of Sec. 4.2, such as resnet20")
        )
        raise InputError(
            f"{experiment.name} does not suit --data {name}, which is {is_of}: those are for "
            f"{wanted}"
        )


def on_gpus(several: list[dict[str, float]], execution: Execution, device: Device) -> bool:
    """Whether workers compute on GPUs: where told so, or where there are enough for all of a run's
    workers.
    """
    from jobs.execution.cluster import places

    each = replace(execution, use_gpu=True).each_worker
    return device is Device.GPU or (
        device is Device.AUTO and places(several, each) >= execution.workers
    )


def resolve_resources(
    execution: Execution, device: Device, threads: int | None, runs: int
) -> tuple[Execution, list[dict[str, float]]]:
    """Execution with the device and threads that suit the cluster, and the cluster's nodes.

    Raises:
        InputError: the cluster can never hold it.
    """
    from jobs.execution.cluster import check_fits, nodes, threads_per_worker

    several, workers = nodes(), execution.workers
    use_gpu = on_gpus(several, execution, device)
    best = 1 if use_gpu else threads_per_worker(several, runs, workers)
    execution = replace(execution, use_gpu=use_gpu, threads=threads or best)
    check_fits(several, workers, execution.each_worker)
    return execution, several


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
