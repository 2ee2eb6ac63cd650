"""A run is a function of (row, dataset, seed): whatever died on the way and however many workers
there were.
"""

from dataclasses import replace
from math import isnan
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from pipeline.errors import InputError
from pipeline.recipe.metrics import (
    CONVOLUTION_VARIANCE,
    FORWARD_VARIANCE,
    GRADIENT_NORM,
    RESPONSE_STD,
    TEST_ERR,
    TRAIN_CLEAN_ERR,
    TRAIN_LOSS,
    VAL_ERR,
)
from pipeline.runs.checkpoint import folder, iterations
from pipeline.runs.execution import Attempt, Execution
from pipeline.runs.run import read_result
from pipeline.storage import Storage
from pipeline.training.loop import train
from pipeline.training.step.process_group import single_process
from tests.pipeline.training.several_workers import several_groups, trained_by
from tests.pipeline.training.small_runs import digits_once, small_run, state

EVERY_STEP = Execution(checkpoint_seconds=0)
NEVER = Execution(checkpoint_seconds=1e9)


class Killed(BaseException):
    """What happens to a process, not to a run."""


class DyingStorage(Storage):
    """A storage whose process dies before it writes a path that contains `at`."""

    def __init__(self, uri: str, at: str) -> None:
        super().__init__(uri)
        self.at = at

    def write(self, path: str, content: bytes) -> None:
        if self.at in path:
            raise Killed
        super().write(path, content)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    storage = Storage(str(tmp_path_factory.mktemp("whole")))
    train(small_run(), digits_once(), storage, single_process(), NEVER)
    return storage


@pytest.mark.parametrize(
    "dies_writing",
    [
        "00000001/weights",
        "00000007/manifest.json",
        "00000015/momentum",
        "00000026/history.json",
        "result.json",
    ],
)
def test_a_killed_and_continued_run_is_the_uninterrupted_one(
    dies_writing: str, tmp_path: Path, uninterrupted: Storage
) -> None:
    run, storage = small_run(), Storage(str(tmp_path))
    with pytest.raises(Killed):
        train(
            run,
            digits_once(),
            DyingStorage(str(tmp_path), dies_writing),
            single_process(),
            EVERY_STEP,
        )
    assert read_result(storage, run) is None
    train(run, digits_once(), storage, single_process(), NEVER)
    assert state(storage, run) == state(uninterrupted, run)


def test_a_damaged_checkpoint_costs_time_not_exactness(
    tmp_path: Path, uninterrupted: Storage
) -> None:
    run, storage = small_run(), Storage(str(tmp_path))
    with pytest.raises(Killed):
        train(
            run,
            digits_once(),
            DyingStorage(str(tmp_path), "00000012/manifest"),
            single_process(),
            EVERY_STEP,
        )
    damaged = f"{folder(run, 11)}/weights.safetensors"
    storage.write(damaged, storage.read(damaged)[:-1])
    result = train(run, digits_once(), storage, single_process(), NEVER)
    assert [attempt["from_iteration"] for attempt in result["attempts"]] == [0, 10]
    assert state(storage, run) == state(uninterrupted, run)


def test_killed_inside_the_window_of_a_warmup_ends_it_at_the_same_iteration(tmp_path: Path) -> None:
    run = small_run(iterations=60, lr_drops=(55,), warmup_lr=0.01, warmup_until_err=89.0)
    whole, storage = Storage(str(tmp_path / "whole")), Storage(str(tmp_path / "killed"))
    result = train(run, digits_once(), whole, single_process(), NEVER)
    assert result["warmup_end"] in (25, 50)
    with pytest.raises(Killed):
        train(
            run,
            digits_once(),
            DyingStorage(storage.uri, "00000013/manifest"),
            single_process(),
            EVERY_STEP,
        )
    assert (
        train(run, digits_once(), storage, single_process(), NEVER)["warmup_end"]
        == result["warmup_end"]
    )
    assert state(storage, run) == state(whole, run)


