"""Tracking never hurts training: a server that is away, a run that is interrupted, and a URI that
means no store.
"""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun

from analysis.measured.mlflow_export import export
from analysis.measured.tags import ALONE, ASKED, stored_name
from jobs.tracking.other_publications import publish_stored
from jobs.tracking.store import tracking_uri
from pipeline.errors import InputError
from pipeline.recipe.metrics import TEST_ERR
from pipeline.runs.execution import Attempt, Execution
from pipeline.runs.history import cost_of
from pipeline.runs.lease import Lease
from pipeline.runs.run import start_run
from pipeline.storage import Storage
from pipeline.training.loop import train
from pipeline.training.measuring.cost import DeviceMeter
from pipeline.training.step.process_group import single_process
from tests.conftest import Cli
from tests.jobs.conftest import free_port, mlflow_server
from tests.pipeline.training.small_runs import digits_once, small_run

SHORT = (
    "train",
    "resnet20",
    "--data",
    "digits",
    "--set",
    "depth=8",
    "--set",
    "eval_every=5",
    "--device",
    "cpu",
    "--threads",
    "1",
)


def the_run(uri: str) -> MlflowRun:
    """The only run of ours in a store."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("resnet-repro")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "tags.kind = 'run'")
    return run


@pytest.mark.ray
def test_a_server_that_is_away_costs_nothing_and_gets_everything_later(
    cli: Cli, tmp_path: Path
) -> None:
    port = free_port()
    command = (
        *SHORT,
        "--iterations",
        "20",
        "--storage",
        tmp_path,
        "--tracking",
        f"http://127.0.0.1:{port}",
    )
    refused = cli(*command, "--require-tracking")
    assert refused.returncode == 2 and "MLflow cannot be used now" in refused.stderr
    assert not (tmp_path / "runs").exists()
    away = cli(*command)
    assert away.returncode == 0, away.stderr
    assert "finished" in away.stdout and "warning: not published to MLflow" in away.stderr
    assert "resnet-repro sync" in away.stderr
    (tmp_path / "mlflow").mkdir()
    with mlflow_server(tmp_path / "mlflow", port) as uri:
        sync = ("sync", "--storage", tmp_path, "--tracking", uri)
        first, second = cli(*sync), cli(*sync)
        assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
        assert "1 run completed" in first.stdout and "has everything" in second.stdout
        back = cli(*command, "--require-tracking")  # sends nothing twice either
        assert back.returncode == 0 and back.stderr == ""
        run, client = the_run(uri), MlflowClient(uri)
        assert (run.info.status, run.data.tags["outcome"]) == ("FINISHED", "FINISHED")
        assert run.data.tags[stored_name(ASKED)] == ALONE  # what it was asked for came along
        reported = cli("report", "--storage", tmp_path, "--tracking", uri)
        page = f"{uri}/#/experiments/{run.info.experiment_id}/runs?viewStateShareKey="
        for key in ("curves", "results"):
            assert f"{page}{key}" in reported.stdout, reported.stderr
        (report,) = client.search_runs([run.info.experiment_id], "tags.kind = 'report'")
        artifacts = {file.path for file in client.list_artifacts(report.info.run_id)}
        assert artifacts == {"report", "report.zip"}
        errors = client.get_metric_history(run.info.run_id, TEST_ERR)
        assert [point.step for point in errors] == [5, 10, 15, 20]
        # It took as long as training did, and not as long as sending it.
        assert run.info.start_time < errors[0].timestamp
        assert run.info.end_time == errors[-1].timestamp
        assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
            "result.json",
            "model",
        }
        exported = export(uri.replace("http://", "http://me:secret@"), tmp_path / "exported").runs
        page = f"{uri}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
        assert exported.mlflow_url.tolist() == [page]  # and no password
    gone = cli(*sync)
    assert gone.returncode == 2 and "MLflow cannot be used now" in gone.stderr


def test_sync_ends_what_stopped_and_leaves_what_is_trained_alone(storage: Storage) -> None:
    run, store, said = (
        small_run(iterations=60, lr_drops=(30, 45), eval_every=5),
        f"sqlite:///{storage.uri}/ml.db",
        [],
    )
    start_run(storage, run, 1)
    left = train(
        run,
        digits_once(),
        storage,
        single_process(),
        Execution(checkpoint_seconds=1e9),
        Attempt(preempted=lambda: True),
        DeviceMeter(energy=partial(next, count(1000.0, 10.0))),
    )
    assert left["status"] == "preempted"
    with Lease(storage, run):
        assert publish_stored(store, storage, said.append) == 0
    assert (
        publish_stored(store, storage, said.append) == 1
        and publish_stored(store, storage, said.append) == 0
    )
    there = the_run(store)
    assert (there.info.status, there.data.tags["outcome"]) == ("KILLED", "KILLED")
    assert there.data.tags["joules"] == "10.0"
    history = MlflowClient(store).get_metric_history(there.info.run_id, TEST_ERR)
    assert [point.step for point in history] == [5, 10, 15, 20, 25]
    ended = train(run, digits_once(), storage, single_process(), Execution(checkpoint_seconds=1e9))
    assert (
        publish_stored(store, storage, said.append) == 1
        and publish_stored(store, storage, said.append) == 0
    )
    there = the_run(store)
    assert (there.info.status, there.data.tags["outcome"]) == ("FINISHED", "FINISHED")
    assert "reason" not in there.data.tags
    history = MlflowClient(store).get_metric_history(there.info.run_id, TEST_ERR)
    assert [point.step for point in history] == list(range(5, 61, 5))
    assert said == [f"{run}: killed", f"{run}: finished"]
    # By which rule it counts as converging travels to the frames that claims are judged on.
    exported = export(store, Path(storage.uri) / "exported").runs
    assert exported.converging_rule.tolist() == [2]
    # So does what it cost; of energy one attempt's would pass for all.
    assert exported.device_seconds.tolist() == [cost_of(ended["attempts"])["device_seconds"]]
    assert exported.joules.isna().all() and len(ended["attempts"]) == 2


@pytest.mark.slow
@pytest.mark.ray
def test_an_interrupted_run_says_so_and_is_continued(cli: Cli, tmp_path: Path) -> None:
    options = (
        "--iterations",
        "700",
        "--set",
        "eval_every=50",
        "--checkpoint-seconds",
        "0.5",
        "--storage",
        str(tmp_path),
    )
    store = f"sqlite:///{tmp_path}/mlflow.db"
    line = [sys.executable, "-m", "jobs.cli", *SHORT, *options]
    heard = partial(
        signal.signal, signal.SIGINT, signal.default_int_handler
    )  # where a shell has us ignore Ctrl-C
    process = subprocess.Popen(
        line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heard
    )
    deadline = time.monotonic() + 120
    while not _has_points(store) and time.monotonic() < deadline:
        time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip().splitlines()[-1] == "interrupted: give the same command again to continue"
    run = the_run(store)
    assert (run.info.status, run.data.tags["reason"]) == ("KILLED", "interrupted")
    again = cli(*SHORT, *options)
    assert again.returncode == 0, again.stderr
    run = the_run(store)
    assert run.info.status == "FINISHED" and "reason" not in run.data.tags


def _has_points(store: str) -> bool:
    """Whether a measurement is in the database; only looks, as two that open it with MLflow at
    first both make it.
    """
    try:
        with closing(
            sqlite3.connect(f"file:{store.removeprefix('sqlite:///')}?mode=ro", uri=True)
        ) as database:
            return bool(database.execute("select count(*) from metrics").fetchone()[0])
    except sqlite3.OperationalError:  # not there yet, or being made
        return False


def test_a_relative_database_is_the_same_file_from_everywhere() -> None:
    assert tracking_uri("sqlite:///runs.db") == f"sqlite:///{Path.cwd()}/runs.db"
    assert tracking_uri("sqlite:////data/runs.db") == "sqlite:////data/runs.db"


@pytest.mark.parametrize(
    "uri", ["http://:5000", "http://host:port", "sqlite://runs.db", "sqlite:///", "runs.db"]
)
def test_a_uri_that_means_no_store_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match="expected http://HOST:PORT"):
        tracking_uri(uri)
