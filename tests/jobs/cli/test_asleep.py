"""A machine that sleeps while its run trains, and wakes up when another command has the run."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.data.catalogue.digits import digits
from pipeline.data.stored import write_dataset
from pipeline.recipe.overrides import experiment_named
from pipeline.runs.checkpoint import newest_checkpoint, newest_iteration
from pipeline.runs.run import Run
from pipeline.storage import Storage
from pipeline.training.loop import train
from pipeline.training.step.process_group import single_process
from tests.chaos.nodes import descendants
from tests.jobs.conftest import kill_all

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

ITERATIONS = 1500
PATIENCE = 400.0


def wait_for(what: str, holds) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def send(process: subprocess.Popen[str], number: int) -> None:
    """A signal to a command and to all that it has started."""
    for pid in [process.pid, *descendants(process.pid)]:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def holder(storage: Storage, run: Run) -> bytes | None:
    return storage.read_if_there(f"{run.folder}/lease.json")


def test_who_slept_stops_writing_when_another_has_taken_over(tmp_path: Path) -> None:
    settings = ["depth=8", "eval_every=100"]
    words = [word for setting in settings for word in ("--set", setting)]
    line = [sys.executable, "-m", "jobs.cli", "train", "resnet20", "--data", "digits", *words]
    line += ["--iterations", str(ITERATIONS), "--checkpoint-seconds", "0.5", "--device", "cpu"]
    line += ["--threads", "1", "--storage", str(tmp_path / "s")]
    dataset, storage = digits(), Storage(str(tmp_path / "s"))
    run = Run(experiment_named("resnet20", settings, ITERATIONS), dataset.id, dataset.key, 0)

    def command() -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(line, text=True, start_new_session=True, **pipes)  # type: ignore[call-overload,no-any-return]

    first = command()
    second = None
    try:
        wait_for("no checkpoint", lambda: newest_iteration(storage, run) > 0)
        send(first, signal.SIGSTOP)
        asleep, reached = holder(storage, run), newest_iteration(storage, run)
        # It has to wait until the first one's lease has not changed for long enough.
        second = command()
        wait_for("was not taken over", lambda: newest_iteration(storage, run) > reached)
        assert holder(storage, run) != asleep
        send(first, signal.SIGCONT)
        said = first.communicate(timeout=PATIENCE)[0]
        assert first.returncode in (1, 2) and "taken" in said and "Traceback" not in said, said
        said = second.communicate(timeout=PATIENCE)[0]
        assert second.returncode == 0, said
    finally:
        for process in (first, second):
            if process is not None:
                send(process, signal.SIGCONT)
                kill_all(process)
    # As if nobody had slept.
    whole = Storage(str(tmp_path / "whole"))
    write_dataset(whole, dataset, {"kind": "embedded"})
    train(run, dataset, whole, single_process())
    ended, undisturbed = newest_checkpoint(storage, run), newest_checkpoint(whole, run)
    assert ended is not None and undisturbed is not None
    for name in ("weights.safetensors", "momentum.safetensors"):
        assert ended.files[name] == undisturbed.files[name]
