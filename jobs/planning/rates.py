"""How fast rows train: as probed, as earlier runs went, in proportion to either, or by what vendors
publish of a GPU.

A row that nothing was measured of lies on the line through its measured neighbours in
floating-point operations an iteration, of networks of its family.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Literal

from jobs.execution.experiment_timing import Timing
from jobs.execution.launch import Execution
from jobs.planning.workload import BACKWARD, convolutions, iteration_flops
from pipeline.errors import InputError
from pipeline.recipe.experiments import Experiment
from pipeline.recipe.metrics import IMAGES_PER_SECOND
from pipeline.runs.checkpoint import newest_history
from pipeline.runs.run import Run
from pipeline.storage import Storage

Source = Literal["probed", "one worker probed", "earlier runs", "in proportion", "published"]

DOUBT: dict[Source, float] = {
    "probed": 0.2,
    "one worker probed": 0.35,
    "earlier runs": 0.2,
    "in proportion": 0.35,
    "published": 1.0,
}
"""How far off an estimate may be either way, as a share of it (published: between half of it and
its double).
"""


@dataclass(frozen=True)
class Rate:
    """Seconds of an iteration of a run with all its workers, and of an image that only goes forward
    on one of them.
    """

    step: float
    image: float
    source: Source


@dataclass(frozen=True)
class Card:
    """A GPU nobody has probed: peak FLOP/s by its vendor's data sheet, dense."""

    fp32: float
    bf16: float


CARDS = {
    "V100": Card(15.7e12, 125e12),
    "T4": Card(8.1e12, 65e12),
    "A10G": Card(31.2e12, 125e12),
    "L4": Card(30.3e12, 121e12),
    "A100": Card(19.5e12, 312e12),
    "H100": Card(66.9e12, 989e12),
    "H200": Card(66.9e12, 989e12),
}
SUSTAINED = {"fp32": 0.45, "bf16": 0.18}
"""Of a card's peak. bf16: NVIDIA's 2,470 images/s of ResNet-50 on an A100 (mixed precision,
DeepLearningExamples); fp32 assumed.
"""
LAYER_SECONDS = 120e-6
"""Assumed: a convolution with its norm and ReLU takes a GPU at least so long, forward and backward,
    however small its maps.
"""
SCALING = 0.944
"""Of the rate that is left at each doubling of workers: NVIDIA's 16,621 images/s on 8 A100 are 0.84
of 8 times one.
"""


def rates(experiments: Sequence[Experiment], known: Mapping[str, Rate]) -> dict[str, Rate]:
    """A rate for every row by fingerprint, from those that are known.

    Raises:
        InputError: nothing is known of a row's family.
    """
    by_name = {experiment.fingerprint: experiment for experiment in experiments}
    found = dict[str, Rate]()
    for name, experiment in by_name.items():
        points = sorted(
            (iteration_flops(other), known[key])
            for key, other in by_name.items()
            if key in known and (other.family, other.precision) == (experiment.family, experiment.precision)
        ) if name not in known else []  # fmt: skip
        found[name] = (
            known[name] if name in known else _between(iteration_flops(experiment), points)
        )
    return found


def _between(flops: float, points: list[tuple[float, Rate]]) -> Rate:
    """The rate at so many operations, on the line through the two known points around it, or
    nearest to it.
    """
    if not points:
        raise InputError(
            "--probe-seconds: too few to time a row of each kind and precision; give it more"
        )
    distinct = [
        one
        for one, after in pairwise([*points, (float("inf"), points[-1][1])])
        if after[0] > one[0]
    ]
    if len(distinct) == 1:
        at, rate = distinct[0]
        return Rate(rate.step * flops / at, rate.image * flops / at, "in proportion")
    above = next(
        (number for number, (at, _) in enumerate(distinct) if at >= flops), len(distinct) - 1
    )
    (low, one), (high, other) = distinct[max(above, 1) - 1], distinct[max(above, 1)]
    part = (flops - low) / (high - low)
    step, image = (
        a + part * (b - a) for a, b in ((one.step, other.step), (one.image, other.image))
    )
    least = flops / high / 2  # a line must not lead below what proportion leaves
    return Rate(max(step, other.step * least), max(image, other.image * least), "in proportion")


def probed(timings: Mapping[str, Timing], workers: int) -> dict[str, Rate]:
    """Rates of what a probe timed of runs with so many workers."""
    source: Source = "probed" if workers == 1 else "one worker probed"
    return {name: Rate(timing.step, timing.image, source) for name, timing in timings.items()}


def earlier(
    storage: Storage, runs: Sequence[Run], execution: Execution, hardware: str
) -> dict[str, Rate]:
    """Rates of rows by runs in storage whose attempts were carried out alike: same workers, threads
    and hardware.
    """
    seen = dict[str, list[float]]()
    for run in runs:
        history = newest_history(storage, run)
        if history is None or not all(_alike(one, execution, hardware) for one in history.attempts):
            continue
        rates = [
            point.value
            for point in history.points
            if point.metric == IMAGES_PER_SECOND and point.value > 0
        ]
        seen.setdefault(run.experiment.fingerprint, []).extend(rates)
    by_name = {run.experiment.fingerprint: run.experiment for run in runs}
    found = dict[str, Rate]()
    for name, values in seen.items():
        if values:
            size = by_name[name].global_batch_size
            step = size / median(values)
            found[name] = Rate(
                step, step * execution.workers / size / (1 + BACKWARD), "earlier runs"
            )
    return found


def _alike(attempt: dict[str, object], execution: Execution, hardware: str) -> bool:
    made = f"{attempt.get('device')}, {attempt.get('hardware')}"
    asked = (execution.workers, execution.threads, execution.one_pass, hardware)
    return (
        attempt.get("world_size"),
        attempt.get("threads"),
        bool(attempt.get("one_pass")),
        made,
    ) == asked


def published(experiment: Experiment, card: Card, workers: int, sharing: int) -> Rate:
    """What data sheets and the assumptions above say: `sharing` runs share a GPU, or a run has
    `workers` of them.
    """
    peak = card.bf16 if experiment.precision == "bf16" else card.fp32
    computing = iteration_flops(experiment) / (peak * SUSTAINED[experiment.precision]) * sharing
    launching = convolutions(experiment) * experiment.groups * LAYER_SECONDS
    doublings = (workers - 1).bit_length()
    step = max(computing, launching) / workers / SCALING**doublings
    image = max(computing, launching) / experiment.global_batch_size / (1 + BACKWARD)
    return Rate(step, image, "published")