def test_a_finished_run_is_left_as_it_is(uninterrupted: Storage) -> None:
    run = small_run()
    before = uninterrupted.read(f"{run.folder}/result.json")
    result = train(
        run, digits_once(), DyingStorage(uninterrupted.uri, ""), single_process(), EVERY_STEP
    )
    assert result["status"] == "finished"
    assert uninterrupted.read(f"{run.folder}/result.json") == before


def test_what_is_measured_when(uninterrupted: Storage) -> None:
    run = small_run()
    taken = [(iteration, metric) for iteration, metric, _ in state(uninterrupted, run)[2]]
    assert [i for i, metric in taken if metric == RESPONSE_STD] == [30]
    for quantity in (FORWARD_VARIANCE, CONVOLUTION_VARIANCE, GRADIENT_NORM):
        assert [i for i, metric in taken if metric == quantity] == [0, 15, 23, 30]
    assert [i for i, metric in taken if metric == TEST_ERR] == [10, 15, 20, 23, 30]
    assert [i for i, metric in taken if metric == TRAIN_CLEAN_ERR] == [
        15,
        23,
        30,
    ]  # the drops and the end
    assert VAL_ERR not in {metric for _, metric in taken}
    # One look at iteration 25, of 400 images, and the rule by which it counts.
    result = read_result(uninterrupted, run)
    assert result is not None and result["converging_rule"] == 2
    assert len(result["wrong_counts"]) == 1 and 0 < result["wrong_counts"][0] <= 400
    assert iterations(uninterrupted, run) == [15, 23, 30]


def test_a_holdout_is_scored_as_val(tmp_path: Path) -> None:
    run = small_run(iterations=4, lr_drops=(2, 3), eval_every=4, holdout=137)
    final = train(run, digits_once(), Storage(str(tmp_path)), single_process(), NEVER)["final"]
    assert final[VAL_ERR] == pytest.approx(100 * round(final[VAL_ERR] * 1.37) / 137, abs=1e-9)


def test_another_seed_is_another_result(tmp_path: Path, uninterrupted: Storage) -> None:
    storage = Storage(str(tmp_path))
    train(small_run(seed=1), digits_once(), storage, single_process(), NEVER)
    assert state(storage, small_run(seed=1))[0] != state(uninterrupted, small_run())[0]


def test_a_loss_that_is_not_finite_ends_the_run_as_diverged(tmp_path: Path) -> None:
    run, storage = small_run(lr=1e30), Storage(str(tmp_path))
    result = train(run, digits_once(), storage, single_process(), NEVER)
    assert result["status"] == "diverged"
    assert "no longer finite" in result["reason"]
    assert result["iterations"] < 30
    assert not any(isnan(value) for value in result["final"].values())
    assert read_result(storage, run) == result
    assert {values["iteration"] for values in result["layers"]} == {
        0
    }  # how the signals stood is still known


