"""The kinds of parts that claims are made of, each a class that knows its rows and its test.

An ordering of two rows (permutation and Welch's test), of the same runs under two protocols (paired
t-test), a mean or a difference within bounds (t-intervals), a number of the paper (as its cell), a
bound that every run keeps, and ResNet-110's slow start (footnote 5).
"""

from dataclasses import dataclass
from fractions import Fraction
from math import inf, isfinite, nan
from typing import Protocol

import pandas as pd

from analysis import power, stats
from analysis.stats import LEVEL
from analysis.studies.run_metrics import MEASURED
from analysis.verdicts.cells import margin_of
from analysis.verdicts.evidence import (
    Evidence,
    Outcome,
    Tested,
    Values,
    both_ways,
    evidence_of,
    format_p,
    found,
    judge_bounds,
    judge_ordering,
    number_text,
    values_of,
)
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.metrics import TEST_ERR
from pipeline.recipe.schedule import CONVERGING_RULE

TRAINING_IMAGES = 50_000
"""Of CIFAR-10, for the length of an epoch in footnote 5, which is judged on CIFAR-10 alone."""


class Part(Protocol):
    """A part of a claim: the rows it needs, and how it is judged on the frame of run metrics."""

    @property
    def experiments(self) -> tuple[str, ...]: ...

    def judge(self, run_metrics: pd.DataFrame, level: Fraction = LEVEL) -> Evidence: ...


@dataclass(frozen=True)
class Claim:
    """A claim as its parts; `absolute` ones are about numbers on the paper's own data alone.

    A part may be absolute by itself: the size of a gap, beside its direction.
    """

    parts: tuple[Part, ...]
    absolute: bool = False

    @property
    def experiments(self) -> tuple[str, ...]:
        """The rows it needs, each once."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.experiments))

    def is_absolute(self, part: Part) -> bool:
        """Whether a part is about numbers on the paper's own data alone."""
        return self.absolute or bool(getattr(part, "absolute", False))


@dataclass(frozen=True)
class Higher:
    """The mean of `quantity` is higher in row `first` than in row `second`."""

    quantity: str
    first: str
    second: str

    @property
    def experiments(self) -> tuple[str, ...]:
        return self.first, self.second

    def judge(self, run_metrics: pd.DataFrame, level: Fraction = LEVEL) -> Evidence:
        words, values, problem = values_of(run_metrics, self.quantity, self.experiments)
        text = f"{words}: {self.first} > {self.second}"
        if problem:
            return evidence_of(text, self.experiments, values, *problem)

        def test(rows: Values) -> Tested:
            return judge_ordering(rows[self.first], rows[self.second], level)

        finding = both_ways(test, run_metrics, self.quantity, values)
        return found(text, self.experiments, values, finding, level)


@dataclass(frozen=True)
class LowerBy:
    """One row has a lower error by one protocol than by another: the same runs, tested twice."""

    better: str
    worse: str
    experiment: str

    @property
    def experiments(self) -> tuple[str, ...]:
        return (self.experiment,)

    def judge(self, run_metrics: pd.DataFrame, level: Fraction = LEVEL) -> Evidence:
        better_words, better, better_problem = values_of(run_metrics, self.better, self.experiments)
        worse_words, worse, worse_problem = values_of(run_metrics, self.worse, self.experiments)
        text = f"{self.experiment}: {worse_words} > {better_words}"
        if problem := better_problem or worse_problem:
            return evidence_of(text, self.experiments, worse, *problem)

        # Pairs: a run that is better by one protocol is better by the other, which two separate
        # rows would not be. A diverged run has chance error by both, and no say.
        first, second = worse[self.experiment], better[self.experiment]
        estimate = stats.of_paired_difference(first, second)
        p, p_against = estimate.p_above(0), estimate.p_below(0)
        low, high = estimate.interval(level)
        means = f"{sum(second) / len(second):.2f} against {sum(first) / len(first):.2f} %"
        finding = Tested(
            p=p,
            p_against=p_against,
            effect=float(estimate.value),
            low=low,
            high=high,
            seen=power.detectable(estimate, level),
            why=f"p = {format_p(p)} by a paired t-test; {means}",
        )
        return found(text, self.experiments, worse, finding, level)


@dataclass(frozen=True)
class Within:
    """The mean of `quantity` in one row lies between `above` and `below`, as its interval shows."""

    quantity: str
    experiment: str
    above: float = -inf
    below: float = inf

    @property
    def experiments(self) -> tuple[str, ...]:
        return (self.experiment,)

    def judge(self, run_metrics: pd.DataFrame, level: Fraction = LEVEL) -> Evidence:
        words, values, problem = values_of(run_metrics, self.quantity, self.experiments)
        text = f"{words}: {self.experiment} {bounds_text(self.above, self.below)}"
        if problem:
            return evidence_of(text, self.experiments, values, *problem)

        def test(rows: Values) -> Tested:
            mean = stats.of_mean(rows[self.experiment])
            return judge_bounds(mean, (self.above, self.below), level)

        finding = both_ways(test, run_metrics, self.quantity, values)
        return found(text, self.experiments, values, finding, level)


@dataclass(frozen=True)
class NearPaper:
    """The mean test error of a row is the paper's, judged as its cell is: within that margin."""

    experiment: str
    number: float
    runs: int = 1
    std: float = nan

    @property
    def experiments(self) -> tuple[str, ...]:
        return (self.experiment,)

    def judge(self, run_metrics: pd.DataFrame, level: Fraction = LEVEL) -> Evidence:
        words, values, problem = values_of(run_metrics, "test", self.experiments)
        margin = margin_of(self.experiment, TEST_ERR)
        text = f"{words}: {self.experiment} within {margin:g} points of {self.number:g}"
        if problem:
            return evidence_of(text, self.experiments, values, *problem)

        def test(rows: Values) -> Tested:
            row = rows[self.experiment]
            distance = stats.of_distance(row, self.number, self.runs, self.std)
            return judge_bounds(distance, (-margin, margin), level, "difference, ")

        finding = both_ways(test, run_metrics, "test", values)
        return found(text, self.experiments, values, finding, level)


