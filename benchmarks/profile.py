"""Where the time of an SGD step goes on this machine's CPU, by torch.profiler.

A share is of self time, so that everything is counted once: each operation's own time goes to the
kind of the nearest operation around it that has one. Step time is taken without the profiler, which
makes small operations look larger.
"""

import os
from collections import Counter
from dataclasses import replace
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks import measure
from jobs.console.console import console
from jobs.execution.processors import usable_cpus
from jobs.requests.requested_runs import check_suits
from pipeline.data.datasets import Dataset
from pipeline.data.photo_shards import holds_photographs
from pipeline.data.stored import read_dataset, require_stored
from pipeline.memory import keep_freed_memory
from pipeline.recipe.experiments import Experiment, Precision
from pipeline.recipe.overrides import experiment_named
from pipeline.runs.provenance import hardware, versions
from pipeline.storage import Storage

WARM_STEPS = 2
# Names that are no operations: what happens between those, and within the data plane.
DATA_PLANE = "data plane (augmentation)"
BETWEEN = "between operations (Python)"
OTHER = "other"
KINDS = {
    "aten::conv2d": "convolution, forward",
    "ConvolutionBackward0": "convolution, backward",
    "aten::batch_norm": "batch norm, forward",
    "NativeBatchNormBackward0": "batch norm, backward",
    "aten::relu_": "ReLU, forward",
    "ReluBackward0": "ReLU, backward",
    **dict.fromkeys(("aten::_to_copy", "ToCopyBackward0"), "casts between fp32 and bf16"),
    **dict.fromkeys(("aten::add", "aten::pad", "aten::avg_pool2d"), "shortcuts, forward"),
    **dict.fromkeys(("ConstantPadNdBackward0", "AvgPool2DBackward0"), "shortcuts, backward"),
    **dict.fromkeys(
        ("torch::autograd::AccumulateGrad", "aten::add_", "aten::cat"), "sums of gradients, SGD"
    ),
    **dict.fromkeys(
        ("aten::mul_", "aten::addcmul_", "aten::sub_", "aten::lerp_"), "sums of gradients, SGD"
    ),
}
"""The kind of an operation by its name to the profiler."""


def profile(
    experiment_name: str,
    storage: Storage,
    dataset_id: str,
    precision: str,
    steps: int,
    threads: int | None,
) -> None:
    """Measure and print.

    Raises:
        InputError: an unknown row or precision, or bf16 on a CPU without it.
    """
    chosen: Precision = measure.precisions(precision)[-1]
    experiment = replace(experiment_named(experiment_name), precision=chosen)
    threads = threads or usable_cpus()
    check_suits(experiment, dataset_id, holds_photographs(require_stored(storage, dataset_id)))
    dataset = read_dataset(storage, dataset_id)
    seconds, shares = _measured(experiment, dataset, steps, threads)
    _print_table(experiment, dataset, seconds, shares)
    print(
        f"Taken on {hardware()}, {threads} of {usable_cpus()} CPUs, torch "
        f"{versions().get('torch')}, in a process set up as a worker's: step time is the median of "
        f"{steps} steps without the profiler; shares are of self time in {steps} steps with it; ms "
        "are shares of step time."
    )


def _measured(
    experiment: Experiment, dataset: Dataset, steps: int, threads: int
) -> tuple[float, dict[str, float]]:
    """Seconds of a step, and each kind's share of it."""
    # Read when torch is loaded, which therefore is here: the profiler looks for GPUs aloud.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    import torch
    from torch.profiler import ProfilerActivity, record_function

    from pipeline.recipe.schedule import lr_at
    from pipeline.training.feeding.device_batches import DeviceBatches
    from pipeline.training.feeding.image_batches import TrainImages
    from pipeline.training.step.networks import build_network
    from pipeline.training.step.process_group import single_process
    from pipeline.training.step.train_state import TrainState

    keep_freed_memory()
    torch.set_num_threads(threads)
    # Set up as a worker is, with all of its threads.
    process_group, size = single_process(), experiment.global_batch_size
    images = TrainImages(experiment, dataset, process_group.device)
    feed = DeviceBatches(images, 0, size, 0, size)
    train_state = TrainState(
        experiment, build_network(experiment, 0, dataset.spec.classes), process_group.device
    )

    def step(iteration: int) -> float:
        start = perf_counter()
        with record_function(BETWEEN):
            with record_function(DATA_PLANE):
                batch = feed.batch(iteration)
            train_state.step(batch, lr_at(experiment, iteration, None), process_group)
        return perf_counter() - start

    # Warm up, take the time, and only then profile.
    for iteration in range(WARM_STEPS):
        step(iteration)
    seconds = median([step(WARM_STEPS + number) for number in range(steps)])
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as recorded:
        for number in range(steps):
            step(WARM_STEPS + steps + number)
    return seconds, _shares(recorded.events())


def _shares(events: Any) -> dict[str, float]:
    """Each kind's share of the self time of all operations, the largest first."""
    times: Counter[str] = Counter()
    # Self time alone: an operation's total holds that of the operations inside it.
    for event in events:
        times[_kind(event)] += event.self_cpu_time_total
    return {kind: time / times.total() for kind, time in times.most_common()}


def _kind(event: Any) -> str:
    """The kind of an operation: its own, or that of the nearest one around it that has one."""
    names = []
    # From the operation outwards, through all that called it.
    while event is not None:
        names.append(event.name)
        event = event.cpu_parent
    if names == [BETWEEN]:
        return BETWEEN
    # Whatever happens inside of the data plane is its, also operations that have a kind elsewhere.
    if DATA_PLANE in names:
        return DATA_PLANE
    return next((KINDS[name] for name in names if name in KINDS), OTHER)


def _print_table(
    experiment: Experiment, dataset: Dataset, seconds: float, shares: dict[str, float]
) -> None:
    size = experiment.global_batch_size
    pixels = measure.pixels_of(dataset)
    what = f"{experiment.name}, {experiment.precision}, batch {size}, {pixels}"
    table = measure.table(what, "kind of operation", "share", "ms a step")
    for kind, share in shares.items():
        table.add_row(kind, f"{share:.1%}", f"{1000 * seconds * share:,.2f}")
    table.add_section()
    table.add_row("step", f"{size / seconds:,.0f} images/s", f"{1000 * seconds:,.2f}")
    console.print(table)
