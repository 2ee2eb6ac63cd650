"""SIGTERM, SIGHUP and SIGUSR1 to a command or to a worker of it, on real Ray."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from mlflow import MlflowClient

from jobs.console.termination import CONTINUE, TerminatedError, raise_on_signals
from pipeline.runs.checkpoint import newest_checkpoint
from pipeline.runs.run import read_result, stored_runs
from pipeline.storage import Storage
from tests.chaos.nodes import descendants, title

PATIENCE_SECONDS = 240.0
ROW = ["resnet20", "--data", "digits", "--set", "depth=8", "--threads", "1", "--device", "cpu"]


def started(*words: str) -> "subprocess.Popen[str]":
    """A command in a session of its own, as a terminal or a batch job has one."""
    line = [sys.executable, "-m", "jobs.cli", *words]
    return subprocess.Popen(
        line, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    )


def wait_for_training(storage: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not list(storage.glob("runs/*/*/*/progress.json")):
        assert time.monotonic() < deadline, "nothing trains"
        time.sleep(0.2)


def of_session(leader: int) -> list[int]:
    """The processes of a session; those that have ended and wait for their parent do not count."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, session = file.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state != "Z":
                found.append(int(file.parent.name))
    return found


def assert_saved_and_gone(process: "subprocess.Popen[str]", storage: Path, said: str) -> None:
    assert process.returncode == CONTINUE == 75, said
    assert "give the same command again to continue" in said.splitlines()[-1]
    place = Storage(str(storage))
    (run,) = stored_runs(place)
    checkpoint = newest_checkpoint(place, run)
    assert read_result(place, run) is None and checkpoint is not None
    assert checkpoint.iteration % 25 == 0  # at the look every 25 iterations, not by the clock
    assert not list(storage.rglob("lease.json")) and not list(storage.glob("ray/*"))
    deadline = time.monotonic() + 10
    while left := of_session(process.pid):
        assert time.monotonic() < deadline, [title(pid) for pid in left]
        time.sleep(0.2)
    client = MlflowClient(f"sqlite:///{storage}/mlflow.db")
    experiment = client.get_experiment_by_name("resnet-repro")
    assert experiment is not None
    (published,) = client.search_runs([experiment.experiment_id], "tags.kind = 'run'")
    assert published.info.status == "KILLED"
    assert published.data.tags["reason"] == "ended by a signal"


@pytest.mark.ray
@pytest.mark.parametrize(
    "who",
    ["command", *(pytest.param(who, marks=pytest.mark.slow) for who in ("worker", "group"))],
)
def test_a_run_that_is_told_to_end_saves_and_leaves_nothing_behind(
    who: str, tmp_path: Path
) -> None:
    train = ["train", *ROW, "--iterations", "20000", "--checkpoint-seconds", "1000"]
    process = started(*train, "--storage", str(tmp_path))
    try:
        wait_for_training(tmp_path)
        if who == "command":
            process.send_signal(signal.SIGTERM)
        elif who == "group":  # as the kernel does it when a terminal is closed
            os.killpg(process.pid, signal.SIGHUP)
        else:
            below = descendants(process.pid)
            (worker,) = [pid for pid in below if title(pid).startswith("ray::RayTrainWorker")]
            os.kill(worker, signal.SIGUSR1)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert_saved_and_gone(process, tmp_path, said)


@pytest.mark.ray
@pytest.mark.slow
def test_a_grid_that_is_told_to_end_saves_what_trains_and_begins_nothing(tmp_path: Path) -> None:
    line = ["grid", *ROW, "--seeds", "5", "--iterations", "20000", "--checkpoint-seconds", "1000"]
    process = started(*line, "--storage", str(tmp_path))
    try:
        wait_for_training(tmp_path)
        process.send_signal(signal.SIGUSR1)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == CONTINUE, said
    storage = Storage(str(tmp_path))
    runs = stored_runs(storage)
    assert 0 < len(runs) < 5 and any(newest_checkpoint(storage, run) for run in runs)
    assert not list(tmp_path.rglob("lease.json")) and not (tmp_path / "report").exists()


def test_a_command_that_trains_nothing_ends_with_75_too(tmp_path: Path) -> None:
    code = "import time; from jobs.cli import main; "
    code += "main._check_arguments = lambda _: (print('on', flush=True), time.sleep(60)); "
    code += "main.main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75
    assert said == "ended by SIGHUP: give the same command again to continue\n"


def test_a_signal_that_is_ignored_stays_so_and_one_that_comes_twice_counts_once() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGUSR1] = signal.getsignal(signal.SIGUSR1)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
        came = raise_on_signals()
        os.kill(os.getpid(), signal.SIGHUP)
        with pytest.raises(TerminatedError, match=re.escape("SIGUSR1")):
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert came == ["SIGUSR1"]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
