"""Verdicts of cells by hand: of finished, diverged and lost runs, against one run and five."""

from fractions import Fraction

import pandas as pd
import pytest

from analysis.paper import reported
from analysis.tables import table_6, tables_2_to_5
from analysis.verdicts.cells import PaperNumber, RowRuns, judge_cell, margin_of
from analysis.verdicts.words import Verdict
from benchmarks.verdict_rates import admissible

NAN = float("nan")
NUMBER = PaperNumber(8.75, 0.55)


def cell_of(values, paper=NUMBER, diverged=0, lost="", **options):
    return judge_cell(RowRuns(values, diverged, lost), paper, **options)


def test_a_cell_by_hand():
    cell = cell_of([8.70, 8.80, 8.90])
    # std 0.1, t(2) = 2.920: 0.05 ± 2.920 * 0.1 * sqrt(1/3 + 1), for the paper's is one run too.
    assert (cell.n, cell.mean, cell.best, cell.worst) == (3, pytest.approx(8.8), 8.7, 8.9)
    assert (cell.low, cell.high) == (
        pytest.approx(0.05 - 0.3372, abs=1e-4),
        pytest.approx(0.05 + 0.3372, abs=1e-4),
    )
    assert (cell.low95, cell.high95) == (
        pytest.approx(8.8 - 0.2484, abs=1e-4),
        pytest.approx(8.8 + 0.2484, abs=1e-4),
    )
    assert cell.verdict is Verdict.SUGGESTIVE
    assert cell.why == "90 % interval of the difference −0.29 to +0.39, within ±0.55"


@pytest.mark.parametrize(
    ("values", "verdict", "says"),
    [
        ([], "not run", "no finished run"),
        ([8.8], "undecided", "1 finished seed; at least 3 are needed"),
        ([8.8, 8.8], "undecided", "2 finished seeds; at least 3 are needed"),
        ([8.7, 8.8, 8.9, 8.8], "suggestive", "within ±0.55"),
        ([8.7, 8.8, 8.9, 8.8, 8.7], "reproduced", "within ±0.55"),
        ([10.0, 10.1, 10.2], "suggestive against", "outside ±0.55"),
        ([9.9, 10.0, 10.1, 10.0, 9.9], "contradicted", "outside ±0.55"),
        ([7.5, 7.6, 7.7, 7.6, 7.5], "contradicted", "outside ±0.55"),
        ([8.6, 9.2, 9.4, 8.9, 9.1], "undecided", "5 seeds, so scattered, find an equal network"),
        ([8.0, 9.0, 10.0], "undecided", "80 % power would need more than 100 seeds"),
        ([8.8] * 5, "undecided", "all 5 seeds gave the same error"),
    ],
)
def test_every_verdict_says_why(values, verdict, says):
    cell = cell_of(values)
    assert cell.verdict == verdict and says in cell.why


FINE = [8.7, 8.8, 8.9, 8.8, 8.7]


@pytest.mark.parametrize(
    ("values", "diverged", "verdict", "says"),
    [
        (FINE, 1, "undecided", "1 of 6 runs diverged"),
        (FINE[:3], 7, "undecided", "7 of 10 runs diverged"),
        (FINE[:2], 8, "undecided", "2 finished seeds; at least 3 are needed; 8 of 10"),
        ([10.0, 10.1, 10.2, 10.1, 10.0], 1, "contradicted", "1 of 6 runs diverged"),
        ([7.5, 7.6, 7.7, 7.6, 7.5], 1, "undecided", "1 of 6 runs diverged"),  # chance is worse
        ([], 5, "contradicted", "all 5 runs diverged"),
        ([], 3, "suggestive against", "all 3 runs diverged"),
    ],
)
def test_diverged_runs_are_results_and_block_reproduced(values, diverged, verdict, says):
    cell = cell_of(values, diverged=diverged)
    assert cell.verdict == verdict and says in cell.why and cell.diverged == diverged


