"""The paper's files: complete, consistent with each other, and with the rows that we train."""

import re

import pandas as pd
import pytest

from analysis.paper import reported
from analysis.verdicts import claims
from analysis.verdicts.parts import Within
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.layers import layout

RESNETS = {row.experiment: row for row in reported.table_6() if row.experiment}


def test_table_6_as_printed():
    shown = [(row.method, row.layers, row.printed) for row in reported.table_6()]
    assert shown == [
        ("Maxout", None, "9.38"),
        ("NIN", None, "8.81"),
        ("DSN", None, "8.22"),
        ("FitNet", 19, "8.39"),
        ("Highway", 19, "7.54 (7.72±0.16)"),
        ("Highway", 32, "8.80"),
        ("ResNet", 20, "8.75"),
        ("ResNet", 32, "7.51"),
        ("ResNet", 44, "7.17"),
        ("ResNet", 56, "6.97"),
        ("ResNet", 110, "6.43 (6.61±0.16)"),
        ("ResNet", 1202, "7.93"),
    ]


def test_each_resnet_of_the_table_is_a_row_that_we_train():
    assert set(RESNETS) == {
        name for name, experiment in EXPERIMENTS.items() if "table_6" in experiment.artifacts
    }
    assert all(EXPERIMENTS[name].depth == row.layers for name, row in RESNETS.items())


def test_curves_are_those_of_figures_1_and_6():
    shown = set(reported.curves().groupby(["panel", "experiment", "split"]).groups)
    plain, resnet = (
        ("plain20", "plain32", "plain44", "plain56"),
        ("resnet20", "resnet32", "resnet44", "resnet56"),
    )
    expected = {("fig6_left", name, split) for name in plain for split in ("train", "test")}
    expected |= {
        ("fig6_middle", name, split)
        for name in (*resnet, "resnet110")
        for split in ("train", "test")
    }
    expected |= {
        ("fig6_right", name, split)
        for name in ("resnet110", "resnet1202")
        for split in ("train", "test")
    }
    expected |= {("fig1_left", name, "train") for name in ("plain20", "plain56")}
    expected |= {("fig1_right", name, "test") for name in ("plain20", "plain56")}
    assert shown == expected
    assert {name for _, name, _ in shown} <= set(EXPERIMENTS)


def test_curves_lie_within_the_figures():
    curves = reported.curves()
    assert curves.error.between(0, 20).all()
    assert curves.iteration.between(1_000, 64_000).all()
    assert (curves.iteration % 1_000 == 0).all()
    assert not curves.duplicated(["panel", "experiment", "split", "iteration"]).any()


@pytest.mark.parametrize("name", RESNETS)
def test_table_6_is_the_end_of_the_curves(name):
    panel = "fig6_right" if name == "resnet1202" else "fig6_middle"
    assert reported.curve(panel, name, "test").error.iloc[-1] == pytest.approx(
        RESNETS[name].reference, abs=0.15
    )


def test_figure_1_shows_the_runs_of_figure_6():
    for name in ("plain20", "plain56"):
        first, sixth = (
            reported.curve(panel, name, "test") for panel in ("fig1_right", "fig6_left")
        )
        both = first.merge(sixth, on="iteration")
        assert len(both) == len(first)
        assert (both.error_x - both.error_y).abs().max() < 0.1


def test_finals_of_the_plain_networks():
    finals = {
        name: reported.plain_final(name) for name in ("plain20", "plain32", "plain44", "plain56")
    }
    assert finals == {"plain20": 9.69, "plain32": 10.11, "plain44": 11.47, "plain56": 13.26}
    assert reported.plain_final("plain110") != reported.plain_final(
        "plain110"
    )  # NaN: the paper gives none


def test_claims_are_worded_once_and_judged_once():
    ids = [
        *(f"C{i}" for i in range(1, 14)),
        *(f"I{i}" for i in range(1, 18)),
        "D1",
        "D2",
        "D3",
        "D4",
        "L1",
    ]
    assert list(reported.claims()) == ids and len(ids) == 35
    for family, judged in claims.BY_FAMILY.items():
        others = set(claims.not_judged(family))
        assert set(judged) | others == set(ids) and not set(judged) & others
    assert all(
        name in EXPERIMENTS for names in claims.claim_experiments().values() for name in names
    )


def test_digitised_values_in_the_claims_are_those_of_the_curves():
    late = reported.curves().query("iteration >= 50000 and panel == 'fig6_left'")
    means = late.groupby(["experiment", "split"]).error.mean().round(1)
    numbers = [float(x) for x in re.findall(r"\d+\.\d", reported.claims()["C1"].paper_values)]
    rows = [("plain56", "train"), ("plain20", "train"), ("plain56", "test"), ("plain20", "test")]
    assert numbers == [means[row] for row in rows]
    numbers = [float(x) for x in re.findall(r"\d+\.\d", reported.claims()["C3"].paper_values)]
    assert numbers == [means[(f"plain{depth}", "train")] for depth in (20, 32, 44, 56)]


def test_bounds_of_claim_7_are_the_numbers_of_table_6():
    error, params = claims.CLAIMS["C7"].parts
    mean = RESNETS["resnet110"].mean
    highway = next(
        row.params for row in reported.table_6() if (row.method, row.layers) == ("Highway", 19)
    )
    assert isinstance(error, Within)
    assert isinstance(params, Within)
    assert (error.above, error.below) == pytest.approx((mean - 0.5, mean + 0.5))
    assert params.below == float(highway.removesuffix("M")) * 1e6


def test_every_error_of_the_papers_own_networks_is_there_once():
    cells = reported.cells()
    # Table 2: two plain and two residual networks. Table 3: seven of its lines, top-1 and top-5,
    # less plain-34's and ResNet-34 A's top-1, which Table 2 has. Table 4: five, both. Table 5: the
    # last line. Table 6: six.
    expected = {"table_2": 4, "table_3": 12, "table_4": 10, "table_5": 1, "table_6": 6}
    assert cells.table.value_counts().to_dict() == expected and len(cells) == 33
    assert not cells.duplicated(["experiment", "metric"]).any()
    assert set(cells.experiment) <= {*EXPERIMENTS, ""} and cells.value.between(3, 30).all()
    values = cells.value.tolist()
    # Printed twice; left out, as it is of no row; plain networks of Figure 6, in no table.
    assert values.count(28.54) == values.count(25.03) == values.count(3.57) == 1
    assert not {"plain20", "plain56", "plain110"} & set(cells.experiment)
    # Two networks share 5.71 %, and are two cells.
    assert values.count(5.71) == 2
    assert list(reported.appendix()) == [f"Table {number}" for number in range(7, 15)]


def test_what_tables_2_and_3_both_print_is_the_same():
    table_2, table_3 = (
        reported.protocol_table(number).set_index("experiment").top1 for number in (2, 3)
    )
    for name in ("plain34", "resnet34-a"):
        assert table_2[name] == table_3[name]


def test_table_1_is_the_layer_lists():
    table = pd.read_csv(reported.PAPER / "table_1.csv")
    for row in table.itertuples():
        exact = layout(EXPERIMENTS[row.experiment]).multiply_adds
        assert exact == pytest.approx(float(row.value), rel=0.02)
