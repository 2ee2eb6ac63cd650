"""A pack on a real Ray whose worker dies, or in which one run breaks: the others end as alone."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.data.stored import write_dataset
from pipeline.runs.checkpoint import newest_history
from pipeline.runs.execution import Execution
from pipeline.storage import Storage
from pipeline.training.loop import train
from pipeline.training.step.process_group import single_process
from tests.pipeline.training.small_runs import digits_once, small_run, state


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Bytes are a function of the number of threads, and workers have one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def carried_out(scenario: str, storage: Storage) -> dict[str, Any]:
    """How the scenario's runs ended, and which were started together."""
    write_dataset(storage, digits_once(), {"kind": "embedded"})
    line = [sys.executable, "-m", "tests.jobs.execution.faulty_workers", scenario, storage.uri]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_killed_worker_continues_all_and_what_is_held_or_too_large_leaves_the_others(
    tmp_path: Path, one_thread: None
) -> None:
    storage, alone = Storage(str(tmp_path)), Storage(str(tmp_path / "alone"))
    said = carried_out("mixed", storage)
    *ended, held = said["ended"].values()
    assert ended == ["finished"] * 3
    assert "seed 3: is being trained by process" in held
    # All that are held start at once, again after the kill, and what has no memory then alone.
    assert said["starts"] == [[0, 1, 2], [0, 1, 2], [2]]
    for seed in range(3):
        run = small_run(seed)
        train(run, digits_once(), alone, single_process(), Execution(checkpoint_seconds=1e9))
        assert state(storage, run) == state(alone, run)
    history = newest_history(storage, small_run(1))
    assert history is not None
    assert [attempt["from_iteration"] > 0 for attempt in history.attempts] == [False, True]
    assert history.attempts[0]["runs_at_once"] == 3


@pytest.mark.slow
def test_of_a_pack_whose_worker_always_dies_only_the_guilty_run_fails(tmp_path: Path) -> None:
    said = carried_out("guilty", Storage(str(tmp_path)))
    assert said["starts"] == [[0, 1], [0, 1], [0], [1], [1], [1]]
    assert said["ended"]["0"] == "finished"
    assert said["ended"]["1"] not in ("finished", "refused")
