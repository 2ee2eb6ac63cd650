"""Table 6 against numbers worked out by hand."""

import re
from math import isnan

import pytest

from analysis.measured.frames import check
from analysis.studies.studies import split_studies
from analysis.tables import table_6
from analysis.tables.table_text import to_latex, to_markdown
from pipeline.recipe.metrics import TEST_ERR
from tests.analysis.measured_runs import frames_of, points, run_row


def table_of(frames):
    (study,) = split_studies(check(*frames))
    return table_6.table_6(study)


def row_of(frames, experiment):
    return table_of(frames).set_index("experiment").loc[experiment]


def test_rows_are_the_papers_and_then_the_plain_networks(build):
    table = table_of(build({"plain20": [9.7]}))
    assert (
        table.method.tolist()
        == ["Maxout", "NIN", "DSN", "FitNet", "Highway", "Highway"] + ["ResNet"] * 6 + ["plain"] * 5
    )
    assert table.layers.dropna().tolist() == [
        19,
        19,
        32,
        20,
        32,
        44,
        56,
        110,
        1202,
        20,
        32,
        44,
        56,
        110,
    ]
    assert table.paper.tolist() == pytest.approx(
        [
            9.38,
            8.81,
            8.22,
            8.39,
            7.72,
            8.80,
            8.75,
            7.51,
            7.17,
            6.97,
            6.61,
            7.93,
            9.69,
            10.11,
            11.47,
            13.26,
            float("nan"),
        ],
        nan_ok=True,
    )


def test_a_cell_by_hand(build):
    row = row_of(build({"resnet110": [6.0, 6.5, 7.0]}), "resnet110")
    assert (row.n, row["mean"], row["std"], row.best, row.params) == (3, 6.5, 0.5, 6.0, 1_727_962)
    assert row.difference == pytest.approx(6.5 - 6.61)
    assert row.comparable
    assert row.paper_printed == "6.43 (6.61±0.16)"
    assert row.reason == ""


def test_a_reproduced_cell_names_the_neighbours_that_it_does_not_exclude(build):
    errors = [7.0, 7.2, 7.1, 7.3, 7.1]
    frames = build({"resnet44": errors, "resnet110": [6.6, 6.5, 6.7, 6.55, 6.65]})
    row = row_of(frames, "resnet44")
    assert (row.verdict, row.not_excluded) == ("reproduced", "ResNet-56 (6.97)")
    (study,) = split_studies(check(*frames))
    notes = table_6.notes(study, table_6.table_6(study))
    assert any("ResNet-44 is reproduced" in note and "ResNet-56 (6.97)" in note for note in notes)
    # Of five runs the paper's mean is known well enough to tell 110 layers from 56.
    assert row_of(frames, "resnet110").verdict == "reproduced"
    assert row_of(frames, "resnet110").not_excluded == ""


def test_one_run_has_no_spread(build):
    row = row_of(build({"resnet20": [8.5]}), "resnet20")
    assert (row.n, row["mean"], row.best) == (1, 8.5, 8.5)
    assert isnan(row["std"])
    assert row.difference == pytest.approx(-0.25)
    table = table_6.printed(table_of(build({"resnet20": [8.5], "resnet56": [6.9, 7.1]})))
    ours = table[table["error (%)"] != "–"]
    spreads = dict(zip(ours.layers, ours["min–max"], strict=True))
    assert (spreads["20"], spreads["56"]) == ("–", "6.90–7.10")


def test_plain_networks_are_compared_with_the_digitised_end_of_figure_6(build):
    frames = build({"plain20": [9.5], "plain110": [90.0]})
    plain = row_of(frames, "plain20")
    assert plain.difference == pytest.approx(9.5 - 9.69)
    assert "digitised" in plain.paper_note
    deepest = row_of(frames, "plain110")
    assert isnan(deepest.difference)
    assert (deepest.paper_printed, deepest.reason) == (
        "> 60",
        "the paper gives no number, only > 60 %",
    )


