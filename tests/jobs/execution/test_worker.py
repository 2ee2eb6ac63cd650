"""What a worker decides on its node: where copies are kept, which of its group's places train, and
how torch is set.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from jobs.cli.verify import _unprovable
from jobs.execution.evaluate import Model, ScoringTask
from jobs.execution.processors import KernelSettings, compiler_missing, kernel_settings
from jobs.execution.worker import cache_folder, usable_workers
from jobs.requests.options import workers_of
from pipeline.errors import InputError
from pipeline.recipe.experiments import EXPERIMENTS, Precision
from pipeline.runs.execution import Attempt, Execution
from pipeline.runs.history import History
from pipeline.runs.run import Run
from pipeline.training.attempts import record_attempt
from pipeline.training.step.process_group import single_process


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (
            {"RESNET_REPRO_CACHE": "/scratch/copies", "XDG_CACHE_HOME": "/xdg", "HOME": "/home/me"},
            "/scratch/copies",
        ),
        ({"XDG_CACHE_HOME": "/xdg", "HOME": "/home/me"}, "/xdg/resnet-repro"),
        (
            {"RESNET_REPRO_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/home/me"},
            "/home/me/.cache/resnet-repro",
        ),
    ],
)
def test_the_cache_is_the_users_own(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RESNET_REPRO_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


@pytest.mark.parametrize(
    ("workers", "groups", "places"),
    [
        (1, 2, 1),
        (2, 2, 2),
        (3, 2, 2),
        (3, 8, 2),
        (4, 8, 4),
        (7, 8, 4),
        (8, 8, 8),
        (16, 8, 8),
        (5, 4, 4),
    ],
)
def test_the_largest_power_of_two_that_the_groups_allow_trains(
    workers: int, groups: int, places: int
) -> None:
    assert usable_workers(workers, groups) == places


@pytest.mark.parametrize(
    ("text", "asked"), [("1", (1, 1)), ("4", (4, 4)), ("2:8", (2, 8)), ("2:2", (2, 2))]
)
def test_a_number_of_workers_or_a_range(text: str, asked: tuple[int, int]) -> None:
    assert workers_of(text) == asked


@pytest.mark.parametrize("text", ["", "0", "-1", "two", "8:2", "0:2", "1:2:4", "2:", ":2", "1.5"])
def test_what_is_no_number_of_workers_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected a number such as 2, or a range such as 2:8"):
        workers_of(text)


SETTINGS = """
import os, torch
from jobs.execution.processors import KernelSettings, set_kernels
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
set_kernels(KernelSettings(deterministic=False, tf32=False))
print(torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
print(torch.are_deterministic_algorithms_enabled())
torch.backends.cudnn.benchmark = True
set_kernels(KernelSettings(deterministic=True, tf32=True))
cudnn = torch.backends.cudnn
print(torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark)
print(torch.is_deterministic_algorithms_warn_only_enabled(), os.environ["CUBLAS_WORKSPACE_CONFIG"])
print(torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
"""


def test_fp32_is_fp32_and_kernels_are_deterministic_where_they_are_told_to() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SETTINGS], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split("\n")[:5] == [
        "False False",
        "False",
        "True True False",
        "False :4096:8",
        "True True",
    ]


def test_a_node_without_a_compiler_refuses_to_compile_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert compiler_missing(True) == ""
    monkeypatch.setenv("PATH", "/nowhere")
    assert compiler_missing(False) == ""
    assert "needs a C++ compiler" in compiler_missing(True)
    assert "\n" not in compiler_missing(True)


def test_compiled_kernels_are_recorded_and_cannot_be_proved() -> None:
    run = Run(EXPERIMENTS["resnet20"], "0" * 16, "digits-00000000", seed=0)
    for compiled in (False, True):
        history = History()
        record_attempt(run, history, single_process(), Execution(compiled=compiled), Attempt())
        assert history.attempts[-1].get("compiled", False) is compiled
        reason = "it was trained with compiled kernels" if compiled else ""
        assert _unprovable(history.attempts) == reason


def test_networks_are_scored_with_the_kernels_they_were_tested_with() -> None:
    def task(*precisions: Precision, use_gpu: bool = True) -> ScoringTask:
        rows = [replace(EXPERIMENTS["resnet20"], precision=name) for name in precisions]
        models = [Model(f"model {number}", row, b"") for number, row in enumerate(rows)]
        return ScoringTask(models, "", "", "", use_gpu, threads=1)

    assert task("fp32", "bf16").kernels == KernelSettings(deterministic=True, tf32=False)
    assert task("tf32", "bf16").kernels == KernelSettings(deterministic=True, tf32=True)
    assert task("bf16", use_gpu=False).kernels == KernelSettings(deterministic=False, tf32=False)
    with pytest.raises(InputError, match="tf32 and fp32 cannot be scored together"):
        _ = task("tf32", "fp32").kernels


def test_runs_share_a_process_where_its_kernels_are_set_alike() -> None:
    fp32 = EXPERIMENTS["resnet20"]
    on_gpu, on_cpu = Execution(use_gpu=True), Execution()
    settings = {
        name: kernel_settings(replace(fp32, precision=name), on_gpu) for name in get_args(Precision)
    }
    assert settings["fp32"] == settings["bf16"] == KernelSettings(deterministic=True, tf32=False)
    assert settings["tf32"] == KernelSettings(deterministic=True, tf32=True)
    any_kernels = kernel_settings(fp32, replace(on_gpu, deterministic=False))
    assert any_kernels == KernelSettings(deterministic=False, tf32=False)
    assert kernel_settings(fp32, on_cpu) == KernelSettings(deterministic=False, tf32=False)