@pytest.fixture(scope="module")
def by_workers(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[int, tuple[Storage, list[list[str]]]]:
    """Eight batch-norm groups trained by 1, 2, 4 and 8 processes: the storage, and what each rank
    saw.
    """
    found = {}
    for world_size in (1, 2, 4, 8):
        place = tmp_path_factory.mktemp(f"workers{world_size}")
        found[world_size] = Storage(str(place)), trained_by(world_size, place)
    return found


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_any_number_of_workers_ends_with_the_same_bytes(world_size: int, by_workers: dict) -> None:
    run = small_run(**several_groups(8))
    assert state(by_workers[world_size][0], run) == state(by_workers[1][0], run)


@pytest.mark.parametrize("world_size", [2, 8])
def test_any_number_of_workers_sees_the_same_images(world_size: int, by_workers: dict) -> None:
    share = 64 // world_size
    seen = by_workers[world_size][1]
    joined = [
        view for i in range(10) for rank in seen for view in rank[i * share : (i + 1) * share]
    ]
    assert joined == by_workers[1][1][0]
    assert len(set(joined)) > 600


def test_a_run_started_by_two_workers_is_continued_by_one(tmp_path: Path, by_workers: dict) -> None:
    run, storage = small_run(**several_groups(8)), Storage(str(tmp_path))
    two = by_workers[2][0]
    for name in two.names(folder(run, 5)):
        storage.write(f"{folder(run, 5)}/{name}", two.read(f"{folder(run, 5)}/{name}"))
    result = train(run, digits_once(), storage, single_process(), NEVER)
    assert [(a["from_iteration"], a["world_size"]) for a in result["attempts"]] == [(0, 2), (5, 1)]
    assert state(storage, run) == state(by_workers[1][0], run)


def test_two_workers_in_one_pass_each_agree_with_the_exact_step_and_say_so(tmp_path: Path) -> None:
    run = small_run(**(several_groups(8) | dict(iterations=1, lr_drops=(), eval_every=1)))
    exact, one_pass = Storage(str(tmp_path / "exact")), Storage(str(tmp_path))
    result = train(run, digits_once(), exact, single_process(), NEVER)
    trained_by(2, tmp_path, run, Execution(one_pass=True))
    result_too = read_result(one_pass, run)
    assert result_too is not None
    (attempt,) = result_too["attempts"]
    assert (attempt["from_iteration"], attempt["world_size"], attempt["one_pass"]) == (0, 2, True)
    assert "one_pass" not in result["attempts"][0]
    assert result_too["final"][TRAIN_LOSS] == pytest.approx(result["final"][TRAIN_LOSS], rel=1e-6)
    (weights, momentum, _), (weights_too, momentum_too, _) = state(exact, run), state(one_pass, run)
    for content, content_too in ((weights, weights_too), (momentum, momentum_too)):
        torch.testing.assert_close(load(content_too), load(content), rtol=1e-4, atol=1e-6)


def test_a_run_whose_workers_are_about_to_go_saves_at_once_and_continues_to_the_same_bytes(
    tmp_path: Path,
) -> None:
    run = small_run(iterations=60, lr_drops=(30, 45), eval_every=20)
    whole, storage = Storage(str(tmp_path / "whole")), Storage(str(tmp_path))
    train(run, digits_once(), whole, single_process(), NEVER)
    warned = Attempt(preempted=lambda: True)
    left = train(run, digits_once(), storage, single_process(), NEVER, warned)
    assert left == {"status": "preempted"} and read_result(storage, run) is None
    assert iterations(storage, run) == [25]
    result = train(run, digits_once(), storage, single_process(), NEVER)
    assert [a["from_iteration"] for a in result["attempts"]] == [0, 25]
    assert state(storage, run) == state(whole, run)


def test_a_run_is_not_continued_with_other_software_unless_that_is_allowed(tmp_path: Path) -> None:
    run, storage = (
        small_run(iterations=60, lr_drops=(30, 45), eval_every=20),
        Storage(str(tmp_path)),
    )
    here = {
        "commit": "a" * 40,
        "hardware": "one CPU",
        "versions": {"torch": "2.14.1", "mlflow": "3.17"},
    }
    train(
        run,
        digits_once(),
        storage,
        single_process(),
        NEVER,
        Attempt(provenance=here, preempted=lambda: True),
    )
    there = here | {"hardware": "another CPU", "versions": {"torch": "2.15.0", "mlflow": "4.0"}}
    with pytest.raises(
        InputError,
        match=r"hardware: one CPU then, another CPU now, torch: 2.14.1 then.*--allow-drift",
    ):
        train(run, digits_once(), storage, single_process(), NEVER, Attempt(provenance=there))
    result = train(
        run,
        digits_once(),
        storage,
        single_process(),
        replace(NEVER, allow_drift=True),
        Attempt(provenance=there),
    )
    assert "drift" not in result["attempts"][0]
    assert (
        result["attempts"][1]["drift"]
        == "hardware: one CPU then, another CPU now, torch: 2.14.1 then, 2.15.0 now"
    )


def test_saving_records_how_long_training_stood_still(tmp_path: Path) -> None:
    result = train(
        small_run(),
        digits_once(),
        Storage(str(tmp_path)),
        single_process(),
        Execution(checkpoint_seconds=0),
    )
    assert result["attempts"][0]["checkpoint_stall_ms"] > 0
