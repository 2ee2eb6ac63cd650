"""Statistics against numbers worked out by hand or read from a t table."""

from math import inf, isnan

import numpy as np
import pytest

from analysis.stats import (
    LEVEL,
    at_most,
    difference_interval,
    holm,
    mean_interval,
    of_difference,
    of_distance,
    of_mean,
    of_paired_difference,
    p_ordering,
    p_within,
    permutation_test,
    summarise,
)


def test_summary_by_hand():
    summary = summarise([9.0, 8.0, 10.0])
    assert (summary.n, summary.mean, summary.std, summary.best) == (3, 9.0, 1.0, 8.0)


def test_one_value_has_no_spread_and_none_has_no_mean():
    assert summarise([7.5]).mean == 7.5
    assert isnan(summarise([7.5]).std)
    assert isnan(summarise([]).mean)
    assert summarise([]).n == 0


@pytest.mark.parametrize(
    ("first", "second", "as_extreme", "splits"),
    [
        ([4, 5, 6], [1, 2, 3], 1, 20),  # complete separation
        ([3, 5, 6], [1, 2, 4], 2, 20),  # sums >= 14 of three out of 1..6: 3+5+6 and 4+5+6
        ([1, 2, 3], [4, 5, 6], 20, 20),
        ([7, 8, 9, 10, 11], [1, 2, 3], 1, 56),
        ([2], [1], 1, 2),
        ([5, 5, 5], [5, 5, 5], 20, 20),  # ties are never evidence
    ],
)
def test_every_split_is_counted(first, second, as_extreme, splits):
    outcome = permutation_test(first, second)
    assert (outcome.as_extreme, outcome.splits) == (as_extreme, splits)
    assert outcome.p == as_extreme / splits


def test_three_against_three_separated_is_just_significant():
    assert at_most(permutation_test([8.75, 8.8, 8.7], [7.5, 7.6, 8.69]).p, LEVEL)
    assert not at_most(permutation_test([8.75, 8.8, 8.7], [7.5, 7.6, 8.71]).p, LEVEL)


def test_sums_that_differ_by_rounding_are_ties():
    a, b = 0.1 + 0.2, 0.3
    assert a != b
    assert permutation_test([a, a, a], [b, b, b]).as_extreme == 20
    assert permutation_test([b, b, b], [a, a, a]).as_extreme == 20


def test_unequal_sizes_compare_means_not_sums():
    # Of the five ways to choose the one value of the first group, 3, 3 and 4 reach the observed 3.
    outcome = permutation_test([3], [1, 2, 3, 4])
    assert (outcome.as_extreme, outcome.splits) == (3, 5)


def test_too_many_splits_are_drawn_with_a_fixed_seed():
    first, second = [float(i) for i in range(10, 20)], [float(i) for i in range(10)]
    outcome = permutation_test(first, second)
    assert outcome == permutation_test(first, second)
    assert outcome.splits == 20_001
    assert at_most(outcome.p, LEVEL)
    assert not at_most(permutation_test(second, first).p, LEVEL)


@pytest.mark.parametrize("first", [[], [float("nan"), 1.0, 2.0], [inf]])
def test_nothing_to_compare_is_an_error(first):
    with pytest.raises(ValueError, match="finite"):
        permutation_test(first, [1.0])


def test_interval_of_a_mean_from_the_t_table():
    low, high = mean_interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 2.919986 / 3**0.5, 2 + 2.919986 / 3**0.5), abs=1e-5)
    assert mean_interval([1.0]) == (-inf, inf)
    assert mean_interval([90.0, 90.0, 90.0]) == (90.0, 90.0)


def test_interval_of_a_difference_from_the_t_table():
    # Equal variances of 1: Welch's degrees of freedom are 4, t = 2.131847.
    low, high = difference_interval([1.0, 2.0, 3.0], [0.0, 1.0, 2.0])
    half = 2.131847 * (2 / 3) ** 0.5
    assert (low, high) == pytest.approx((1 - half, 1 + half), abs=1e-5)
    assert difference_interval([5.0, 5.0], [3.0, 3.0]) == (2.0, 2.0)
    assert difference_interval([1.0], [1.0, 2.0]) == (-inf, inf)


def test_one_sided_p_from_the_t_table():
    # t(2) = 2.919986 leaves 5 % above it: 1 / (2.919986 / sqrt(3)) is the distance for a std of 1.
    mean = of_mean([1.0, 2.0, 3.0])
    assert mean.p_above(2 - 2.919986 / 3**0.5) == pytest.approx(0.05, abs=1e-6)
    assert mean.p_below(2 + 2.919986 / 3**0.5) == pytest.approx(0.05, abs=1e-6)
    assert mean.p_above(2) == mean.p_below(2) == 0.5


def test_without_any_spread_an_estimate_is_the_truth():
    mean = of_mean([90.0, 90.0, 90.0])
    assert (mean.p_above(60), mean.p_below(60)) == (0, 1)
    assert (mean.p_above(90), mean.p_below(90)) == (1, 1)
    tests = p_ordering(np.array([[5.0] * 3]), np.array([[4.0] * 3]))
    assert (tests.exact[0], tests.welch[0], tests.both[0]) == (0.05, 0, 0.05)


def test_a_single_run_of_the_paper_widens_the_interval():
    # std 0.1, n = 3: half of it is t(2) * 0.1 * sqrt(1/3 + 1) = 2.919986 * 0.11547.
    assert of_distance([8.7, 8.8, 8.9], 8.75).half_width() == pytest.approx(0.33717, abs=1e-4)
    # With five runs of a known deviation it is Welch's: sqrt(0.01/3 + 0.0256/5) with 5.8 degrees.
    known = of_distance([8.7, 8.8, 8.9], 8.75, 5, 0.16)
    assert known.error == pytest.approx((0.01 / 3 + 0.0256 / 5) ** 0.5)
    assert known.freedom == pytest.approx(
        (0.01 / 3 + 0.0256 / 5) ** 2 / ((0.01 / 3) ** 2 / 2 + (0.0256 / 5) ** 2 / 4)
    )
    wide = of_difference([1.0, 2.0, 3.0], [0.0, 1.0, 2.0], reference_runs=1)
    assert wide.error == pytest.approx((2 * (1 / 3 + 1)) ** 0.5)


def test_the_same_runs_are_compared_pair_by_pair():
    # Differences 1.0, 1.1, 0.9 of runs that scatter by 10: apart they would show nothing.
    first, second = [10.0, 20.0, 30.0], [9.0, 18.9, 29.1]
    assert of_paired_difference(first, second).p_above(0) == pytest.approx(0.0017, abs=1e-4)
    assert of_difference(first, second).p_above(0) > 0.4


def test_equivalence_is_the_larger_of_two_tests():
    mean = of_mean([1.0, 2.0, 3.0])
    p, p_against = p_within(mean, (0.0, 10.0))
    assert (p, p_against) == (mean.p_above(0), mean.p_below(0))
    assert p_within(mean, (-inf, 10.0))[0] == mean.p_below(10)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.02, float("nan")])[0] == 0.02
    assert isnan(holm([0.02, float("nan")])[1])
    assert holm([0.6, 0.9]) == [1.0, 1.0] and holm([]) == []
