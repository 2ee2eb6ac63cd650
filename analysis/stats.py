"""Statistics of a few seeds: mean and spread, the exact test of an ordering, t-intervals (pure, floats in).

The paper gives mean ± std for one row of Table 6 and no test; the tests are ours, chosen to be exact with three seeds.
No frames, no names of experiments, no verdicts here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from math import comb, fsum, inf, nan, sqrt

import numpy as np
from scipy.special import stdtrit

LEVEL = Fraction(1, 20)
"""Significance level of an ordering; three seeds against three, completely separated, reach it exactly."""

MIN_SEEDS = 3
"""The fewest runs per row that can decide anything at `LEVEL`."""

MOST_SPLITS = 20_000
"""Splits enumerated at most; above it, as many are drawn at random (seeded)."""


@dataclass(frozen=True)
class Summary:
    """Mean, standard deviation (n - 1) and smallest of `n` values; `std` is NaN for a single one."""

    n: int
    mean: float
    std: float
    best: float


def summarise(values: Sequence[float]) -> Summary:
    """Summary of the values; all NaN when there are none."""
    n = len(values)
    if n == 0:
        return Summary(0, nan, nan, nan)
    mean = fsum(values) / n
    std = sqrt(fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else nan
    return Summary(n, mean, std, min(values))


@dataclass(frozen=True)
class Ordering:
    """Outcome of a permutation test: of `splits` splits of the pooled values, `as_extreme` reach the observed one."""

    as_extreme: int
    splits: int

    @property
    def p(self) -> float:
        return self.as_extreme / self.splits

    @property
    def significant(self) -> bool:
        return Fraction(self.as_extreme, self.splits) <= LEVEL


def higher(first: Sequence[float], second: Sequence[float]) -> Ordering:
    """One-sided permutation test of mean(first) > mean(second).

    With fixed sizes the difference of means rises with the sum of the first group, so that sum is compared. Sums equal
    up to rounding count as equal: ties never make a result more significant.

    Raises:
        ValueError: an empty group, or a value that is not finite.
    """
    pooled = [*first, *second]
    if not first or not second or not np.isfinite(pooled).all():
        raise ValueError("an ordering needs finite values on both sides")
    tolerance = 1e-9 * max(1.0, fsum(map(abs, pooled)))
    threshold = fsum(first) - tolerance
    exact = comb(len(pooled), len(first)) <= MOST_SPLITS
    sums = _every_sum(pooled, len(first)) if exact else _drawn_sums(pooled, len(first))
    reached = [total >= threshold for total in sums]
    # The observed split is one of the enumerated ones, and has to be added to the drawn ones.
    return Ordering(sum(reached) + (not exact), len(reached) + (not exact))


def _every_sum(pooled: Sequence[float], size: int) -> Iterable[float]:
    return (fsum(group) for group in combinations(pooled, size))


def _drawn_sums(pooled: Sequence[float], size: int) -> Iterable[float]:
    draws = np.random.default_rng(0)
    values = np.asarray(pooled)
    return (fsum(draws.permutation(values)[:size]) for _ in range(MOST_SPLITS))


def _quantile(level: float, freedom: float) -> float:
    """Student's t that leaves (1 - level) / 2 above it. Of `scipy.special`, which loads in a fifth of the time."""
    return float(stdtrit(freedom, (1 + level) / 2))


def mean_interval(values: Sequence[float], level: float = 0.9) -> tuple[float, float]:
    """Two-sided t-interval of the mean; a one-sided test at 5 % reads one end of the 90 % interval."""
    summary = summarise(values)
    if summary.n < 2:
        return -inf, inf
    half = _quantile(level, summary.n - 1) * summary.std / sqrt(summary.n)
    return summary.mean - half, summary.mean + half


def difference_interval(first: Sequence[float], second: Sequence[float], level: float = 0.9) -> tuple[float, float]:
    """Welch's two-sided t-interval of mean(first) - mean(second)."""
    a, b = summarise(first), summarise(second)
    if min(a.n, b.n) < 2:
        return -inf, inf
    va, vb = a.std**2 / a.n, b.std**2 / b.n
    difference = a.mean - b.mean
    if va + vb == 0:
        return difference, difference
    freedom = (va + vb) ** 2 / (va**2 / (a.n - 1) + vb**2 / (b.n - 1))
    half = _quantile(level, freedom) * sqrt(va + vb)
    return difference - half, difference + half
