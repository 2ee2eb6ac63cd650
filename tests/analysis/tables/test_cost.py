"""What runs cost: medians by hand, what is left out, and where a report shows it."""

from collections.abc import Callable
from math import nan

import pandas as pd
import pytest

from analysis.measured.frames import check
from analysis.report.report import report_files
from analysis.studies.studies import split_studies
from analysis.tables.cost import cost_tables
from analysis.tables.study_tables import StudyTable
from analysis.tables.table_text import amount
from pipeline.recipe.metrics import IMAGES_PER_SECOND
from tests.analysis.measured_runs import Frames, points

H100 = "NVIDIA H100 80GB HBM3"


@pytest.fixture
def frames(build: Callable[..., Frames]) -> Frames:
    """Four seeds of ResNet-20, the last on a CPU, and one of plain-20 that recorded nothing."""
    runs, metrics = build({"plain20": [9.5], "resnet20": [8.7, 8.8, 8.9, 8.6]})
    rates = [
        row
        for run_id, rate in zip(runs.run_id, (900.0, 4000.0, 5000.0, 6000.0, 80.0), strict=True)
        for row in points(run_id, IMAGES_PER_SECOND, {8000: 1.0, 16_000: rate, 24_000: 9e9})
    ]
    return runs.assign(
        device=["cpu", H100, H100, H100, "cpu"],
        hardware="Some Processor",
        device_seconds=[nan, 1000.0, 1300.4, 1200.0, 98.76],
        joules=[nan, 300_000.0, 310_000.0, 305_000.0, nan],
    ), pd.concat([metrics, pd.DataFrame(rates)], ignore_index=True)


def table_of(frames: Frames) -> StudyTable:
    (study,) = split_studies(check(*frames))
    (table,) = cost_tables(study)
    return table


def test_each_row_is_of_one_kind_of_device(frames: Frames) -> None:
    table = table_of(frames)
    assert table.printed.to_dict("records") == [
        {
            "experiment": "resnet20",
            "device": H100,
            "n": "3",
            "device seconds": "1,200 (1,000–1,300)",
            "images/s": "5,000",
            "joules": "305,000 (300,000–310,000)",
        },
        {
            "experiment": "resnet20",
            "device": "Some Processor",
            "n": "1",
            "device seconds": "98.8",
            "images/s": "80",
            "joules": "–",
        },
    ]
    assert "1 finished runs recorded no cost." in table.notes


def test_energy_that_some_runs_lack_is_left_out_and_so_are_empty_columns(frames: Frames) -> None:
    runs, metrics = frames
    partly = table_of((runs.assign(joules=[nan, 3e5, nan, 3e5, nan]), metrics))
    assert "joules" not in partly.printed and partly.raw.joules.isna().all()
    assert not any("Joules" in note for note in partly.notes)
    untimed = table_of((runs, metrics[metrics.metric != IMAGES_PER_SECOND]))
    assert "images/s" not in untimed.printed


def test_runs_that_did_not_finish_are_not_counted(frames: Frames) -> None:
    runs, metrics = frames
    status = ["FINISHED", "FINISHED", "DIVERGED", "FAILED", "RUNNING"]
    (row,) = table_of((runs.assign(status=status), metrics)).raw.itertuples()
    assert (row.n, row.device_seconds, row.device) == (1, 1000, H100)


def test_a_report_shows_it_on_the_studys_and_the_runs_pages(frames: Frames) -> None:
    files = report_files(check(*frames))
    page = files["index.html"].decode()
    assert '<h2 id="cost">What it cost</h2>' in page and '<a href="#cost">' in page
    assert "1,200 (1,000–1,300)" in page and "kind of device" in page
    assert {"cost.csv", "cost.md", "cost.tex", "cost.origin.json"} <= files.keys()
    cost = "<dt>Cost</dt><dd>1,300 device seconds, 310,000 joules, 5,000 images/s</dd>"
    assert cost in files["runs/resnet20-seed-1.html"].decode()
    assert "<dt>Cost</dt>" not in files["runs/plain20-seed-0.html"].decode()


def test_a_report_of_runs_that_recorded_no_cost_says_nothing_of_it(frames: Frames) -> None:
    runs, metrics = frames
    files = report_files(check(runs.drop(columns=["device_seconds", "joules"]), metrics))
    assert not any(name.startswith("cost") for name in files)
    assert not any(b"device seconds" in content for content in files.values())
    assert b"What it cost" not in files["index.html"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (nan, "–"),
        (0.0, "0"),
        (0.0123, "0.0123"),
        (99.94, "99.9"),
        (99.96, "100"),
        (1e6, "1,000,000"),
    ],
)
def test_amounts_have_three_digits_or_all_before_the_point(value: float, text: str) -> None:
    assert amount(value) == text


def test_amounts_have_as_many_digits_as_are_asked_for() -> None:
    texts = [amount(value, digits=4) for value in (999.94, 1234.56, 0.123456)]
    assert texts == ["999.9", "1,235", "0.1235"]