def test_crashed_and_unfinished_runs_leave_a_cell_undecided():
    cell = cell_of(FINE, lost="1 failed, 2 unfinished")
    assert cell.verdict is Verdict.UNDECIDED
    assert cell.why.startswith("1 failed, 2 unfinished: finish them, or name the seeds")


def test_the_mean_of_five_runs_is_known_better_than_one_run():
    five = PaperNumber(6.61, 0.3, 5, 0.16)
    assert cell_of([6.5, 6.6, 6.7, 6.6, 6.6], five).verdict is Verdict.REPRODUCED
    assert cell_of([6.5, 6.6, 6.7, 6.6, 6.6], PaperNumber(6.61, 0.1)).verdict is Verdict.UNDECIDED


def test_neighbours_that_a_cell_does_not_exclude_are_named():
    paper = PaperNumber(7.17, 0.55, neighbours={"ResNet-32": 7.51, "ResNet-56": 6.97})
    near = cell_of([7.0, 7.2, 7.1, 7.3, 7.1], paper)
    assert near.not_excluded == ("ResNet-56 (6.97)",)
    assert near.why.endswith("it does not exclude ResNet-56 (6.97)")
    exact = cell_of([7.16, 7.17, 7.18, 7.17, 7.17], paper)
    assert exact.not_excluded == () and exact.verdict is Verdict.REPRODUCED


def test_what_is_not_compared_has_no_interval_of_a_difference():
    cell = cell_of([8.7, 8.8, 8.9], not_comparable="dataset is digits")
    assert cell.verdict == "not run" and cell.low != cell.low and cell.low95 == cell.low95
    assert cell.qualifiers == ("not judged here",)
    assert cell_of([62.0, 63.0, 64.0], PaperNumber(NAN, 0.55)).why == "the paper gives no number"
    with pytest.raises(ValueError, match="finite"):
        cell_of([8.7, NAN, 8.9])


def test_a_look_has_a_wider_interval():
    once, looked = cell_of(FINE), cell_of(FINE, level=Fraction(1, 40))
    assert looked.high - looked.low > once.high - once.low and "95 % interval" in looked.why


def test_every_number_of_the_paper_has_a_margin_with_a_reason():
    margins = pd.read_csv(reported.PAPER / "margins.csv").set_index(["experiment", "metric"])
    assert margins.reason.str.len().gt(20).all() and not margins.index.has_duplicates
    metrics = {"10crop": "test_ten_crop", "multiscale": "test_multi_scale"}
    own = reported.cells().query("experiment != ''")  # the ensemble is of no row
    for row in own.itertuples():
        protocol, measure = row.metric.split("/")
        assert (row.experiment, f"{metrics.get(protocol, protocol)}/{measure}") in margins.index
    plain = {name for name, _ in margins.index if name.startswith("plain")}
    assert plain >= {"plain20", "plain32", "plain44", "plain56"}


def test_the_notes_under_tables_state_the_margins_of_the_file():
    margins = pd.read_csv(reported.PAPER / "margins.csv")
    of_table_6 = margins[margins.metric == "test/top1_err"].margin
    assert all(f"±{margin:g}" in table_6.CELL_RULE for margin in of_table_6.unique())
    protocols = margins[margins.metric.str.startswith("test_")].margin
    assert all(f"±{margin:g}" in tables_2_to_5.CELL_RULE for margin in protocols.unique())


def test_margins_are_the_tightest_that_ten_seeds_can_show():
    assert admissible(0.55) and not admissible(0.5)
    assert admissible(0.3, runs=5) and not admissible(0.25, runs=5)
    assert margin_of("resnet20", "test/top1_err") == reported.MARGIN == 0.55
    assert margin_of("resnet110", "test/top1_err") == 0.3
    assert margin_of("plain56", "test/top1_err") == 0.6  # digitised, ±0.05
