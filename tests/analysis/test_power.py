"""Powers by hand and against simulation: what a report says that seeds could have shown."""

from fractions import Fraction
from math import inf

import numpy as np
import pytest

from analysis.power import (
    POWER,
    detectable,
    detectable_ordering,
    power_of_cell,
    power_within,
    seeds_for_bounds,
    seeds_for_ordering,
    would_decide,
)
from analysis.stats import LEVEL, of_mean
from benchmarks.verdict_rates import LOOK, cell_rates, ordering_rates, standard_error

DRAWS = 8_000


def row(n: int, std: float = 1.0, mean: float = 0.0) -> list[float]:
    """`n` values of exactly this mean and deviation."""
    values = np.linspace(-1, 1, n)
    return list(mean + values * std / values.std(ddof=1))


def near(measured: float, power: float = POWER, but: float = 0.015) -> bool:
    return abs(measured - power) <= but + 3 * standard_error(power, DRAWS)


def test_what_a_t_test_sees_four_times_in_five():
    seen = detectable(of_mean(row(6)))
    draws = np.random.default_rng(11).normal(seen, 1, (DRAWS, 6))
    assert near(float((of_mean(draws).p_above(0) <= 0.05).mean()))
    assert detectable(of_mean(row(4, std=0))) == 0 and detectable(of_mean([1.0])) == inf


@pytest.mark.parametrize(
    ("n", "level"), [(3, LEVEL), (4, LEVEL), (5, LEVEL), (5, LOOK), (6, LEVEL)]
)
def test_the_difference_seen_is_seen_by_both_tests_four_times_in_five(n: int, level: Fraction):
    seen = detectable_ordering(row(n), row(n), level)
    assert near(ordering_rates((n, n), shift=seen, level=level, draws=DRAWS, seed=12).both)


def test_rows_of_other_spreads_and_sizes_too():
    seen = detectable_ordering(row(5, 3.0), row(5))
    assert near(ordering_rates((5, 5), (3, 1), seen, draws=DRAWS, seed=13).both, but=0.03)


def test_three_against_three_see_nothing_at_the_level_of_a_look():
    assert detectable_ordering(row(3), row(3), LOOK) == inf
    assert ordering_rates((3, 3), shift=50, level=LOOK, draws=100).both == 0


def test_seeds_that_order_two_rows_do_so_four_times_in_five():
    seeds = seeds_for_ordering(row(3, mean=1.5), row(3))
    assert seeds == 7
    assert ordering_rates((7, 7), shift=1.5, draws=DRAWS, seed=14).both > POWER - 0.02
    assert ordering_rates((6, 6), shift=1.5, draws=DRAWS, seed=14).both < POWER + 0.02
    assert seeds_for_ordering(row(3), row(3)) is None
    assert "more than 100" in would_decide(None) and "about 7 seeds" in would_decide(7)


def test_fewer_than_five_seeds_are_never_recommended():
    assert seeds_for_ordering(row(3, mean=100), row(3)) == 5
    assert seeds_for_bounds(0.0, 0.01, 3, (-0.5, 0.5)) == 5


@pytest.mark.parametrize(("n", "runs", "margin"), [(5, 1, 0.55), (10, 1, 0.55), (10, 5, 0.3)])
def test_the_power_of_a_cell_is_the_simulated_one(n: int, runs: int, margin: float):
    known = 0.16 if runs > 1 else None
    stated = power_of_cell(0.16, n, margin, LEVEL, runs, known)
    assert near(cell_rates(n, 0.0, margin, runs=runs, draws=DRAWS).reproduced, stated)


def test_an_interval_outside_is_decided_as_well():
    inside, outside = power_within(2.0, 0.1, 0.1, 9, (-0.5, 0.5))
    assert inside < 1e-6 and outside > 0.999
    assert power_within(0.0, 0.0, 0.0, 9, (-0.5, 0.5)) == (1.0, 0.0)
    assert seeds_for_bounds(0.5, 0.1, 5, (-0.5, 0.5)) is None  # on the bound: never decided
    assert seeds_for_bounds(0.0, 0.16, 5, (-0.5, 0.5), reference_error=1.0) is None
