"""Trials placed on a cluster, simulated: longest first, as room appears; and what none can beat."""

import heapq
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Trial:
    """Something that takes `units` (GPUs, or slots of CPUs) for `seconds`."""

    name: str
    seconds: float
    units: float = 1.0


@dataclass(frozen=True)
class Placement:
    """When each trial starts, in seconds, in the order of starting; and when the last one ends."""

    starts: tuple[tuple[float, Trial], ...]
    makespan: float

    @property
    def last(self) -> Trial | None:
        """The trial that ends last."""
        if not self.starts:
            return None
        return max(self.starts, key=lambda start: start[0] + start[1].seconds)[1]


def place(trials: Sequence[Trial], units: float) -> Placement:
    """Longest first, and whatever fits beside it, as a grid does where trials are equally wide.

    Raises:
        ValueError: a trial is wider than the cluster.
    """
    if any(trial.units > units + 1e-9 for trial in trials):
        raise ValueError(f"a trial takes more than the {units:g} there are")
    # A queue for each width, as what fits is asked of widths: there are few, and thousands of runs.
    waiting = defaultdict[float, deque[tuple[int, Trial]]](deque)
    for order, trial in enumerate(sorted(trials, key=lambda trial: -trial.seconds)):
        waiting[trial.units].append((order, trial))
    free, now = units, 0.0
    starts = list[tuple[float, Trial]]()
    running = list[tuple[float, int, float]]()  # end, number (so that ties have an order), units
    while True:
        # Start whatever fits now, the longest first; what does not fit keeps its place.
        while fitting := [
            width for width, queue in waiting.items() if queue and width <= free + 1e-9
        ]:
            _, trial = waiting[min(fitting, key=lambda width: waiting[width][0][0])].popleft()
            free -= trial.units
            starts.append((now, trial))
            heapq.heappush(running, (now + trial.seconds, len(starts), trial.units))
        if not running:
            return Placement(tuple(starts), now)
        # Nothing fits any more: on to the time at which the next trial ends.
        now, _, given = heapq.heappop(running)
        free += given


def lower_bound(trials: Sequence[Trial], units: float) -> float:
    """Seconds that no placement can beat: all of the work spread evenly, or the longest trial."""
    spread = sum(trial.seconds * trial.units for trial in trials) / units
    return max(spread, max((trial.seconds for trial in trials), default=0.0))


def gap(trials: Sequence[Trial], units: float, placed: Placement) -> str:
    """Why a placement is longer than the lower bound, in a few words; empty where it is not."""
    if placed.makespan <= 1.005 * lower_bound(trials, units) or placed.last is None:
        return ""
    # The bound is met where nothing idles or where one trial takes all the time.
    idle = 1 - sum(trial.seconds * trial.units for trial in trials) / (placed.makespan * units)
    return (
        f"{idle:.0%} idle at the end, while {placed.last.name} is the last to run and nothing is "
        "left beside it"
    )