@dataclass(frozen=True)
class Equivalent:
    """The means of `quantity` in two rows differ by less than `margin`: an equivalence test."""

    quantity: str
    first: str
    second: str
    margin: float

    @property
    def experiments(self) -> tuple[str, ...]:
        return self.first, self.second

    def judge(self, run_metrics: pd.DataFrame, level: Fraction = LEVEL) -> Evidence:
        words, values, problem = values_of(run_metrics, self.quantity, self.experiments)
        text = f"{words}: {self.first} within {self.margin:g} points of {self.second}"
        if problem:
            return evidence_of(text, self.experiments, values, *problem)

        # An ordering that is not significant would be no evidence of similarity: with few seeds
        # hardly anything is. The interval of the difference has to lie within the margin.
        def test(rows: Values) -> Tested:
            difference = stats.of_difference(rows[self.first], rows[self.second])
            return judge_bounds(difference, (-self.margin, self.margin), level, "difference, ")

        finding = both_ways(test, run_metrics, self.quantity, values)
        return found(text, self.experiments, values, finding, level)


@dataclass(frozen=True)
class Gap:
    """The size of a gap: `quantity` is higher in `first` than in `second` by so many points.

    It is about the paper's own data alone. Where the size is a difference of single runs of the
    paper, `paper_runs` widens the interval by their noise.
    """

    quantity: str
    first: str
    second: str
    above: float
    below: float = inf
    paper_runs: float = inf
    absolute: bool = True

    @property
    def experiments(self) -> tuple[str, ...]:
        return self.first, self.second

    def judge(self, run_metrics: pd.DataFrame, level: Fraction = LEVEL) -> Evidence:
        words, values, problem = values_of(run_metrics, self.quantity, self.experiments)
        text = f"{words}: {self.first} − {self.second} {bounds_text(self.above, self.below)} points"
        if problem:
            return evidence_of(text, self.experiments, values, *problem)

        def test(rows: Values) -> Tested:
            difference = stats.of_difference(rows[self.first], rows[self.second], self.paper_runs)
            return judge_bounds(difference, (self.above, self.below), level, "difference, ")

        finding = both_ways(test, run_metrics, self.quantity, values)
        return found(text, self.experiments, values, finding, level)


def bounds_text(above: float, below: float) -> str:
    """`> 0.10 and < 0.50`, of the bounds that are finite."""
    bounds = ((">", above), ("<", below))
    return " and ".join(f"{sign} {number_text(bound)}" for sign, bound in bounds if isfinite(bound))


@dataclass(frozen=True)
class EveryRun:
    """In every run of the row, `quantity` is above a bound."""

    quantity: str
    experiment: str
    above: float

    @property
    def experiments(self) -> tuple[str, ...]:
        return (self.experiment,)

    def judge(self, run_metrics: pd.DataFrame, level: Fraction = LEVEL) -> Evidence:
        words, values, problem = values_of(run_metrics, self.quantity, self.experiments)
        text = f"{words}: {self.experiment} > {self.above:g} in every run"
        if problem:
            return evidence_of(text, self.experiments, values, *problem)

        # Counted, not averaged: one vanished signal among strong ones would not show in a mean.
        row_values = values[self.experiment]
        above = sum(value > self.above for value in row_values)
        outcome: Outcome = "open"
        if above == len(row_values):
            outcome = "holds"
        elif not above:
            outcome = "opposite"
        why = f"{above} of {len(row_values)}, lowest {min(row_values):.2g}"
        return evidence_of(text, self.experiments, values, outcome, why)


@dataclass(frozen=True)
class SlowStart:
    """Every run of the row needs more than two epochs until its error is clearly below 90 %.

    "Several epochs" (footnote 5) are at least two. Runs whose start was found by an earlier rule
    leave it open: that one fired by chance.
    """

    experiment: str

    @property
    def experiments(self) -> tuple[str, ...]:
        return (self.experiment,)

    def judge(self, run_metrics: pd.DataFrame, level: Fraction = LEVEL) -> Evidence:
        several = 2 * TRAINING_IMAGES / EXPERIMENTS[self.experiment].global_batch_size
        of_row = run_metrics.experiment == self.experiment
        runs = run_metrics[of_row & (run_metrics.state == MEASURED)]
        text = f"iterations at 90 % error: {self.experiment} > {several:.0f} (two epochs)"
        values = {self.experiment: runs.converging_from.tolist()}

        # Whether there are runs enough is asked of their test errors, since a run that never
        # converged has no iteration at which it did.
        _, _, problem = values_of(run_metrics, "test", self.experiments)
        if problem:
            return evidence_of(text, self.experiments, values, *problem)
        if earlier := int((runs.converging_rule != CONVERGING_RULE).sum()):
            why = (
                f"{earlier} of {len(runs)} runs recorded by an earlier rule, which fired by chance"
            )
            return evidence_of(text, self.experiments, values, "open", why)

        # For the same reason such a run (NaN) is not fast, and so counts as slow.
        fast = (runs.converging_from <= several).sum()
        slow = len(runs) - fast
        outcome: Outcome = "open"
        if slow == len(runs):
            outcome = "holds"
        elif fast == len(runs):
            outcome = "opposite"
        why = f"{slow} of {len(runs)} runs longer, {fast} shorter"
        return evidence_of(text, self.experiments, values, outcome, why)
