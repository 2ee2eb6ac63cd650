"""What a user asked for, made exact before anything starts: the runs, and their resources."""

import sys
from collections.abc import Iterable
from dataclasses import replace
from math import ceil, inf
from typing import Any

from jobs.execution.cluster import Node, check_fits, nodes, places, threads_per_worker
from jobs.execution.experiment_timing import RUNS_AT_ONCE, RunsAtOnce
from jobs.execution.launch import check_workers
from jobs.execution.packs import packs_of, work
from jobs.execution.probe import probe_runs_at_once
from jobs.requests.options import (
    Device,
    check_tracking,
    tracking_of,
    warn_of_unknown_commit,
    workers_of,
)
from pipeline.data.datasets import dataset_key
from pipeline.data.photo_shards import holds_photographs
from pipeline.errors import InputError, last_line
from pipeline.recipe.experiments import Experiment
from pipeline.recipe.layers import layout
from pipeline.runs.checkpoint import check_ours
from pipeline.runs.execution import Execution
from pipeline.runs.run import Run, check_run
from pipeline.storage import Storage


def runs_of(
    storage: Storage,
    experiments: list[Experiment],
    manifest: dict[str, Any],
    seeds: Iterable[int],
    workers: int,
) -> list[Run]:
    """The runs asked for, one for each experiment and seed.

    Raises:
        InputError: the workers, the dataset, or what lies in a run's folder cannot carry them.
    """
    for experiment in experiments:
        check_suits(experiment, manifest["row"]["name"], holds_photographs(manifest))
    # The same for all runs: a folder's name has the dataset's name and the start of its id.
    key = dataset_key(manifest["row"]["name"], manifest["id"])
    runs = [
        Run(experiment, manifest["id"], key, seed) for experiment in experiments for seed in seeds
    ]
    # All of them before any is started: a grid is refused at once or not at all.
    for run in runs:
        check_workers(run, workers)
        check_run(storage, run)
        check_ours(storage, run)
        check_holdout(run.experiment, manifest["train_images"])
    return runs


def execution_of(
    storage: Storage, tracking: str | None, workers: str, require_tracking: bool, **choices: Any
) -> Execution:
    """How runs are carried out, of a command's options; `choices` are fields of `Execution`.

    Raises:
        InputError: no number of workers, or a tracking store that cannot be used.
    """
    fewest, most = workers_of(workers)
    uri = tracking_of(tracking, storage)
    warn_of_unknown_commit()
    if require_tracking:
        try:
            check_tracking(uri, storage)
        except InputError as error:
            raise InputError(
                f"{error}, or train without --require-tracking and send what is missing with "
                "`resnet-repro sync`"
            ) from error
    return Execution(
        storage=storage.uri, tracking=uri, workers=fewest, most_workers=most, **choices
    )


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
    """Refuse an experiment for another kind of images than the dataset's; None: not known yet.

    Raises:
        InputError: says which rows would do.
    """
    if photographs is not None and photographs != (experiment.family == "imagenet"):
        images, suitable = "of small images", "rows of Sec. 4.2, such as resnet20"
        if photographs:
            images, suitable = "of photographs", "the rows of Table 1, such as resnet18"
        raise InputError(
            f"{experiment.name} does not suit --data {name}, which is {images}: those are for "
            f"{suitable}"
        )


def check_precision(experiments: Iterable[Experiment], on_cpus: bool) -> None:
    """Refuse rows of a precision that CPUs do not compute in.

    Raises:
        InputError: such a row would be computed on CPUs.
    """
    named = next((row.name for row in experiments if row.precision == "tf32"), None)
    if on_cpus and named:
        raise InputError(
            f"{named}: precision=tf32 is an arithmetic of NVIDIA's GPUs, and this would run on "
            "CPUs; use fp32 or bf16, or --device gpu where there is one"
        )


def on_gpus(cluster: list[Node], execution: Execution, device: Device) -> bool:
    """Whether workers compute on GPUs: where told so, or where all of a run's workers can."""
    each = replace(execution, use_gpu=True).each_worker
    enough = places(cluster, each) >= execution.workers
    return device is Device.GPU or (device is Device.AUTO and enough)


def resolve_resources(
    execution: Execution,
    device: Device,
    threads: int | None,
    runs: int,
    experiments: Iterable[Experiment] = (),
) -> tuple[Execution, list[Node]]:
    """Execution with the device and threads that suit the cluster, and the cluster's nodes.

    `runs` is how many there are, `experiments` their rows. Needs to be connected: only the cluster
    knows what it has.

    Raises:
        InputError: the cluster can never hold it, or its device cannot compute the rows.
    """
    cluster = nodes()
    use_gpu = on_gpus(cluster, execution, device)
    check_precision(experiments, on_cpus=not use_gpu)
    # On a GPU the CPU only launches kernels; on CPUs the threads are what computes.
    best = 1 if use_gpu else threads_per_worker(cluster, runs, execution.workers)
    execution = replace(execution, use_gpu=use_gpu, threads=threads or best)
    # Ray would wait for resources that no node has, without a word and for ever.
    check_fits(cluster, execution.workers, execution.each_worker)
    return execution, cluster


