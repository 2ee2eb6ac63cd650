"""A sweep's numbers are those of its cells' runs, apart from the studies, and its page says so."""

from json import dumps
from math import isnan

import pandas as pd
import pytest

from analysis.measured.frames import Frames, check
from analysis.report.report import report_files
from analysis.report.sweep_pages import printed
from analysis.studies.studies import split_studies
from analysis.studies.sweeps import split_sweeps, sweep_table
from pipeline.errors import InputError
from pipeline.recipe.overrides import experiment_named

BASE = {"iterations": 800, "lr_drops": [400, 600], "eval_every": 13}
DIGITS = dict(dataset="digits", dataset_id="d1", comparable=False)


def cell(position: int, setting: str, unchanged: bool = False) -> dict[str, object]:
    experiment = experiment_named("resnet20", [setting] if setting else [], 800)
    about = {
        "sweep": "5eed",
        "name": "lr",
        "dataset_id": "d1",
        "base": dumps(BASE),
        "experiment": "resnet20",
    }
    return about | {
        "position": position,
        "change": setting,
        "unchanged": unchanged,
        "fingerprint": experiment.fingerprint,
    }


@pytest.fixture
def frames(build) -> Frames:
    """Three values of the learning rate, two seeds each, and none for the fourth."""
    parts = []
    for setting, errors in (
        ("lr=0.05", [10.0, 11.0]),
        ("lr=0.1", [9.0, 9.5]),
        ("lr=0.2", [8.0, 8.5]),
    ):
        experiment = experiment_named("resnet20", [setting], 800)
        runs, metrics = build(
            {"resnet20": errors},
            overrides=experiment.deviations(),
            iterations=800,
            fingerprint=experiment.fingerprint,
            alone=setting == "lr=0.1",
            **DIGITS,
        )
        parts.append((runs, metrics))
    runs, metrics = (
        pd.concat(frames_of_parts, ignore_index=True)
        for frames_of_parts in zip(*parts, strict=True)
    )
    cells = [
        cell(0, "lr=0.05"),
        cell(1, "lr=0.1", unchanged=True),
        cell(2, "lr=0.2"),
        cell(3, "lr=0.4"),
    ]
    return check(runs, metrics, None, pd.DataFrame(cells))


def test_each_change_is_compared_with_the_row_as_it_is(frames: Frames) -> None:
    (sweep,) = split_sweeps(frames)
    table = sweep_table(sweep)
    assert table.change.tolist() == ["lr=0.05", "lr=0.1", "lr=0.2", "lr=0.4"]
    assert table.n.tolist() == [2, 2, 2, 0]
    assert table["mean"].tolist()[:3] == [10.5, 9.25, 8.25]
    assert table.difference.tolist()[:3] == pytest.approx([1.25, float("nan"), -1.0], nan_ok=True)
    assert table.low[0] < 1.25 < table.high[0] and isnan(table.difference[3])
    text = printed(sweep)
    assert text.change[1] == "lr=0.1 (no change)" and text["error (%)"][3] == "–"
    assert text.worth[2].startswith("−1.00 (")


def test_runs_for_a_sweep_alone_make_no_study(frames: Frames) -> None:
    (study,) = split_studies(frames)
    assert study.title == "digits, 800 of 64,000 iterations" and len(study.runs) == 2


def test_a_run_asked_for_on_its_own_makes_a_study_whatever_sweeps_have_it_too(
    frames: Frames,
) -> None:
    both = frames._replace(runs=frames.runs.assign(alone=True))
    assert len(split_studies(both)) == 3


def test_a_change_that_another_row_has_anyway_makes_no_study_and_enters_none(build) -> None:
    """`--set shortcut=A,B` on a plain and a residual row: A is the residual row's own."""
    parts = [
        build({name: [9.0]}, overrides=changes, alone=not changes, **DIGITS)
        for name in ("plain20", "resnet20")
        for changes in ({"shortcut": "A"}, {"shortcut": "B"})
        if (name, changes["shortcut"]) != ("resnet20", "A")
    ]
    parts.append(build({"resnet20": [8.0]}, **DIGITS))
    (study,) = split_studies(
        check(
            *(
                pd.concat(frames_of_parts, ignore_index=True)
                for frames_of_parts in zip(*parts, strict=True)
            )
        )
    )
    assert study.overrides == {} and study.runs.experiment.tolist() == ["resnet20"]


def test_the_report_has_a_page_for_it_beside_the_studies(frames: Frames) -> None:
    files = report_files(frames)
    assert "sweep-lr-5eed/sweep.png" in files and "sweep-lr-5eed/sweep.csv" in files
    page = files["sweep-lr-5eed/index.html"].decode()
    assert "Apart from the reproduction" in page and "lr=0.2" in page
    assert "sweep-lr-5eed/index.html" in files["index.html"].decode()
    assert files == report_files(frames)


def test_only_the_sweeps_of_the_chosen_runs_are_kept(frames: Frames) -> None:
    assert len(frames.of(set(frames.runs.run_id), ["5eed"]).sweeps) == 4
    assert frames.of(set(frames.runs.run_id), []).sweeps.empty


def test_a_base_that_is_no_object_is_refused(frames: Frames) -> None:
    broken = frames.sweeps.assign(base="[]")
    with pytest.raises(InputError, match="not a JSON object"):
        check(frames.runs, frames.metrics, frames.layers, broken)
