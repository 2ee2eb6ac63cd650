"""`resnet-repro grid` from rows to a verdict: real Ray Tune and Train, a real MLflow server, and the report."""

from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from analysis.frames import load
from pipeline.metrics import TEST_ERR
from tests.conftest import Cli

pytestmark = pytest.mark.ray

GRID = ("plain20", "resnet20", "--seeds", "2", "--iterations", "20", "--set", "depth=8", "--set", "eval_every=5")


@pytest.fixture(scope="module")
def grid(cli: Cli, server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of a finished grid."""
    place = tmp_path_factory.mktemp("grid")
    done = cli("grid", *GRID, "--storage", str(place), "--tracking", server, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return place


def test_the_report_holds_table_figures_and_claims(grid: Path) -> None:
    table = pd.read_csv(grid / "report" / "table_6.csv")
    measured = table[table.n > 0]
    assert set(measured.experiment) == {"plain20", "resnet20"} and set(measured.n) == {2}
    for name in ("index.html", "figure_1.svg", "figure_1.png", "figure_6.svg", "claims.md"):
        assert (grid / "report" / name).stat().st_size > 500


def test_mlflow_holds_each_point_once_under_its_parent(grid: Path, server: str) -> None:
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("resnet-repro")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'run'")
    parents = client.search_runs([experiment.experiment_id], "tags.kind = 'experiment'")
    assert len(runs) == 4 and len(parents) == 2
    for run in runs:
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] in {parent.info.run_id for parent in parents}
        assert run.data.params["lr"] == "0.1" and run.data.tags["commit"]
        steps = [point.step for point in client.get_metric_history(run.info.run_id, TEST_ERR)]
        assert steps == [5, 10, 15, 20]
        assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"result.json", "weights.safetensors"}


def test_the_same_command_again_trains_nothing_and_doubles_nothing(cli: Cli, grid: Path, server: str) -> None:
    before = load(grid / "export")
    done = cli("grid", *GRID, "--storage", str(grid), "--tracking", server)
    assert done.returncode == 0 and "4 runs, 4 finished before" in done.stdout
    pd.testing.assert_frame_equal(before[1], load(grid / "export")[1])


def test_the_report_comes_from_the_exported_files_alone_too(cli: Cli, grid: Path, tmp_path: Path) -> None:
    done = cli("report", "--from", str(grid / "export"), "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "table_6.csv").read_bytes() == (grid / "report" / "table_6.csv").read_bytes()


def test_a_diverging_run_does_not_stop_the_others_and_is_reported(cli: Cli, tmp_path: Path) -> None:
    rows = ("plain20", "resnet20", "--iterations", "20", "--set", "depth=8", "--set", "eval_every=20")
    bad = ("--set", "norm=none", "--set", "lr=1e6")
    for _ in range(2):  # the second time there is nothing left to train, and as much to say
        done = cli("grid", *rows, *bad, "--storage", tmp_path, timeout=400)
        assert done.returncode == 1
        assert done.stderr.count("diverged: the loss is no longer finite") == 2
        assert "2 of 2 runs did not finish" in done.stderr
