"""How far a run is, as tags of its MLflow run: fresh, cheap, and gone when it has ended."""

import time

import pytest
from mlflow import MlflowClient

from jobs.tracking import run_publisher
from jobs.tracking.other_publications import mark_interrupted
from jobs.tracking.run_publisher import Publisher
from pipeline.runs.execution import Attempt, Execution
from pipeline.runs.run import start_run, write_heartbeat
from pipeline.storage import Storage
from pipeline.training.loop import train
from pipeline.training.step.process_group import single_process
from tests.jobs.tracking.flaky_proxy import flaky
from tests.jobs.tracking.published import mlflow_runs
from tests.pipeline.training.small_runs import digits_once, small_run

RUN = small_run(iterations=60, lr_drops=(30, 45), eval_every=5)


def half(storage: Storage) -> None:
    """Train up to a checkpoint at the first lr drop, and a heartbeat beyond it."""
    start_run(storage, RUN, 1)
    left = Attempt(preempted=lambda: True)
    train(RUN, digits_once(), storage, single_process(), Execution(checkpoint_seconds=1e9), left)


def beat(storage: Storage, iteration: int) -> None:
    write_heartbeat(storage, RUN, iteration, 4.0, int(1000 * time.time()) + 1000)


def tags(uri: str) -> dict[str, str]:
    (there,) = mlflow_runs(uri)
    return dict(there.data.tags)


def test_a_run_says_how_far_it_is_and_costs_no_more_requests(
    server: str, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_publisher, "TELL_SECONDS", 1e9)
    with flaky(server, share=0.0) as proxy:
        beside = Publisher(proxy.uri, storage, RUN, {})
        beside.publish()
        assert tags(server)["state"] == "waiting" and "time_left" not in tags(server)
        half(storage)
        beat(storage, 30)
        before = proxy.done["none"]
        beside.publish()
        assert proxy.done["none"] - before == 1  # with the points of the checkpoint
        now = tags(server)
        assert (now["state"], now["iteration"], now["time_left"]) == (
            "running",
            "30 of 60",
            "2m 00s",
        )
        assert now["test_err"].endswith(" %") and now["progress_at"].endswith(" UTC")
        beat(storage, 45)
        beside.publish()
        assert proxy.done["none"] - before == 1
        monkeypatch.setattr(run_publisher, "TELL_SECONDS", 0.0)  # as a minute later
        beside.publish()
        assert proxy.done["none"] - before == 2
        assert (tags(server)["iteration"], tags(server)["time_left"]) == ("45 of 60", "1m 00s")
        train(RUN, digits_once(), storage, single_process(), Execution(checkpoint_seconds=1e9))
        beside.finish("FINISHED")
    now = tags(server)
    assert (now["state"], now["iteration"]) == ("finished", "60 of 60") and "time_left" not in now


def test_an_interrupted_run_has_stopped_and_nothing_left(storage: Storage) -> None:
    store, interrupted = f"sqlite:///{storage.uri}/ml.db", []
    half(storage)
    beat(storage, 30)
    beside = Publisher(store, storage, RUN, {}, lambda: bool(interrupted))
    beside.publish()
    assert tags(store)["time_left"]
    interrupted.append(True)
    mark_interrupted(store, storage, [RUN], int(time.time()))
    now = tags(store)
    assert (now["state"], now["outcome"]) == ("stopped", "KILLED") and "time_left" not in now
    (there,) = mlflow_runs(store)
    assert MlflowClient(store).get_run(there.info.run_id).info.status == "KILLED"
