"""The results that are kept with the code make the tables in README, and a report."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from analysis.measured.frames import load
from analysis.report.report import report_files
from analysis.studies.studies import Study, split_studies
from analysis.tables.table_6 import printed, table_6
from analysis.verdicts import claims, evidence
from analysis.verdicts.words import Verdict
from pipeline.storage import checksum

ROOT = Path(__file__).parents[3]
KEPT = ROOT / "analysis" / "results"
EXAMPLE = ROOT / "docs" / "example"
README = (ROOT / "README.md").read_text()


STUDIES = split_studies(load(KEPT))


@pytest.fixture
def whole() -> Study:
    """The whole schedule, one seed of each row."""
    return STUDIES[0]


@pytest.fixture
def study() -> Study:
    """A hundredth of the schedule, three seeds of each row."""
    return STUDIES[1]


def test_there_are_two_studies_and_the_whole_schedule_comes_first(whole: Study) -> None:
    assert len(STUDIES) == 2 and not whole.shortened and not whole.official
    assert set(whole.runs.iterations) == {64_000} and set(whole.runs.seed) == {0}
    assert not whole.runs.dirty.any() and whole.runs.drift.isna().all()
    # What it cost is known, of a card that counts.
    assert set(whole.runs.device) == {"NVIDIA H200"}
    assert (whole.runs.joules > 10_000).all() and (whole.runs.device_seconds > 60).all()


def test_single_runs_decide_nothing(whole: Study) -> None:
    verdicts = {one.verdict for one in claims.judge_claims(whole)}
    assert verdicts == {Verdict.UNDECIDED, Verdict.NOT_RUN}


def test_readmes_table_is_what_was_measured(whole: Study) -> None:
    table = table_6(whole)
    measured = {
        row.experiment: text
        for row, text in zip(table.itertuples(), printed(table)["error (%)"], strict=True)
        if row.n
    }
    assert set(measured) == {"plain20", "plain56", "resnet20", "resnet56"}
    in_readme = re.findall(r"^\| (\d+) layers \| ([^|]+?) \| ([^|]+?) \|$", README, re.MULTILINE)
    assert {
        f"{kind}{depth}": error
        for depth, *errors in in_readme
        for kind, error in zip(("plain", "resnet"), errors, strict=True)
    } == measured


def test_readmes_verdicts_are_those_of_the_results(whole: Study, study: Study) -> None:
    """Every verdict and number in the table is the studies', and no claim with one is left out."""
    judged = {one.id: one for one in claims.judge_claims(study)}
    alone = {one.id: one for one in claims.judge_claims(whole)}
    row = r"^\| ([CI]\d+): [^|]+\| ([^|]+) \| ([^|]+) \| ([^|]+?) \|$"
    in_readme = re.findall(row, README, re.MULTILINE)
    verdicts = {name: verdict for name, _, _, verdict in in_readme}
    # What holds of all rows of the table, the dataset and the schedule, is said above and below it.
    assert verdicts == {
        name: ", ".join(
            [judged[name].verdict, *(word for word in judged[name].qualifiers if "parts" in word)]
        )
        for name in verdicts
    }
    assert {name for name, one in judged.items() if one.verdict != "not run"} <= verdicts.keys()
    for name, once, here, _ in in_readme:
        for text, claim in ((once, alone[name]), (here, judged[name])):
            numbers = evidence.printed(claim.numbers)
            cells = " ".join([*numbers["mean (n)"], *numbers["against (n)"]])
            said = set(re.findall(r"\d+\.\d+", text))
            assert said and said <= set(re.findall(r"\d+\.\d+", cells)), name


def test_what_is_said_of_them_is_no_more_than_three_seeds_and_a_short_schedule_allow(
    study: Study,
) -> None:
    assert study.shortened and not study.official
    judged = {one.id: one for one in claims.judge_claims(study)}
    assert {one.verdict.value for one in judged.values()} == {
        "seen here",
        "opposite seen here",
        "undecided",  # I4: the variance before batch norm was not recorded yet
        "not run",
    }
    # One part is the opposite and the other was not run: the opposite decides.
    assert judged["C13"].verdict is Verdict.OPPOSITE_SEEN_HERE
    assert "Not run: resnet110." in judged["C13"].reason
    # Both parts of the cure that were measured hold.
    assert judged["C6"].verdict is Verdict.SEEN_HERE and "2 of 4 parts" in judged["C6"].words
    for one in judged.values():
        if one.verdict is not Verdict.NOT_RUN:
            assert {"on this dataset", "shortened schedule"} <= set(one.qualifiers)


@pytest.fixture(scope="module")
def report() -> dict[str, bytes]:
    return report_files(load(KEPT))


def test_they_are_small_and_make_a_report(report: dict[str, bytes]) -> None:
    assert sum(file.stat().st_size for file in KEPT.iterdir()) < 5_000_000
    assert "index.html" in report
    for study in STUDIES:
        for name in ("index.html", "table_6.csv", "figure_1.png", "figure_7.png", "signals.png"):
            assert f"{study.slug}/{name}" in report


def test_the_example_is_their_report(report: dict[str, bytes]) -> None:
    """`make example` makes it again, byte by byte."""
    example = {
        str(file.relative_to(EXAMPLE)): file.read_bytes()
        for file in EXAMPLE.rglob("*")
        if file.is_file()
    }
    # The list names the code and libraries that made the others, which need not change with them.
    files = json.loads(example.pop("report.json"))["files"]
    assert all(checksum(example[name]) == digest for name, digest in files.items())
    for carried, kept in zip(load(EXAMPLE / "data"), load(KEPT), strict=True):
        pd.testing.assert_frame_equal(carried, kept)
    example = {name: content for name, content in example.items() if name[:5] != "data/"}
    changed = [name for name in report if example.get(name) != report[name]]
    assert not changed, "make example"
    assert example.keys() == report.keys()
