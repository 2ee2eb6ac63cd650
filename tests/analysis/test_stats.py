"""Statistics against numbers worked out by hand or read from a t table."""

from math import inf, isnan

import pytest

from analysis.stats import (
    detectable_difference,
    difference_interval,
    half_width,
    mean_interval,
    permutation_test,
    seeds_for_equivalence,
    seeds_for_ordering,
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
    assert permutation_test([8.75, 8.8, 8.7], [7.5, 7.6, 8.69]).significant()
    assert not permutation_test([8.75, 8.8, 8.7], [7.5, 7.6, 8.71]).significant()


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
    assert outcome.significant()
    assert not permutation_test(second, first).significant()


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


def test_the_seeds_that_would_decide_by_hand():
    # A mean 0.1 from its number with std 0.3: at n = 5 the half width is 2.132 * 0.3 / sqrt(5) =
    # 0.286 <= 0.4; at 4 it is 0.353.
    assert half_width(0.3, 5) == pytest.approx(0.286, abs=5e-4)
    assert seeds_for_equivalence(0.1, 0.3, 3, -0.5, 0.5) == 4
    assert seeds_for_equivalence(0.2, 0.3, 3, -0.5, 0.5) == 5
    assert seeds_for_equivalence(0.5, 0.3, 3, -0.5, 0.5) is None
    assert (
        seeds_for_ordering([3.0, 4.0, 5.0], [3.5, 4.5, 5.5]) == 23
    )  # 0.5 > t(44) * sqrt(2) / sqrt(23) = 1.680 * 0.2949
    assert seeds_for_ordering([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) is None
    assert detectable_difference([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == pytest.approx(
        2.132 * (2 / 3) ** 0.5, abs=1e-3
    )
