"""Verdicts of cells by hand, and how often they are wrong when the truth is known."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from analysis.stats import INTERIM_SEEDS, LEVEL, permutation_test
from analysis.verdicts.cells import judge_cell, margin_of

DRAWS, STD = 2_000, 0.16
"""Of the paper's ResNet-110: 6.61 ± 0.16."""


def test_a_cell_by_hand():
    cell = judge_cell([8.70, 8.80, 8.90], 8.75, 0.5)
    # std 0.1, t(2) = 2.920: 0.05 ± 2.920 * 0.1 / sqrt(3)
    assert (cell.n, cell.mean, cell.best, cell.worst) == (3, pytest.approx(8.8), 8.7, 8.9)
    assert (cell.low, cell.high) == (
        pytest.approx(0.05 - 0.1686, abs=1e-4),
        pytest.approx(0.05 + 0.1686, abs=1e-4),
    )
    assert (cell.low95, cell.high95) == (
        pytest.approx(8.8 - 0.2484, abs=1e-4),
        pytest.approx(8.8 + 0.2484, abs=1e-4),
    )
    assert (
        cell.verdict == "reproduced"
        and cell.why == "90 % interval of the difference −0.12 to +0.22, within ±0.5"
    )


@pytest.mark.parametrize(
    ("values", "verdict", "says"),
    [
        ([], "not run", "no finished run"),
        ([8.8], "undecided", "1 finished seed; at least 3 are needed"),
        ([8.8, 8.8], "undecided", "2 finished seeds; at least 3 are needed"),
        ([9.6, 9.7, 9.8], "contradicted", "outside ±0.5"),
        ([7.6, 7.7, 7.8], "contradicted", "outside ±0.5"),
        (
            [8.9, 9.2, 9.4],
            "undecided",
            "3 seeds could have shown a difference of up to 0.08 to be within it; about",
        ),
        (
            [8.0, 9.0, 10.0],
            "undecided",
            "3 seeds could have shown no difference, however small, to be within it",
        ),
        ([9.2, 9.25, 9.3], "undecided", "more than 100 seeds would be needed"),
    ],
)
def test_every_verdict_says_why(values, verdict, says):
    cell = judge_cell(values, 8.75, 0.5)
    assert cell.verdict == verdict and says in cell.why


def test_what_is_not_compared_has_no_interval_of_a_difference():
    cell = judge_cell([8.7, 8.8, 8.9], 8.75, 0.5, not_comparable="dataset is digits")
    assert cell.verdict == "not run" and cell.low != cell.low and cell.low95 == cell.low95
    assert judge_cell([62.0, 63.0, 64.0], float("nan"), 0.5).why == "the paper gives no number"
    with pytest.raises(ValueError, match="finite"):
        judge_cell([8.7, float("nan"), 8.9], 8.75, 0.5)


def test_margins_are_half_a_point_but_where_the_paper_was_digitised():
    assert (
        margin_of("resnet20", "test/top1_err") == 0.5
        and margin_of("plain56", "test/top1_err") == 0.55
    )


def share(verdict: str, truth: float, n: int, level: Fraction = LEVEL) -> float:
    """How often seeds drawn around `truth` get a verdict against the paper's 6.61."""
    draws = np.random.default_rng(7).normal(truth, STD, (DRAWS, n))
    return (
        sum(judge_cell(list(seeds), 6.61, 0.5, level).verdict == verdict for seeds in draws) / DRAWS
    )


def at_most(rate: float, level: float = 0.05) -> bool:
    """Whether a rate measured in `DRAWS` draws is at most a level, by three standard errors."""
    return rate <= level + 3 * (level * (1 - level) / DRAWS) ** 0.5


@pytest.mark.parametrize("truth", [6.61 + 0.5, 6.61 - 0.5, 6.61 + 0.8])
def test_a_wrong_number_is_called_reproduced_at_most_as_often_as_stated(truth):
    assert at_most(share("reproduced", truth, 5))


@pytest.mark.parametrize("truth", [6.61, 6.61 + 0.3, 6.61 + 0.5])
def test_a_right_number_is_called_contradicted_at_most_as_often_as_stated(truth):
    assert at_most(share("contradicted", truth, 5))


def test_five_seeds_around_the_papers_number_reproduce_it_and_around_another_contradict_it():
    assert share("reproduced", 6.61, 5) > 0.99 and share("contradicted", 6.61 + 1.0, 5) > 0.99


@pytest.mark.parametrize("truth", [6.61 + 0.5, 6.61 - 0.5])
def test_several_looks_are_wrong_at_most_as_often_as_one(truth):
    level = LEVEL / len(INTERIM_SEEDS)
    draws = np.random.default_rng(8).normal(truth, STD, (DRAWS, INTERIM_SEEDS[-1]))
    wrong = sum(
        any(
            judge_cell(list(seeds[:n]), 6.61, 0.5, level).verdict == "reproduced"
            for n in INTERIM_SEEDS
        )
        for seeds in draws
    )
    assert at_most(wrong / DRAWS)


@pytest.mark.parametrize("sizes", [(3, 3), (5, 5)])
def test_equal_rows_are_called_ordered_at_most_as_often_as_stated(sizes):
    rng = np.random.default_rng(9)
    draws = [(rng.normal(7, STD, sizes[0]), rng.normal(7, STD, sizes[1])) for _ in range(DRAWS)]
    assert at_most(sum(permutation_test(list(a), list(b)).significant() for a, b in draws) / DRAWS)


def test_a_chain_with_one_equal_pair_holds_at_most_as_often_as_stated():
    rng = np.random.default_rng(10)
    means = (
        9.0,
        8.0,
        8.0,
        7.0,
    )  # three steps, of which the middle one is none: an intersection-union test
    holds = 0
    for _ in range(DRAWS):
        rows = [list(rng.normal(mean, STD, 5)) for mean in means]
        holds += all(permutation_test(a, b).significant() for a, b in pairwise(rows))
    assert at_most(holds / DRAWS)
