"""Statistics of a few seeds: mean and spread, estimates with one-sided p, and permutation tests.

The paper gives mean ± std for one row of Table 6 and no test; the tests are ours. Pure functions of
numbers: no frames, no names of experiments, no verdicts. Seeds lie along the last axis, so that the
code that judges one study also judges the thousands of a simulation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import combinations
from math import comb, fsum, inf, nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Levels are fractions, not floats: 1 of 20 splits has to reach 5 % exactly, not by rounding.
LEVEL = Fraction(1, 20)
"""Significance level of each test."""

MIN_SEEDS = 3
"""The fewest runs per row that are judged: 1 / comb(6, 3) is 5 %, so they can suggest a verdict."""

ENOUGH_SEEDS = 5
"""The fewest runs per row that can reproduce or contradict: 1 / comb(10, 5) is 1/252."""

INTERIM_SEEDS = (5, 10)
"""Seeds at which a grid that runs until it is decided has its interim analyses.

Each analysis tests at its share of `LEVEL` (Bonferroni), so that the chance of a wrong verdict at
any of them, the family-wise error, stays below `LEVEL`. Three against three could never reach it.
"""

MOST_SPLITS = 20_000
"""Splits enumerated at most; above it, as many are drawn at random (seeded)."""

Floats = NDArray[np.float64]


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


# Estimates: a number, how far it may be off, and what follows from that.


@dataclass(frozen=True)
class StudentEstimate:
    """An estimate, its standard error and degrees of freedom: floats, or arrays of one shape.

    Without any spread (`error` 0) it is taken for the truth: p is 0 or 1, its interval a point.
    """

    value: Any
    error: Any
    freedom: Any

    def p_above(self, bound: float) -> Any:
        """One-sided p of "the truth is above `bound`", by Student's t."""
        distance = np.asarray(self.value, dtype="float64") - bound
        # Without spread, what is not clearly above the bound is not above it.
        certain = np.where(distance > 0, 0.0, 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            # Here, as a command that trains would wait in vain for it to load.
            from scipy.special import stdtr

            tested = stdtr(self.freedom, -distance / self.error)
        p = np.where(np.asarray(self.error) == 0, certain, tested)
        return float(p) if p.ndim == 0 else p

    def p_below(self, bound: float) -> Any:
        """One-sided p of "the truth is below `bound`"."""
        return StudentEstimate(-np.asarray(self.value), self.error, self.freedom).p_above(-bound)

    def interval(self, level: Fraction = LEVEL) -> tuple[Any, Any]:
        """The two-sided interval each of whose ends is a one-sided test at `level`."""
        half = self.half_width(level)
        return self.value - half, self.value + half

    def half_width(self, level: Fraction = LEVEL) -> Any:
        """Half the length of that interval; infinite without degrees of freedom."""
        with np.errstate(invalid="ignore"):
            half = quantile(level, self.freedom) * np.asarray(self.error, dtype="float64")
        half = np.where(np.asarray(self.error) == 0, 0.0, half)
        half = np.where(np.isnan(half), inf, half)
        return float(half) if half.ndim == 0 else half


def quantile(level: Fraction, freedom: Any) -> Any:
    """Student's t that leaves `level` above it."""
    # From `scipy.special`, which loads in a fifth of the time of `scipy.stats`.
    from scipy.special import stdtrit

    return stdtrit(freedom, 1 - float(level))


def of_mean(values: ArrayLike) -> StudentEstimate:
    """The mean of the values as an estimate; one value has no error and no interval."""
    mean, variance, n = _moments(values)
    return StudentEstimate(mean, np.sqrt(variance / n), n - 1 if n > 1 else nan)


def of_difference(
    first: ArrayLike, second: ArrayLike, reference_runs: float = inf
) -> StudentEstimate:
    """Welch's estimate of mean(first) - mean(second): spreads and sizes need not be equal.

    With `reference_runs`, of how far that difference lies from one that was taken between means of
    so many runs each, if those scatter as ours do.
    """
    (mean_a, variance_a, n_a), (mean_b, variance_b, n_b) = _moments(first), _moments(second)
    a = variance_a * (1 / n_a + 1 / reference_runs)
    b = variance_b * (1 / n_b + 1 / reference_runs)
    return StudentEstimate(mean_a - mean_b, np.sqrt(a + b), _welch(a, n_a, b, n_b))


def of_distance(
    values: ArrayLike, reference: Any, reference_runs: float = 1, reference_std: Any = nan
) -> StudentEstimate:
    """How far the mean lies from the mean of other runs, of which `reference` is what was printed.

    `reference` is the mean of `reference_runs` runs, in most of the paper's cells of one. They are
    taken to scatter as ours do, unless their own deviation `reference_std` was printed too.
    """
    mean, variance, n = _moments(values)
    if np.isnan(reference_std).any():
        error = np.sqrt(variance * (1 / n + 1 / reference_runs))
        return StudentEstimate(mean - reference, error, n - 1 if n > 1 else nan)
    a, b = variance / n, np.square(reference_std) / reference_runs
    return StudentEstimate(mean - reference, np.sqrt(a + b), _welch(a, n, b, reference_runs))


def of_paired_difference(first: ArrayLike, second: ArrayLike) -> StudentEstimate:
    """The mean of first - second, run by run: the same runs measured twice."""
    return of_mean(np.asarray(first, dtype="float64") - np.asarray(second, dtype="float64"))


def _moments(values: ArrayLike) -> tuple[Any, Any, int]:
    """Mean, variance (n - 1) and number of the values along the last axis."""
    array = np.asarray(values, dtype="float64")
    n = array.shape[-1]
    if array.ndim == 1:
        # Of one study exactly, whatever order its seeds came in.
        one = summarise(array.tolist())
        return one.mean, np.float64(one.std**2), n
    return array.mean(-1), array.var(-1, ddof=1), n


def _welch(a: Any, n_a: float, b: Any, n_b: float) -> Any:
    """Welch and Satterthwaite's degrees of freedom of two squared errors."""
    if min(n_a, n_b) < 2:
        return nan
    with np.errstate(divide="ignore", invalid="ignore"):
        # Without any spread they would be 0 / 0; the error is 0 then, and they are not asked for.
        return (a + b) ** 2 / (a**2 / (n_a - 1) + b**2 / (n_b - 1))


def mean_interval(values: Sequence[float], level: Fraction = LEVEL) -> tuple[float, float]:
    """Two-sided t-interval of the mean; infinite on both sides for fewer than two values.

    A one-sided test at 5 % reads one end of the 90 % interval.
    """
    if len(values) < 2:
        return -inf, inf
    low, high = of_mean(values).interval(level)
    return float(low), float(high)


def difference_interval(
    first: Sequence[float], second: Sequence[float], level: Fraction = LEVEL
) -> tuple[float, float]:
    """Welch's two-sided t-interval of mean(first) - mean(second)."""
    if min(len(first), len(second)) < 2:
        return -inf, inf
    low, high = of_difference(first, second).interval(level)
    return float(low), float(high)


def confidence(level: Fraction = LEVEL) -> float:
    """Of the two-sided interval each of whose ends is a one-sided test at `level`: 0.9 for 5 %."""
    return float(1 - 2 * level)


def percent(share: float) -> str:
    """`90 %`, or `96.7 %` where a whole number will not do."""
    return f"{100 * share:.3g} %"


# Permutation tests.


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


def permutation_test(first: Sequence[float], second: Sequence[float]) -> PermutationTest:
    """One-sided permutation test of mean(first) > mean(second).

    It is exact for the hypothesis that both rows are the same, in spread too, whatever the shape.
    Of rows that scatter unequally it alone errs more often than its level, so that a verdict asks
    for Welch's test besides.

    Raises:
        ValueError: an empty group, or a value that is not finite.
    """
    if not len(first) or not len(second) or not np.isfinite([*first, *second]).all():
        raise ValueError("an ordering needs finite values on both sides")
    count, splits = permutation_counts(np.asarray([first], "float64"), np.asarray([second]))
    return PermutationTest(int(count[0]), splits)


def permutation_counts(first: Floats, second: Floats) -> tuple[NDArray[np.int64], int]:
    """How many splits are as extreme as the observed one, study by study, and of how many.

    With fixed sizes the difference of means rises with the sum of the first group, so that sum is
    compared. Sums equal up to rounding count as equal: ties never make a result more significant.
    """
    pooled = np.concatenate([first, second], axis=1)
    groups = _groups(pooled.shape[1], first.shape[1])
    # A sum that is smaller by rounding alone counts as reaching the observed one.
    tolerance = 1e-9 * np.maximum(1.0, np.abs(pooled).sum(1))
    threshold = first.sum(1) - tolerance
    # In portions of studies: all sums of all studies at once would not fit in memory.
    portions = max(1, len(pooled) * len(groups) // 10_000_000)
    reached = np.concatenate(
        [
            (pooled[part] @ groups.T >= threshold[part, None]).sum(1)
            for part in np.array_split(np.arange(len(pooled)), portions)
        ]
    )
    # The observed split is one of the enumerated ones, and has to be added to the drawn ones:
    # without it p could be 0, and the test would err more often than its level says.
    drawn = comb(pooled.shape[1], first.shape[1]) > MOST_SPLITS
    return reached + drawn, len(groups) + drawn


@lru_cache(maxsize=16)
def _groups(n: int, size: int) -> Floats:
    """Splits of `n` values, a row each with 1 where a value is in the first group of `size`."""
    if comb(n, size) > MOST_SPLITS:
        ranks = np.random.default_rng(0).random((MOST_SPLITS, n)).argsort(1)
        return (ranks < size).astype("float64")
    chosen = np.array(list(combinations(range(n), size)))
    groups = np.zeros((len(chosen), n))
    np.put_along_axis(groups, chosen, 1.0, axis=1)
    return groups


@dataclass(frozen=True)
class OrderingP:
    """p of "the first mean is higher" and of the reverse, by two tests; floats, or arrays."""

    exact: Any
    exact_against: Any
    welch: Any
    welch_against: Any

    @property
    def both(self) -> Any:
        """The larger of the two tests' p: an ordering has to be significant by both."""
        return np.maximum(self.exact, self.welch)

    @property
    def both_against(self) -> Any:
        return np.maximum(self.exact_against, self.welch_against)


def p_ordering(first: Floats, second: Floats) -> OrderingP:
    """Both tests of an ordering, study by study; arrays of studies × seeds."""
    claimed, splits = permutation_counts(first, second)
    reverse, _ = permutation_counts(second, first)
    difference = of_difference(first, second)
    return OrderingP(
        claimed / splits, reverse / splits, difference.p_above(0), difference.p_below(0)
    )


def p_within(estimate: StudentEstimate, bounds: tuple[float, float]) -> tuple[Any, Any]:
    """p of "the truth lies within the bounds", by two one-sided tests, and of "it lies outside"."""
    above, below = bounds
    finite = [side for side, bound in (("above", above), ("below", below)) if abs(bound) < inf]
    within = {"above": estimate.p_above(above), "below": estimate.p_below(below)}
    beyond = {"above": estimate.p_below(above), "below": estimate.p_above(below)}
    p = np.max([within[side] for side in finite], axis=0)
    p_against = np.min([beyond[side] for side in finite], axis=0)
    return p, p_against


# Several tests at once.


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p of a family of tests; NaN stands for no test and stays NaN.

    Who rejects where it is at most the level errs anywhere in the family at most that often.
    """
    tested = sorted((value, index) for index, value in enumerate(p) if value == value)
    adjusted, largest = [nan] * len(p), 0.0
    for rank, (value, index) in enumerate(tested):
        largest = max(largest, min(1.0, value * (len(tested) - rank)))
        adjusted[index] = largest
    return adjusted


def at_most(p: float, level: Fraction) -> bool:
    """Whether a p reaches the level; 1 of 20 splits reaches 5 %, whatever floats make of it."""
    return p <= float(level) + 1e-12
