"""A tracking server that is slow, wrong, silent or locked: training never waits for it, and
everything arrives once.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from analysis.measured.tags import COMPLETE, known_tags, stored_name
from jobs.tracking import run_publisher as publisher
from jobs.tracking.other_publications import publish_stored
from jobs.tracking.run_publisher import Publisher
from jobs.tracking.store import open_store
from pipeline.recipe.schedule import expected_points
from pipeline.runs.execution import Execution
from pipeline.runs.run import Run, start_run
from pipeline.storage import Storage
from pipeline.training.loop import train
from pipeline.training.step.process_group import single_process
from tests.jobs.tracking.flaky_proxy import FAULTS, flaky
from tests.jobs.tracking.test_tracking import the_run
from tests.pipeline.training.small_runs import digits_once, small_run

EVERY = Execution(checkpoint_seconds=0)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setattr(publisher, "POLL_SECONDS", 0.2)
    monkeypatch.setattr(publisher, "ENDING_SECONDS", 3.0)
    yield


def followed(storage: Storage, run: Run, tracking: str) -> tuple[bool, float]:
    """Train a run with a publisher beside it; whether all was published, and how long the training
    took.
    """
    start_run(storage, run, 1)
    beside = Publisher(tracking, storage, run, {})
    beside.start()
    started = time.monotonic()
    train(run, digits_once(), storage, single_process(), EVERY)
    seconds = time.monotonic() - started
    return beside.stop("FINISHED"), seconds


def assert_all_there_once(uri: str, run: Run) -> None:
    client, there = MlflowClient(uri), the_run(uri)
    points = [
        (m, p.step)
        for m in there.data.metrics
        for p in client.get_metric_history(there.info.run_id, m)
    ]
    assert sorted(points) == sorted(expected_points(run.experiment))
    tags = known_tags(there.data.tags)
    ended = ("FINISHED", "FINISHED", "yes")
    assert (there.info.status, tags["outcome"], tags[COMPLETE]) == ended


def forget(uri: str) -> None:
    """Leave the module's server without runs for the next test."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("resnet-repro")
    for run in client.search_runs([experiment.experiment_id]) if experiment else []:
        # A run that is only deleted is known, and stays so.
        for key in {"run_key", stored_name("parent_key")} & run.data.tags.keys():
            client.set_tag(run.info.run_id, key, "forgotten")
        client.delete_run(run.info.run_id)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_with_a_fault_gets_everything_once_when_it_is_well_again(
    server: str, storage: Storage, fault: str
) -> None:
    run = small_run()
    with flaky(server, fault, share=0.3) as proxy:
        followed(storage, run, proxy.uri)
        assert proxy.done[fault] > 0
        proxy.share = 0.0
        publish_stored(proxy.uri, storage, print)
        assert_all_there_once(server, run)
        assert publish_stored(proxy.uri, storage, print) == 0
    forget(server)


def test_a_server_with_every_fault_at_once(server: str, storage: Storage) -> None:
    runs = [small_run(seed) for seed in range(3)]
    with flaky(server, share=0.5, seed=1) as proxy:
        for run in runs:
            followed(storage, run, proxy.uri)
        proxy.share = 0.0
        publish_stored(proxy.uri, storage, print)
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("resnet-repro")
    assert experiment is not None
    ours = client.search_runs([experiment.experiment_id], "tags.kind = 'run'")
    assert sorted(run.data.tags["seed"] for run in ours) == ["0", "1", "2"]
    for there in ours:
        points = [
            (m, p.step)
            for m in there.data.metrics
            for p in client.get_metric_history(there.info.run_id, m)
        ]
        assert sorted(points) == sorted(expected_points(runs[0].experiment))
    parents = client.search_runs([experiment.experiment_id], "tags.kind = 'experiment'")
    assert len(parents) == 1 and parents[0].data.metrics["n"] == 3
    forget(server)


def test_a_silent_server_does_not_hold_a_run_up(storage: Storage) -> None:
    with flaky("http://127.0.0.1:9", "silent", share=1.0) as proxy:
        started = time.monotonic()
        published, seconds = followed(storage, small_run(), proxy.uri)
        assert not published and time.monotonic() - started - seconds < 12


def test_a_locked_database_gets_everything_when_it_is_free(
    storage: Storage, tmp_path: Path
) -> None:
    run, file = small_run(), tmp_path / "ml.db"
    uri = f"sqlite:///{file}"
    open_store(uri, storage)
    start_run(storage, run, 1)
    beside = Publisher(uri, storage, run, {})
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        beside.start()
        train(run, digits_once(), storage, single_process(), EVERY)
        time.sleep(1)
        assert not beside.run_id
        database.execute("ROLLBACK")
    assert beside.stop("FINISHED")
    assert_all_there_once(uri, run)
