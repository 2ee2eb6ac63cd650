"""What so many seeds could have shown: differences seen with 80 % power, and seeds that give it.

A test that finds nothing says little unless it could have found something. Spreads are taken as
measured, so these are estimates themselves. Pure functions of numbers, as in `stats`.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import comb, inf, isfinite, sqrt

import numpy as np
from scipy.special import chdtri, nctdtrinc, ndtr

from analysis.stats import ENOUGH_SEEDS, LEVEL, StudentEstimate, of_difference, quantile, summarise

POWER = 0.8
"""The power that is asked for: of studies of a true effect, the share that find it."""

MANY_SEEDS = 100
"""Where no more than this many seeds would decide, nobody is told how many."""

BOTH_TESTS = {3: (1.13, inf), 4: (1.08, 1.27), 5: (1.03, 1.05), 6: (1.02, 1.03)}
"""By the smaller number of seeds, how much more than Welch's test both tests of an ordering need.

At 5 %, and at a look's share of it. The permutation test has no formula for its power; the factors
are simulated, and held by a test.
"""

MORE_SEEDS = (1.01, 1.01)
"""Those factors for any larger number."""

_QUANTILES = (np.arange(200) + 0.5) / 200


def detectable(estimate: StudentEstimate, level: Fraction = LEVEL) -> float:
    """How far the truth has to lie beyond a bound for a t-test at `level` to see it so often."""
    error, freedom = float(estimate.error), float(estimate.freedom)
    if error == 0:
        return 0.0
    if not freedom > 0:
        return inf
    # The shift of a noncentral t whose lower 20 % lie below the critical value.
    return float(nctdtrinc(freedom, 1 - POWER, quantile(level, freedom))) * error


def detectable_ordering(
    first: Sequence[float], second: Sequence[float], level: Fraction = LEVEL
) -> float:
    """The difference of two rows that both tests of an ordering see with 80 % power.

    Infinite where so few seeds have no split rare enough for the level.
    """
    if comb(len(first) + len(second), len(first)) * level < 1:
        return inf
    factor = _both_tests(min(len(first), len(second)), level)
    return factor * detectable(of_difference(first, second), level)


def _both_tests(seeds: int, level: Fraction) -> float:
    return BOTH_TESTS.get(seeds, MORE_SEEDS)[level < LEVEL]


def seeds_for_ordering(
    first: Sequence[float], second: Sequence[float], level: Fraction = LEVEL
) -> int | None:
    """Seeds in each of two rows that give 80 % power, if means and deviations stay as they are.

    None where more than `MANY_SEEDS` would be needed.
    """
    a, b = summarise(first), summarise(second)
    spread = sqrt(a.std**2 + b.std**2)
    for seeds in range(max(a.n, b.n, ENOUGH_SEEDS - 1) + 1, MANY_SEEDS + 1):
        estimate = StudentEstimate(0.0, spread / sqrt(seeds), _freedom(a.std, b.std, seeds))
        needed = _both_tests(seeds, level) * detectable(estimate, level)
        if abs(a.mean - b.mean) >= needed and a.mean != b.mean:
            return seeds
    return None


def _freedom(a: float, b: float, seeds: int) -> float:
    """Welch's degrees of freedom of two rows with as many seeds each."""
    if a == b == 0:
        return 2 * seeds - 2
    return (seeds - 1) * (a**2 + b**2) ** 2 / (a**4 + b**4)


def power_within(
    offset: float,
    scatter: float,
    error: float,
    freedom: float,
    bounds: tuple[float, float],
    level: Fraction = LEVEL,
) -> tuple[float, float]:
    """How often an interval comes to lie wholly within two bounds, and wholly outside.

    The estimate scatters normally around `offset` by `scatter`; its standard error is `error` as
    estimated with `freedom` degrees of freedom.
    """
    above, below = bounds
    # The estimated error scatters too: averaged over quantiles of its chi distribution.
    halves = quantile(level, freedom) * error * np.sqrt(chdtri(freedom, _QUANTILES) / freedom)
    if scatter == 0:
        inside = (above + halves <= offset) & (offset <= below - halves)
        outside = (offset + halves <= above) | (offset - halves >= below)
        return float(inside.mean()), float(outside.mean())
    low, high = (above + halves - offset) / scatter, (below - halves - offset) / scatter
    inside = np.maximum(0.0, ndtr(high) - ndtr(low))
    outside = ndtr((above - halves - offset) / scatter) + ndtr(-(below + halves - offset) / scatter)
    return float(inside.mean()), float(outside.mean())


def power_of_cell(
    std: float,
    n: int,
    margin: float,
    level: Fraction = LEVEL,
    reference_runs: float = 1,
    reference_std: float | None = None,
) -> float:
    """How often a network that equals the paper's is found within the margin of it.

    Both scatter by `std` from run to run; with `reference_std` the paper's own deviation is known.
    """
    if reference_std is None:
        error, freedom = std * sqrt(1 / n + 1 / reference_runs), float(n - 1)
    else:
        a, b = std**2 / n, reference_std**2 / reference_runs
        error = sqrt(a + b)
        freedom = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (reference_runs - 1))
    return power_within(0.0, error, error, freedom, (-margin, margin), level)[0]


def seeds_for_bounds(
    mean: float,
    std: float,
    n: int,
    bounds: tuple[float, float],
    level: Fraction = LEVEL,
    reference_error: float = 0.0,
) -> int | None:
    """Seeds that give 80 % power to tell whether a mean lies between two bounds.

    That is, if mean and deviation stay as they are with `n`; `reference_error` is the standard
    error of what it is compared with, which more seeds of ours do not lessen. None where more than
    `MANY_SEEDS` would be needed.
    """
    if not isfinite(std):
        return None
    for seeds in range(max(n, ENOUGH_SEEDS - 1) + 1, MANY_SEEDS + 1):
        error = sqrt(std**2 / seeds + reference_error**2)
        powers = power_within(mean, std / sqrt(seeds), error, seeds - 1.0, bounds, level)
        # Decided is either way: the interval lies wholly within the bounds, or wholly outside.
        if max(powers) >= POWER:
            return seeds
    return None


def would_decide(seeds: int | None) -> str:
    """In words, how many seeds would decide."""
    return (
        f"about {seeds} seeds would give 80 % power"
        if seeds
        else f"80 % power would need more than {MANY_SEEDS} seeds"
    )
