"""Runs with their seconds, placed on a cluster: what a grid will take, with an interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from jobs.planning.placement import Placement, Trial, gap, lower_bound, place
from jobs.planning.rates import DOUBT, Rate
from jobs.planning.workload import Amount
from pipeline.runs.run import Run

FIXED_SECONDS = 15.0
"""Of a grid command, before its first run and after its last: Ray, Tune and the report."""


@dataclass(frozen=True)
class Cluster:
    """Where a grid would run: on `units` GPUs, or CPUs where there are none."""

    units: float
    kind: str
    """GPU, A100, CPU, ..."""
    price: float | None = None
    """Of each for an hour."""
    total: float | None = None
    """All of the cluster's, where workers do not fill it."""

    @property
    def paid(self) -> float:
        return self.units if self.total is None else self.total


@dataclass(frozen=True)
class Estimate:
    """What is left of a run: seconds from its start to its end, on `units` units."""

    run: Run
    seconds: float
    units: float
    rate: Rate

    @property
    def hours(self) -> float:
        """Unit-hours: GPU-hours, or CPU-hours."""
        return self.seconds * self.units / 3600


def estimate(
    run: Run, left: Amount, rate: Rate, start: float, workers: int, units: float
) -> Estimate:
    """What is left of a run on `units` of the cluster; `start` seconds of it are no computing."""
    # Evaluation is shared by the workers; the rate of an iteration is all workers' already.
    computing = left.iterations * rate.step + left.forward * rate.image / workers
    return Estimate(run, start + computing, units, rate)


def longest_first(estimates: Sequence[Estimate]) -> list[Estimate]:
    """Runs in the order in which a grid starts them."""
    return sorted(estimates, key=lambda estimate: -estimate.seconds)


@dataclass(frozen=True)
class Plan:
    """A grid on a cluster; `fixed` seconds pass before its first run and after its last one.

    Where runs could be made otherwise too (wider, or fewer to a GPU), `any_bound` and `least_hours`
    are about all those ways.
    """

    cluster: Cluster
    runs: Sequence[Estimate]
    """The longest first."""
    fixed: float
    any_bound: float | None = None
    least_hours: float | None = None
    how: str = ""
    """Options of `grid` that carry the runs out so."""
    by_pack: Mapping[int, float] = field(default_factory=dict)
    """Wall time by how many runs a GPU trains at once, where that was a choice."""

    @cached_property
    def trials(self) -> list[Trial]:
        return [Trial(str(each.run), each.seconds, each.units) for each in self.runs]

    @cached_property
    def placement(self) -> Placement:
        return place(self.trials, self.cluster.units)

    @property
    def seconds(self) -> float:
        """Wall time of the whole command."""
        return self.fixed + self.placement.makespan if self.runs else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Within which the wall time should lie: each run's doubt, weighted by its work.

        Doubts do not cancel each other out: estimates of a family err together.
        """
        doubt = 0.0
        if self.hours:
            doubts = sum(each.hours * DOUBT[each.rate.source] for each in self.runs)
            doubt = doubts / self.hours
        return self.seconds / (1 + doubt), self.seconds * (1 + doubt)

    @property
    def bound(self) -> float:
        """Wall time that no placement of these runs can beat."""
        if self.any_bound is not None:
            return self.any_bound
        return self.fixed + lower_bound(self.trials, self.cluster.units) if self.runs else 0.0

    @property
    def gap(self) -> str:
        """Why the wall time is longer than the bound; empty where it is not."""
        # Within half a percent counts as met.
        if not self.runs or self.seconds <= 1.005 * self.bound:
            return ""
        reasons = [gap(self.trials, self.cluster.units, self.placement)]
        # Choosing wide runs, or fewer to a GPU, is one too: the bound has each at its least work.
        if self.least_hours and self.hours > 1.005 * self.least_hours:
            more = self.hours / self.least_hours - 1
            wide = any(each.units > 1 for each in self.runs)
            what = ("wide runs", "by what workers exchange") if wide else ("fewer at once", "alone")
            reasons.append(f"{what[0]} end sooner and cost {more:.0%} more work, {what[1]}")
        return "; ".join(reason for reason in reasons if reason)

    @property
    def hours(self) -> float:
        """Unit-hours in which something trains."""
        return sum(each.hours for each in self.runs)

    @property
    def cost(self) -> float | None:
        """Of the whole cluster for the wall time; None without a price."""
        # The whole cluster is paid for, also what idles at the end.
        price = self.cluster.price
        return None if price is None else price * self.cluster.paid * self.seconds / 3600
