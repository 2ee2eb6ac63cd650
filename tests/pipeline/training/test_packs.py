"""Runs of a pack have the bytes that they have alone, and end alone."""

from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any

import pytest
import torch

from pipeline.runs.checkpoint import iterations
from pipeline.runs.execution import Attempt, Execution
from pipeline.runs.run import Run, read_result
from pipeline.storage import Storage
from pipeline.training import packs
from pipeline.training.loop import train
from pipeline.training.packs import DeviceFaultError, StartLine, train_pack
from pipeline.training.step.process_group import single_process
from tests.pipeline.training.small_runs import digits_once, small_run, state

NEVER = Execution(checkpoint_seconds=1e9)
RUNS = [small_run(0), small_run(1), small_run(2, shortcut="none"), small_run(0, eval_every=15)]
"""Two seeds, a plain network, and another schedule."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    storage = Storage(str(tmp_path_factory.mktemp("alone")))
    for run in RUNS:
        train(run, digits_once(), storage, single_process(), NEVER)
    return storage


def packed(storage: Storage, runs: list[Run], preempted: bool = False) -> list[dict[str, Any]]:
    """Train the runs at once on the CPU; their answers in order."""
    given = {run: Attempt(preempted=lambda: preempted) for run in runs}
    answers = train_pack(given, digits_once(), storage, torch.device("cpu"), NEVER)
    return [answers[run] for run in runs]


def test_runs_of_a_pack_have_the_bytes_that_they_have_alone(alone: Storage, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    answers = packed(storage, RUNS)
    assert [answer["status"] for answer in answers] == ["finished"] * 4
    for run in RUNS:
        assert state(storage, run) == state(alone, run)


def test_a_preempted_pack_saves_every_run_and_each_continues_to_the_same_bytes(
    alone: Storage, tmp_path: Path
) -> None:
    storage = Storage(str(tmp_path))
    assert packed(storage, RUNS, preempted=True) == [{"status": "preempted"}] * 4
    assert all(iterations(storage, run)[-1] == 25 for run in RUNS)
    # In other company: two of them packed, two alone.
    packed(storage, RUNS[:2])
    for run in RUNS[2:]:
        train(run, digits_once(), storage, single_process(), NEVER)
    for run in RUNS:
        assert state(storage, run) == state(alone, run)


def test_one_that_diverges_is_refused_or_fails_leaves_the_others_alone(
    alone: Storage, tmp_path: Path
) -> None:
    storage = FailingStorage(str(tmp_path), "seed-8/checkpoints")
    diverging = small_run(7, norm="none", lr=1e6)
    failing, refused = small_run(8), small_run(9)
    # The one that is refused was begun with other software.
    begun = Attempt(provenance={"versions": {"torch": "1.0"}}, preempted=lambda: True)
    train(refused, digits_once(), storage, single_process(), NEVER, begun)
    now = Attempt(provenance={"versions": {"torch": "2.0"}})
    given = {RUNS[0]: now, diverging: now, failing: now, refused: now, RUNS[1]: now}

    answers = train_pack(given, digits_once(), storage, torch.device("cpu"), NEVER)

    ended = [answer["status"] for answer in answers.values()]
    assert ended == ["finished", "diverged", "failed", "refused", "finished"]
    assert "no memory is left" in answers[failing]["reason"]
    assert "torch: 1.0 then, 2.0 now" in answers[refused]["reason"]
    assert read_result(storage, failing) is None and read_result(storage, refused) is None
    for run in RUNS[:2]:
        assert state(storage, run) == state(alone, run)


class FailingStorage(Storage):
    """Whatever is written to a path that contains `at` ends in an error that is nobody's fault."""

    def __init__(self, uri: str, at: str) -> None:
        super().__init__(uri)
        self.at = at

    def write(self, path: str, content: bytes) -> None:
        if self.at in path:
            raise torch.OutOfMemoryError("no memory is left")
        super().write(path, content)


def test_a_device_that_fails_ends_the_pack_and_what_was_saved_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(str(tmp_path))

    def faulty(run: Run, *rest: Any) -> dict[str, Any]:
        if run == RUNS[1]:
            raise RuntimeError(
                "CUDA error: an illegal memory access was encountered\nCompile with `TORCH_USE...`"
            )
        return train(run, *rest)

    monkeypatch.setattr(packs, "train", faulty)
    with pytest.raises(DeviceFaultError, match="seed 1: RuntimeError: CUDA error: an illegal"):
        packed(storage, RUNS[:2])
    assert read_result(storage, RUNS[0]) is not None


def test_runs_set_up_one_at_a_time_and_none_trains_before_all_have() -> None:
    line, events = StartLine(4), list[str]()

    def run(name: str, fails: bool) -> None:
        try:
            with line.setting_up():
                events.append("begins")
                sleep(0.02)
                events.append("set up")
                if fails:
                    raise RuntimeError
            events.append("trains")
        except RuntimeError:
            events.append("fails")
        finally:
            line.leave()

    # The last one never comes as far as setting up.
    threads = [Thread(target=run, args=(str(n), n == 1)) for n in range(3)]
    threads.append(Thread(target=line.leave))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    kept = [event for event in events if event != "fails"]
    assert kept == ["begins", "set up"] * 3 + ["trains"] * 2


def test_a_pack_of_runs_that_have_ended_returns_at_once(alone: Storage) -> None:
    assert [answer["status"] for answer in packed(alone, RUNS)] == ["finished"] * 4
