"""Statistics of a few seeds: mean and spread, the exact test of an ordering, and t-intervals.

The paper gives mean ± std for one row of Table 6 and no test; the tests are ours, chosen to be
exact with three seeds. Pure functions of floats: no frames, no names of experiments, no verdicts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from math import comb, fsum, inf, nan, sqrt

import numpy as np

# Levels are fractions, not floats: 1 of 20 splits has to reach 5 % exactly, not by rounding.
LEVEL = Fraction(1, 20)
"""Significance level of each test; three seeds wholly apart from three reach it exactly."""

MIN_SEEDS = 3
"""The fewest runs per row that can decide anything at `LEVEL`: 1 / comb(6, 3) is 5 %."""

INTERIM_SEEDS = (3, 5, 10)
"""Seeds at which a grid that runs until it is decided has its interim analyses.

Each analysis tests at its share of `LEVEL` (Bonferroni), so that the chance of a wrong verdict at
any of them, the family-wise error, stays below `LEVEL`.
"""

MANY_SEEDS = 100
"""Where no more than this many seeds would decide, nobody is told how many."""

MOST_SPLITS = 20_000
"""Splits enumerated at most; above it, as many are drawn at random (seeded)."""


@dataclass(frozen=True)
class Summary:
    """Mean, standard deviation (n - 1), smallest and largest of `n` values; one value has no `std`.

    What is not defined is NaN.
    """

    n: int
    mean: float
    std: float
    best: float
    worst: float


def summarise(values: Sequence[float]) -> Summary:
    """Summary of the values; all NaN when there are none."""
    n = len(values)
    if n == 0:
        return Summary(0, nan, nan, nan, nan)
    # `fsum` is exact: the mean does not depend on the order in which seeds came in.
    mean = fsum(values) / n
    std = sqrt(fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else nan
    return Summary(n, mean, std, min(values), max(values))


@dataclass(frozen=True)
class PermutationTest:
    """The outcome of a permutation test, as two counts whose ratio is p.

    Of `splits` splits of the pooled values into two groups, `as_extreme` have a difference of means
    at least as large as the observed one.
    """

    as_extreme: int
    splits: int

    @property
    def p(self) -> float:
        return self.as_extreme / self.splits

    def significant(self, level: Fraction = LEVEL) -> bool:
        # In integers: as a float, 1/20 could fall on the wrong side of 0.05.
        return Fraction(self.as_extreme, self.splits) <= level


def permutation_test(first: Sequence[float], second: Sequence[float]) -> PermutationTest:
    """One-sided permutation test of mean(first) > mean(second).

    A permutation test and no t-test, since it needs no assumption about how errors scatter and is
    exact for three values. With fixed sizes the difference of means rises with the sum of the first
    group, so that sum is compared. Sums equal up to rounding count as equal: ties never make a
    result more significant.

    Raises:
        ValueError: an empty group, or a value that is not finite.
    """
    pooled = [*first, *second]
    if not first or not second or not np.isfinite(pooled).all():
        raise ValueError("an ordering needs finite values on both sides")

    # A sum that is smaller by rounding alone counts as reaching the observed one.
    tolerance = 1e-9 * max(1.0, fsum(map(abs, pooled)))
    threshold = fsum(first) - tolerance

    exact = comb(len(pooled), len(first)) <= MOST_SPLITS
    sums = _every_sum(pooled, len(first)) if exact else _drawn_sums(pooled, len(first))
    reached = [total >= threshold for total in sums]
    # The observed split is one of the enumerated ones, and has to be added to the drawn ones:
    # without it p could be 0, and the test would err more often than its level says.
    return PermutationTest(sum(reached) + (not exact), len(reached) + (not exact))


def _every_sum(pooled: Sequence[float], size: int) -> Iterable[float]:
    return (fsum(group) for group in combinations(pooled, size))


def _drawn_sums(pooled: Sequence[float], size: int) -> Iterable[float]:
    draws = np.random.default_rng(0)
    values = np.asarray(pooled)
    return (fsum(draws.permutation(values)[:size]) for _ in range(MOST_SPLITS))


def _quantile(level: float, freedom: float) -> float:
    """Student's t that leaves (1 - level) / 2 above it."""
    # From `scipy.special`, which loads in a fifth of the time of `scipy.stats`; and only here, as
    # a command that trains would wait for it in vain.
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))


