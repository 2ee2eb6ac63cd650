"""What an attempt is made with: compared with the one before, each kind of it once, and whether
the iteration was captured.
"""

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.runs.execution import Attempt, Execution
from pipeline.runs.history import History
from pipeline.runs.provenance import drift, gpu_driver
from pipeline.storage import Storage
from pipeline.training import loop
from pipeline.training.attempts import record_attempt
from pipeline.training.loop import train
from pipeline.training.step.iteration import Iteration
from pipeline.training.step.process_group import ProcessGroup, single_process
from tests.pipeline.training.small_runs import digits_once, small_run

H200 = {
    "device": "NVIDIA H200",
    "hardware": "EPYC",
    "gpu_driver": "580.65.06",
    "versions": {"torch": "2.11.0", "cuda": "13.0", "cudnn": "91900"},
}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"device": "NVIDIA H100"}, "device: NVIDIA H200 then, NVIDIA H100 now"),
        ({"gpu_driver": "590.1"}, "gpu_driver: 580.65.06 then, 590.1 now"),
        ({"versions": H200["versions"] | {"cudnn": "92000"}}, "cudnn: 91900 then, 92000 now"),
    ],
)
def test_another_gpu_or_driver_or_cudnn_is_drift(changed: dict[str, Any], says: str) -> None:
    run, history = small_run(), History()
    record_attempt(run, history, single_process(), Execution(), Attempt(provenance=H200))
    record_attempt(run, history, single_process(), Execution(), Attempt(provenance=H200))
    with pytest.raises(InputError, match=says):
        record_attempt(
            run, history, single_process(), Execution(), Attempt(provenance=H200 | changed)
        )
    assert len(history.attempts) == 2


def test_what_an_earlier_version_did_not_record_is_no_drift() -> None:
    old = {key: H200[key] for key in ("device", "hardware")} | {"versions": {"torch": "2.11.0"}}
    assert drift(old, H200) == {}


class TwoNodes(ProcessGroup):
    """Rank 1 of two workers, on GPUs of two kinds, without another process."""

    def gather_text(self, text: str) -> list[str]:
        return ["NVIDIA H100" if text == "NVIDIA H200" else text, text]


def test_workers_on_two_kinds_of_gpu_are_no_drift_when_they_come_back() -> None:
    group, history = TwoNodes(1, 2, single_process().device), History()
    for _ in range(2):
        record_attempt(small_run(), history, group, Execution(), Attempt(provenance=H200))
    assert [attempt["device"] for attempt in history.attempts] == ["NVIDIA H100 + NVIDIA H200"] * 2


class Captured(Iteration):
    """As on a GPU, but for the graph."""

    captured = True


def test_an_attempt_says_whether_its_iteration_was_captured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, storage = small_run(iterations=8, lr_drops=(4, 6), eval_every=8), Storage(str(tmp_path))
    result = train(run, digits_once(), storage, single_process(), Execution())
    assert "captured" not in result["attempts"][0]
    monkeypatch.setattr(loop, "Iteration", Captured)
    again = small_run(1, iterations=8, lr_drops=(4, 6), eval_every=8)
    result = train(again, digits_once(), storage, single_process(), Execution())
    assert result["attempts"][0]["captured"] is True


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22", "550.54.14"),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build",
            "580.65.06",
        ),
        ("something else", "unknown"),
    ],
)
def test_the_driver_says_its_version(tmp_path: Path, text: str, version: str) -> None:
    assert gpu_driver(tmp_path / "none") == "unknown"
    (tmp_path / "version").write_text(f"{text}\nGCC version: 12.2.0\n")
    assert gpu_driver(tmp_path / "version") == version