def test_only_finished_runs_with_a_final_error_are_averaged():
    rows = [run_row("resnet20", seed, run_id=str(seed)) for seed in range(6)]
    for seed, status in ((2, "DIVERGED"), (3, "KILLED"), (4, "RUNNING")):
        rows[seed]["status"] = status
    errors = {0: 8.0, 1: 9.0, 2: 99.0, 3: 99.0, 4: 99.0, 5: float("nan")}
    measured = [
        point
        for seed, error in errors.items()
        for point in points(str(seed), TEST_ERR, {64_000: error})
    ]
    row = row_of(frames_of(rows, measured), "resnet20")
    assert (row.n, row["mean"]) == (2, 8.5)
    assert (row.diverged, row.failed, row.unfinished, row.no_final_error) == (1, 1, 1, 1)
    assert row.verdict == "undecided" and "1 failed, 1 unfinished, 1 finished without" in row.why
    (study,) = split_studies(check(*frames_of(rows, measured)))
    shown = table_6.printed(table_6.table_6(study)).query("method == 'ResNet'").iloc[0]
    assert shown["error (%)"] == "8.50 ± 0.71 (2)"
    assert shown.remarks == ("1 diverged, 1 failed, 1 unfinished, 1 finished without a final error")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"dataset": "digits", "comparable": False},
            "not comparable: dataset is digits, not CIFAR-10",
        ),
        (
            {"overrides": {"precision": "bf16"}},
            "not comparable: not the paper's recipe: precision=bf16",
        ),
    ],
)
def test_nothing_is_compared_across_datasets_or_recipes(build, changes, reason):
    frames = build({"resnet20": [8.5]}, **changes)
    row = row_of(frames, "resnet20")
    assert isnan(row.difference)
    assert row.reason == reason
    shown = table_6.printed(table_of(frames)).query("method == 'ResNet'")
    assert shown.difference.tolist()[:2] == ["not comparable", "–"]


def test_rows_without_runs_keep_the_papers_numbers(build):
    row = row_of(build({"resnet20": [8.5]}), "resnet56")
    assert (row.n, row.paper_printed, row.paper_params, row.reason) == (
        0,
        "6.97",
        "0.85M",
        "no finished run",
    )
    assert isnan(row["mean"])


def test_markdown_is_rounded_and_aligned_with_the_header(build):
    text = to_markdown(table_6.printed(table_of(build({"resnet110": [6.004, 6.5, 7.0]}))))
    lines = text.splitlines()
    assert len(lines) == 2 + 17
    assert {line.count("|") for line in lines} == {11}
    assert (
        "| ResNet | 110 | 1.7M | 6.50 ± 0.50 (3) | 5.26–7.74 | 6.00–7.00 | 6.43 (6.61±0.16) | "
        "−0.11 | undecided |  |" in lines
    )
    assert "| FitNet | 19 | 2.5M | – | – | – | 8.39 | – | – | quoted by the paper |" in lines


def test_latex_has_a_cell_for_each_column_and_nothing_it_would_misread(build):
    text = to_latex(
        table_6.printed(table_of(build({"resnet110": [6.004, 6.5, 7.0]}))),
        "Table 6: a & b_c",
        table_6.NUMERIC,
    )
    body = text.partition(r"\midrule")[2].partition(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == 17 and {line.count("&") for line in body} == {9}
    assert r"\caption{Table 6: a \& b\_c}" in text and r"\begin{tabular}{lrrrrrrrll}" in text
    assert (
        r"ResNet & 110 & 1.7M & 6.50 $\pm$ 0.50 (3) & 5.26--7.74 & 6.00--7.00 & "
        r"6.43 (6.61$\pm$0.16)" in text
    )
    assert not re.search(r"(?<!\\)[%#~^]", text.partition("\n")[2]) and text.isascii()