def mean_interval(values: Sequence[float], level: float = 0.9) -> tuple[float, float]:
    """Two-sided t-interval of the mean; infinite on both sides for fewer than two values.

    A one-sided test at 5 % reads one end of the 90 % interval.
    """
    summary = summarise(values)
    if summary.n < 2:
        return -inf, inf
    half = _half(summary.std, summary.n, level)
    return summary.mean - half, summary.mean + half


def confidence(level: Fraction = LEVEL) -> float:
    """Of the two-sided interval each of whose ends is a one-sided test at `level`: 0.9 for 5 %."""
    return float(1 - 2 * level)


def percent(share: float) -> str:
    """`90 %`, or `96.7 %` where a whole number will not do."""
    return f"{100 * share:.3g} %"


def half_width(std: float, n: int, level: Fraction = LEVEL) -> float:
    """Half the length of the interval of a mean of `n` values; infinite for fewer than two."""
    return _half(std, n, confidence(level)) if n > 1 else inf


def _half(std: float, n: int, level: float) -> float:
    return _quantile(level, n - 1) * std / sqrt(n)


def seeds_for_equivalence(
    mean: float, std: float, n: int, above: float, below: float, level: Fraction = LEVEL
) -> int | None:
    """How many seeds would tell whether a mean lies between two bounds.

    That is, if mean and deviation stay as they are with `n`. None where more than `MANY_SEEDS`
    would be needed.
    """
    for seeds in range(max(n, MIN_SEEDS) + 1, MANY_SEEDS + 1):
        half = half_width(std, seeds, level)
        low, high = mean - half, mean + half
        # Decided is either way: the interval lies wholly within the bounds, or wholly outside.
        if (above < low and high < below) or high <= above or low >= below:
            return seeds
    return None


def detectable_difference(
    first: Sequence[float], second: Sequence[float], level: Fraction = LEVEL
) -> float:
    """The smallest difference of two means that so many values, so scattered, could have shown."""
    low, high = difference_interval(first, second, confidence(level))
    return (high - low) / 2


def seeds_for_ordering(
    first: Sequence[float], second: Sequence[float], level: Fraction = LEVEL
) -> int | None:
    """How many seeds in each of two rows would order them, if means and deviations stay.

    None where more than `MANY_SEEDS` would be needed.
    """
    a, b = summarise(first), summarise(second)
    spread = sqrt(a.std**2 + b.std**2)
    for seeds in range(max(a.n, b.n, MIN_SEEDS) + 1, MANY_SEEDS + 1):
        # The permutation test has no formula for its power; the t-test's stands in for it.
        half = _quantile(confidence(level), 2 * seeds - 2) * spread / sqrt(seeds)
        if abs(a.mean - b.mean) > half:
            return seeds
    return None


def difference_interval(
    first: Sequence[float], second: Sequence[float], level: float = 0.9
) -> tuple[float, float]:
    """Welch's two-sided t-interval of mean(first) - mean(second): spreads need not be equal."""
    a, b = summarise(first), summarise(second)
    if min(a.n, b.n) < 2:
        return -inf, inf
    va, vb = a.std**2 / a.n, b.std**2 / b.n
    difference = a.mean - b.mean
    # Without any spread the degrees of freedom would be 0 / 0.
    if va + vb == 0:
        return difference, difference
    # Welch and Satterthwaite's degrees of freedom.
    freedom = (va + vb) ** 2 / (va**2 / (a.n - 1) + vb**2 / (b.n - 1))
    half = _quantile(level, freedom) * sqrt(va + vb)
    return difference - half, difference + half