def placement_words(execution: Execution, asked: int | None, kept: int | None = None) -> str:
    """On what each worker computes; threads that were chosen, not `asked` for, are called so.

    A run that began before goes on with the threads that are `kept` in its folder.
    """
    threads = kept or execution.threads
    count = f"{threads} CPU thread{'s' if threads > 1 else ''}"
    if kept is not None and kept != asked:
        count += ", as at its first start"
    elif asked is None:
        count += " (chosen; --threads says it)"
    workers = f"with {execution.workers} workers of " if execution.workers > 1 else "on "
    gpu = f"{execution.gpus:g} GPU and " if execution.use_gpu else ""
    return f"{workers}{gpu}{count}"


EVALUATION_BYTES = 15 * 10**8
"""Memory that a test batch of 2,500 may take on its way through a network of CIFAR's width."""


def check_runs_per_gpu(runs_per_gpu: int | None, workers: int, gpus: float, compiled: bool) -> None:
    """Refuse packs of runs that have several workers each, or fractions: a pack has one GPU.

    Compiled runs are no pack either: torch's compiler is not made for several threads.

    Raises:
        InputError: says so.
    """
    if runs_per_gpu is not None and runs_per_gpu > 1 and gpus < 1:
        raise InputError(
            f"--runs-per-gpu {runs_per_gpu}: with --gpus {gpus:g} several processes share a GPU; "
            "leave one of the two out"
        )
    if runs_per_gpu is not None and runs_per_gpu > 1 and workers > 1:
        raise InputError(
            f"--runs-per-gpu {runs_per_gpu}: runs with --workers {workers} take whole GPUs; leave "
            "one of the two out"
        )
    if runs_per_gpu is not None and runs_per_gpu > 1 and compiled:
        raise InputError(
            f"--runs-per-gpu {runs_per_gpu}: runs with --compile are trained one at a time on a "
            "GPU; leave one of the two out"
        )


def shared_out(
    runs: list[Run],
    execution: Execution,
    places: int,
    runs_per_gpu: int | None,
    manifest: dict[str, Any],
) -> list[list[Run]]:
    """The runs as packs that a worker trains at once: as many as were asked for, or fill a GPU.

    Needs to be connected: without a number, one GPU of the cluster is tried for some seconds.
    """
    if runs_per_gpu is not None:
        return packs_of(runs, execution, places, lambda _: runs_per_gpu)
    found = tried_at_once(runs, execution, places, manifest["row"]["side"])
    if found is None:
        return [[run] for run in runs]
    smallest, at_once = found
    rates = ", ".join(f"{count}: {rate:,.0f}" for count, rate in at_once.rates.items())
    print(
        f"images/s of {smallest.name} by the number of runs at once on a GPU: {rates}", flush=True
    )
    # Images lie on the device as bytes: to train on, and once more to evaluate.
    images = 2 * manifest["train_images"] + manifest["test_images"]
    more_bytes = 3 * manifest["row"]["side"] ** 2 * images + EVALUATION_BYTES

    # In company a run takes longer, though all of them end sooner: none that the others would have
    # to wait for at the end is packed.
    gained = at_once.rates[at_once.best] / at_once.rates[1]
    whole = sum(work(run.experiment) for run in runs) / gained
    fair_share = whole / places if places > 1 else inf

    def most(experiment: Experiment) -> int:
        larger = layout(experiment).multiply_adds / layout(smallest).multiply_adds
        fitting = at_once.fitting(larger, more_bytes)
        return max(
            count
            for count, rate in at_once.rates.items()
            if count == 1
            or (
                count <= fitting
                and work(experiment) * count * at_once.rates[1] / rate <= fair_share
            )
        )

    return packs_of(runs, execution, places, most)


def tried_at_once(
    runs: Iterable[Run], execution: Execution, places: int, side: int
) -> tuple[Experiment, RunsAtOnce] | None:
    """What a GPU makes of several runs at once, and of which row; None where they cannot share one.

    The smallest network is tried, since it takes the least time: kernels are as large in deeper
    ones, which only have more of them, and more memory.
    """
    # A run of several workers has GPUs of its own; where a fraction was asked for, Ray shares them.
    whole = execution.gpus == 1 and execution.workers == (execution.most_workers or 1) == 1
    experiments = [run.experiment for run in runs]
    share = min(RUNS_AT_ONCE[-1], ceil(len(experiments) / places))
    small = [experiment for experiment in experiments if experiment.family != "imagenet"]
    if not (execution.use_gpu and whole and share > 1 and small) or execution.compiled:
        return None
    smallest = min(small, key=lambda experiment: layout(experiment).multiply_adds)
    print(f"trying how many runs of {smallest.name} fill a GPU; --runs-per-gpu says it", flush=True)
    try:
        return smallest, probe_runs_at_once(smallest, side, execution, share)
    except Exception as error:  # whatever Ray, torch or a GPU says: runs can train alone
        why = last_line(str(error)) or type(error).__name__
        print(f"warning: one run a GPU, for several could not be tried ({why})", file=sys.stderr)
        return None
