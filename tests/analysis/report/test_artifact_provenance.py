"""Each artifact says which runs it rests on, and an audit names every file that differs."""

import json

import pandas as pd
import pytest

from analysis.report.artifact_provenance import MADE, audit, with_manifest
from analysis.report.report import report_files, write_report
from pipeline.errors import InputError
from tests.conftest import Cli


@pytest.fixture
def report(build, tmp_path):
    write_report(
        build({"plain20": [9.6, 9.7, 9.8], "plain56": [13.0, 13.2, 13.4]}), tmp_path / "report"
    )
    return tmp_path / "report"


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


def test_a_report_as_it_was_made_passes(report):
    assert audit(report, report_files) == []


@pytest.mark.parametrize(
    "name", ["table_6.csv", "figure_1.svg", "index.html", "claims.origin.json"]
)
def test_a_changed_file_is_named_even_if_its_checksum_was_changed_too(report, name):
    content = (report / name).read_bytes()
    (report / name).write_bytes(
        content.replace(b"13", b"12", 1) if b"13" in content else content + b" "
    )
    assert audit(report, report_files) == [f"{name} was changed after the report was made"]
    resealed(report, name)
    assert audit(report, report_files) == [f"{name} is not what the report's data gives"]


def test_missing_files_and_changed_data_are_named(report):
    (report / "figure_6.png").unlink()
    assert audit(report, report_files) == ["figure_6.png is missing"]
    path = report / "data" / "metrics.parquet"
    frame = pd.read_parquet(path)
    frame.loc[frame.iteration == 64_000, "value"] -= 1.0
    frame.to_parquet(path, index=False)
    assert "data/metrics.parquet was changed after the report was made" in audit(
        report, report_files
    )
    resealed(report, "data/metrics.parquet")
    assert {
        "table_6.csv is not what the report's data gives",
        "index.html is not what the report's data gives",
    } <= set(audit(report, report_files))


def test_another_environment_is_said(report):
    about = json.loads((report / MADE).read_bytes())
    about["made_with"]["matplotlib"] = "1.0"
    (report / MADE).write_text(json.dumps(about))
    (report / "figure_1.svg").write_bytes(b"<svg/>")
    resealed(report, "figure_1.svg")
    (line,) = audit(report, report_files)
    assert (
        line == "figure_1.svg is not what the report's data gives (it was made with matplotlib 1.0)"
    )


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
