"""The kinds of parts that claims are made of, each a class that knows its rows and its test.

An ordering of two rows (permutation test), a mean within bounds (t-interval), two means that are
equivalent (Welch interval), a bound that every run keeps, and ResNet-110's slow start (footnote 5).
"""

from dataclasses import dataclass
from fractions import Fraction
from math import hypot, inf, isfinite
from typing import Protocol

import pandas as pd

from analysis import stats
from analysis.stats import LEVEL
from analysis.studies.run_metrics import MEASURED
from analysis.verdicts.cells import would_decide
from analysis.verdicts.evidence import (
    Evidence,
    Outcome,
    evidence_of,
    format_p,
    judge_interval,
    judge_ordering,
    number_text,
    values_of,
)
from pipeline.recipe.experiments import EXPERIMENTS
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
    """A claim as its parts; `absolute` ones are about numbers on the paper's own data alone."""

    parts: tuple[Part, ...]
    absolute: bool = False

    @property
    def experiments(self) -> tuple[str, ...]:
        """The rows it needs, each once."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.experiments))


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
        first, second = values[self.first], values[self.second]
        text = f"{words}: {self.first} > {self.second}"
        if problem:
            return evidence_of(text, self.experiments, values, *problem)

        outcome, p, reverse = judge_ordering(first, second, level)
        why = f"p = {format_p(p)}"
        if outcome == "opposite":
            why += f", the reverse {format_p(reverse)}"
        # "Not significant" alone says nothing: what these seeds could have shown goes with it.
        if outcome == "open":
            difference = number_text(stats.detectable_difference(first, second, level))
            seeds = stats.seeds_for_ordering(first, second, level)
            why += f"; could have seen a difference of {difference}, {would_decide(seeds)}"
        return evidence_of(text, self.experiments, values, outcome, why, p=p)


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
        bounds = [
            f"{sign} {number_text(bound)}"
            for sign, bound in ((">", self.above), ("<", self.below))
            if isfinite(bound)
        ]
        text = f"{words}: {self.experiment} {' and '.join(bounds)}"
        if problem:
            return evidence_of(text, self.experiments, values, *problem)

        # Both ends are one-sided tests at the level, so the interval's confidence is 1 - 2 level.
        summary = stats.summarise(values[self.experiment])
        interval = stats.mean_interval(values[self.experiment], stats.confidence(level))
        outcome, why = judge_interval(interval, self.above, self.below, level)
        if outcome == "open":
            seeds = stats.seeds_for_equivalence(
                summary.mean, summary.std, summary.n, self.above, self.below, level
            )
            why += f"; {would_decide(seeds)}"
        return evidence_of(text, self.experiments, values, outcome, why, interval=interval)


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
        first, second = stats.summarise(values[self.first]), stats.summarise(values[self.second])
        interval = stats.difference_interval(
            values[self.first], values[self.second], stats.confidence(level)
        )
        outcome, why = judge_interval(interval, -self.margin, self.margin, level, "difference, ")
        if outcome == "open":
            spread, fewest = hypot(first.std, second.std), min(first.n, second.n)
            difference = first.mean - second.mean
            seeds = stats.seeds_for_equivalence(
                difference, spread, fewest, -self.margin, self.margin, level
            )
            why += f"; {would_decide(seeds)}"
        return evidence_of(text, self.experiments, values, outcome, why, interval=interval)


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
