"""How fast rows train: as probed, as earlier runs went, or in proportion to either.

Of GPUs that are only described `gpu_rates` says it.

A row that nothing was measured of lies on the line through its measured neighbours in
floating-point operations an iteration, of networks of its family.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Literal

from jobs.execution.experiment_timing import Timing, kind_of
from jobs.planning.workload import BACKWARD, iteration_flops
from pipeline.errors import InputError
from pipeline.recipe.experiments import Experiment
from pipeline.recipe.metrics import IMAGES_PER_SECOND
from pipeline.runs.checkpoint import newest_history
from pipeline.runs.execution import Execution
from pipeline.runs.run import Run
from pipeline.storage import Storage

Source = Literal[
    "probed",
    "one worker probed",
    "earlier runs",
    "in proportion",
    "measured on this card",
    "modelled",
    "published",
]

DOUBT: dict[Source, float] = {
    "probed": 0.2,
    "one worker probed": 0.35,
    "earlier runs": 0.2,
    "in proportion": 0.35,
    "measured on this card": 0.2,
    "modelled": 0.35,
    "published": 1.0,
}
"""How far off an estimate may be, as a share of it: with 1, between its half and its double."""


@dataclass(frozen=True)
class Rate:
    """How fast a run goes, and how that is known."""

    step: float
    """Seconds of an iteration with all its workers."""
    image: float
    """Seconds of an image that only goes forward, on one of them."""
    source: Source
    limit: str = ""
    """What bounds it, where that is known: network, exchange, decoding."""


def rates(experiments: Sequence[Experiment], known: Mapping[str, Rate]) -> dict[str, Rate]:
    """A rate for every row by fingerprint, from those that are known.

    Raises:
        InputError: nothing is known of a row's family.
    """
    by_fingerprint = {experiment.fingerprint: experiment for experiment in experiments}

    complete = dict[str, Rate]()
    for fingerprint, experiment in by_fingerprint.items():
        if fingerprint in known:
            complete[fingerprint] = known[fingerprint]
            continue
        neighbours = [
            (iteration_flops(other), known[key])
            for key, other in by_fingerprint.items()
            if key in known and kind_of(other) == kind_of(experiment)
        ]
        neighbours.sort(key=lambda point: point[0])
        complete[fingerprint] = _between(iteration_flops(experiment), neighbours)
    return complete


def _between(flops: float, points: list[tuple[float, Rate]]) -> Rate:
    """The rate at `flops`, on the line through the two known points around it or nearest to it.

    `points` are operations with their rates, in ascending order.
    """
    if not points:
        raise InputError(
            "--probe-seconds: too few to time a row of each kind and precision; give it more"
        )
    # Of networks with equal counts (a plain one and its residual twin) the last one speaks: no line
    # goes through two points above one another.
    distinct = [
        point
        for point, following in pairwise([*points, (float("inf"), points[-1][1])])
        if following[0] > point[0]
    ]
    if len(distinct) == 1:
        ((at, rate),) = distinct
        return Rate(rate.step * flops / at, rate.image * flops / at, "in proportion")
    # The two points around it; beyond the last one, the line through the last two goes on.
    above = next(
        (number for number, (at, _) in enumerate(distinct) if at >= flops), len(distinct) - 1
    )
    (low, lower), (high, upper) = distinct[max(above, 1) - 1], distinct[max(above, 1)]
    part = (flops - low) / (high - low)
    step = lower.step + part * (upper.step - lower.step)
    image = lower.image + part * (upper.image - lower.image)
    # Noise can tilt the line so that it leads to nothing, or less: never below half of proportion.
    least = flops / high / 2
    return Rate(max(step, upper.step * least), max(image, upper.image * least), "in proportion")


def probed(timings: Mapping[str, Timing], workers: int) -> dict[str, Rate]:
    """Rates of what a probe timed, of runs with `workers` workers of which it timed one."""
    source: Source = "probed" if workers == 1 else "one worker probed"
    return {name: Rate(timing.step, timing.image, source) for name, timing in timings.items()}


def earlier(
    storage: Storage, runs: Sequence[Run], execution: Execution, hardware: str
) -> dict[str, Rate]:
    """Rates of rows by runs in storage that were carried out alike, in all of their attempts.

    Alike is: the same number of workers, threads and hardware.
    """
    seen = dict[str, list[float]]()
    for run in runs:
        # A run that is damaged tells nothing; `status` names it.
        history = None
        with suppress(InputError):
            history = newest_history(storage, run)
        if history is None or not all(
            _is_alike(attempt, execution, hardware) for attempt in history.attempts
        ):
            continue
        rates = [
            point.value
            for point in history.points
            if point.metric == IMAGES_PER_SECOND and point.value > 0
        ]
        seen.setdefault(run.experiment.fingerprint, []).extend(rates)
    by_fingerprint = {run.experiment.fingerprint: run.experiment for run in runs}
    measured = dict[str, Rate]()
    for fingerprint, values in seen.items():
        if values:
            size = by_fingerprint[fingerprint].global_batch_size
            step = size / median(values)
            # Runs do not time what only goes forward: a third of a step, on each of the workers.
            image = step * execution.workers / size / (1 + BACKWARD)
            measured[fingerprint] = Rate(step, image, "earlier runs")
    return measured


def _is_alike(attempt: dict[str, object], execution: Execution, hardware: str) -> bool:
    made_with = (
        attempt.get("world_size"),
        attempt.get("threads"),
        bool(attempt.get("one_pass")),
        bool(attempt.get("compiled")),
        bool(attempt.get("deterministic")),
        # Beside others a run is slower than alone.
        attempt.get("runs_at_once", 1),
        f"{attempt.get('device')}, {attempt.get('hardware')}",
    )
    return made_with == (
        execution.workers,
        execution.threads,
        execution.one_pass,
        execution.compiled,
        execution.deterministic_kernels,
        1,
        hardware,
    )
