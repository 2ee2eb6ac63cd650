"""The results that are kept with the code make the table in README, and a report."""

import re
from pathlib import Path

import pytest

from analysis.measured.frames import load
from analysis.report.report import report_files
from analysis.studies.studies import Study, split_studies
from analysis.tables.table_6 import printed, table_6
from analysis.verdicts import claims

ROOT = Path(__file__).parents[3]
KEPT = ROOT / "analysis" / "results"


@pytest.fixture(scope="module")
def study() -> Study:
    (only,) = split_studies(load(KEPT))
    return only


def test_readmes_table_is_what_was_measured(study: Study) -> None:
    table = table_6(study)
    measured = {
        row.experiment: text
        for row, text in zip(table.itertuples(), printed(table)["error (%)"], strict=True)
        if row.n
    }
    assert set(measured) == {"plain20", "plain56", "resnet20", "resnet56"}
    in_readme = dict(
        re.findall(
            r"^\| ((?:plain|ResNet)-\d+) \| ([^|]+?) \|",
            (ROOT / "README.md").read_text(),
            re.MULTILINE,
        )
    )
    assert {name.lower().replace("-", ""): error for name, error in in_readme.items()} == measured


def test_readmes_verdicts_are_those_of_the_results(study: Study) -> None:
    reproduced = {
        judgement.id
        for judgement in claims.judge_claims(study)
        if judgement.verdict == "reproduced"
    }
    said = re.search(
        r"claims? ((?:[CI]\d+[, and]*)+) are \*reproduced\*", (ROOT / "README.md").read_text()
    )
    assert said and set(re.findall(r"[CI]\d+", said[1])) == reproduced


def test_they_are_small_and_make_a_report() -> None:
    assert sum(file.stat().st_size for file in KEPT.iterdir()) < 5_000_000
    files = report_files(load(KEPT))
    assert {
        "index.html",
        "table_6.csv",
        "figure_1.png",
        "figure_7.png",
        "signals.png",
    } <= files.keys()
