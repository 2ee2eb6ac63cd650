"""Each artifact says which runs it rests on, and an audit names every file that differs."""

import json
from shutil import copytree

import pandas as pd
import pytest

from analysis.report.artifact_provenance import audit, with_manifest
from analysis.report.report import report_files, write_report
from analysis.report.report_folder import MADE, about_report, listed_files
from analysis.verdicts import RULES_VERSION
from pipeline.errors import InputError
from tests.conftest import Cli


@pytest.fixture(scope="module")
def made(build, tmp_path_factory):
    """A report as it was made, which nobody changes."""
    folder = tmp_path_factory.mktemp("made") / "report"
    write_report(build({"plain20": [9.6, 9.7, 9.8], "plain56": [13.0, 13.2, 13.4]}), folder)
    return folder


@pytest.fixture
def report(made, tmp_path):
    """A copy of it."""
    return copytree(made, tmp_path / "report")


def resealed(report, name):
    """Hide a change of a file by its checksum."""
    about = json.loads((report / MADE).read_bytes())
    frames_free = with_manifest({name: (report / name).read_bytes()}, _Nothing())
    about["files"][name] = json.loads(frames_free[MADE])["files"][name]
    (report / MADE).write_text(json.dumps(about))


class _Nothing:
    def _asdict(self):
        return {}


def test_an_artifact_names_its_runs(report):
    about = json.loads((report / "figure_1.origin.json").read_bytes())
    assert [(run["experiment"], run["seed"]) for run in about["runs"]] == [
        ("plain20", 0), ("plain20", 1), ("plain20", 2), ("plain56", 0), ("plain56", 1),
        ("plain56", 2),
    ]  # fmt: skip
    assert about["dataset_id"] == "c1fa" and about["comparable"] is True
    first = about["runs"][0]
    assert first["commit"] == "0123456789abcdef" and first["versions"] == {
        "python": "3.11",
        "torch": "2.0",
    }
    assert first["mlflow_run_id"] == "mlflow-plain20-0" and first["dirty"] is False
    assert json.loads((report / "figure_7.origin.json").read_bytes())["runs"] == about["runs"]


def wrong(report) -> list[str]:
    """What is wrong with a report that this version made, a line each."""
    found = audit(report, report_files)
    assert found.otherwise == {} and found.versions == []
    return [f"{name} {what}" for name, what in sorted(found.wrong.items())]


def said_to_be_of(report, **changes):
    """Have a report say that something else made it; None takes the word away."""
    about = json.loads((report / MADE).read_bytes())
    about["made_with"] |= changes.pop("made_with", {})
    about = {name: value for name, value in (about | changes).items() if value is not None}
    (report / MADE).write_text(json.dumps(about))


def test_a_report_as_it_was_made_passes(report):
    assert wrong(report) == []
    assert json.loads((report / MADE).read_bytes())["rules"] == RULES_VERSION == 2


@pytest.mark.parametrize(
    "name", ["table_6.csv", "figure_1.svg", "index.html", "claims.origin.json"]
)
def test_a_changed_file_is_named_even_if_its_checksum_was_changed_too(report, name):
    content = (report / name).read_bytes()
    (report / name).write_bytes(
        content.replace(b"13", b"12", 1) if b"13" in content else content + b" "
    )
    assert wrong(report) == [f"{name} was changed after the report was made"]
    resealed(report, name)
    assert wrong(report) == [f"{name} is not what the report's data gives"]


def test_missing_files_and_changed_data_are_named(report):
    (report / "figure_6.png").unlink()
    assert wrong(report) == ["figure_6.png is missing"]
    path = report / "data" / "metrics.parquet"
    frame = pd.read_parquet(path)
    frame.loc[frame.iteration == 64_000, "value"] -= 1.0
    frame.to_parquet(path, index=False)
    assert "data/metrics.parquet was changed after the report was made" in wrong(report)
    resealed(report, "data/metrics.parquet")
    assert {
        "table_6.csv is not what the report's data gives",
        "index.html is not what the report's data gives",
    } <= set(wrong(report))


