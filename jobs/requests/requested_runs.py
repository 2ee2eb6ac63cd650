"""What a user asked for, made exact before anything starts: the runs, and where and how they are
carried out.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from jobs.execution.launch import Execution, check_workers
from jobs.requests.options import Device
from pipeline.data.datasets import dataset_key
from pipeline.data.photo_shards import holds_photographs
from pipeline.errors import InputError
from pipeline.recipe.experiments import Experiment
from pipeline.runs.checkpoint import check_ours
from pipeline.runs.run import Run, check_run
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