@pytest.mark.parametrize(
    ("changes", "versions"),
    [
        ({"rules": None}, ["rules 1, here 2"]),  # as all reports before the rules had a version
        ({"rules": 3}, ["rules 3, here 2"]),
        ({"made_with": {"matplotlib": "1.0"}}, ["matplotlib 1.0"]),
        ({"made_with": {"analysis": "0" * 16}}, ["other code of tables and figures"]),
        (
            {"rules": 1, "made_with": {"pandas": "1.0"}},
            ["rules 1, here 2", "pandas 1.0"],
        ),
    ],
)
def test_what_another_version_made_otherwise_is_not_called_changed(report, changes, versions):
    said_to_be_of(report, **changes)
    files = {name: (report / name).read_bytes() for name in listed_files(about_report(report))}
    again = {name: content for name, content in files.items() if not name.startswith("data/")}
    # The same bytes: whoever made them, they are what the data gives.
    same = audit(report, lambda _: again)
    assert (same.wrong, same.otherwise, same.versions) == ({}, {}, versions)
    (report / "figure_1.svg").write_bytes(b"<svg/>")
    resealed(report, "figure_1.svg")
    found = audit(report, lambda _: again)
    assert found.wrong == {} and found.versions == versions
    assert found.otherwise == {"figure_1.svg": "is not what the report's data gives"}


def test_a_change_shows_whatever_version_made_the_report(report):
    said_to_be_of(report, rules=1)
    (report / "figure_1.svg").write_bytes(b"<svg/>")
    found = audit(report, report_files)
    assert found.wrong == {"figure_1.svg": "was changed after the report was made"}
    assert found.otherwise == {}


def test_what_is_no_report_is_refused(tmp_path):
    for content in (None, "nonsense", "[]", '{"format": "another/1"}'):
        if content is not None:
            (tmp_path / MADE).write_text(content)
        with pytest.raises(InputError, match="no report that can be audited"):
            audit(tmp_path, report_files)


def test_the_command_exits_1_and_names_the_file(cli: Cli, report):
    good = cli("audit", report)
    assert (good.returncode, good.stdout) == (0, "every file is what the report's data gives\n")
    (report / "table_6.md").write_text("# Table 6: all reproduced\n")
    bad = cli("audit", report)
    assert bad.returncode == 1 and "table_6.md was changed after the report was made" in bad.stdout
    assert cli("audit", report / "data").returncode == 2


def test_the_command_exits_3_where_the_rules_have_another_version(cli: Cli, report):
    said_to_be_of(report, rules=None)
    (report / "claims.md").write_text("# judged by other rules\n")
    resealed(report, "claims.md")
    other = cli("audit", report)
    assert other.returncode == 3
    assert other.stdout == (
        "claims.md is not what the report's data gives here\n"
        "1 files are made otherwise here, and none was changed: the report was made by another "
        "version (rules 1, here 2)\n"
    )


def test_a_page_that_the_report_does_not_list_is_named(report):
    (report / "runs" / "plain20-seed-9.html").write_text("<p>a stale page")
    assert wrong(report) == ["runs/plain20-seed-9.html is not one of the report's files"]


def test_a_report_within_a_report_is_audited_with_it(build, report):
    write_report(build({"plain20": [9.6, 9.7, 9.8]}), report / "table6")
    assert wrong(report) == []
    (report / "table6" / "claims.csv").write_text("reproduced")
    (report / "table6" / "deeper").mkdir()
    (report / "table6" / "deeper" / "report.json").write_bytes((report / MADE).read_bytes())
    assert set(audit(report, report_files).wrong) == {
        "table6/claims.csv",
        "table6/deeper/report.json",
    }
    write_report(build({"plain20": [9.6, 9.7, 9.9]}), report)
    assert "table6/claims.csv" in audit(report, report_files).wrong


def test_a_report_that_says_nonsense_of_itself_is_audited_all_the_same(report):
    said_to_be_of(report, rules={"a": ["\n"]})
    about = json.loads((report / MADE).read_bytes())
    (report / MADE).write_text(json.dumps(about | {"made_with": [1]}))
    assert audit(report, report_files).versions == ["rules {'a': ['\\n']}, here 2"]
