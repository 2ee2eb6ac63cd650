"""A run's folder says what it is and what is left to do; another run's files in it are refused."""

from dataclasses import replace
from json import loads
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.metrics import LR, TEST_ERR
from pipeline.runs.history import History, cost_of
from pipeline.runs.run import (
    Run,
    read_heartbeat,
    read_result,
    start_run,
    write_heartbeat,
    write_result,
)
from pipeline.storage import Storage

ROW = EXPERIMENTS["resnet20"]
RUN = Run(ROW, "0123456789abcdef", "tiny-01234567", 3)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


def test_row_dataset_and_seed_each_make_another_run_in_another_folder() -> None:
    others = [
        RUN,
        replace(RUN, experiment=replace(ROW, lr=0.05)),
        replace(RUN, dataset_id="fedcba9876543210", dataset_key="tiny-fedcba98"),
        replace(RUN, seed=4),
    ]
    assert len({run.folder for run in others}) == len({run.key for run in others}) == 4
    assert RUN.folder == "runs/resnet20-c289b6b5/tiny-01234567/seed-3"


def test_threads_are_fixed_at_the_first_start(storage: Storage) -> None:
    assert start_run(storage, RUN, threads=2) == 2
    assert start_run(storage, RUN, threads=8) == 2
    assert loads(storage.read(f"{RUN.folder}/run.json"))["experiment"]["lr"] == 0.1


def test_a_result_is_there_when_nothing_is_left_to_do(storage: Storage) -> None:
    assert read_result(storage, RUN) is None
    written = write_result(storage, RUN, "finished", {"iterations": 100, "final": {TEST_ERR: 8.75}})
    assert read_result(storage, RUN) == written
    assert (written["status"], written["identity"]) == ("finished", RUN.identity)


@pytest.mark.parametrize("file", ["run.json", "result.json"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"[1]", b'{"format": "other"}', b"\xff"])
def test_a_foreign_file_is_refused(storage: Storage, file: str, content: bytes) -> None:
    storage.write(f"{RUN.folder}/{file}", content)
    with pytest.raises(InputError, match="not a file of ours; move it away"):
        start_run(storage, RUN, 1) if file == "run.json" else read_result(storage, RUN)


def test_another_runs_files_are_refused(storage: Storage) -> None:
    other = replace(RUN, experiment=replace(ROW, lr=0.05))
    start_run(storage, other, 1)
    write_result(storage, other, "finished", {"iterations": 100})
    for file in ("run.json", "result.json"):
        storage.write(f"{RUN.folder}/{file}", storage.read(f"{other.folder}/{file}"))
    with pytest.raises(InputError, match=r"run\.json: belongs to another run"):
        start_run(storage, RUN, 1)
    with pytest.raises(InputError, match=r"result\.json: belongs to another run"):
        read_result(storage, RUN)


def test_heartbeat_round_trip_and_a_torn_one_is_none(storage: Storage) -> None:
    assert read_heartbeat(storage, RUN) is None
    write_heartbeat(storage, RUN, 40, 123.5, 1_700_000_000_000)
    assert read_heartbeat(storage, RUN) == {
        "iteration": 40,
        "images_per_second": 123.5,
        "time_ms": 1_700_000_000_000,
    }
    storage.write(f"{RUN.folder}/progress.json", b'{"iterat')
    assert read_heartbeat(storage, RUN) is None


def test_a_history_round_trips_to_the_last_digit() -> None:
    history = History(iteration=7, warmup_end=400, seconds=0.1 + 0.2, attempts=[{"world_size": 2}])
    history.record({TEST_ERR: 100 / 3, LR: 0.1}, time_ms=12)
    assert History.from_json(history.to_json()) == history
    history.record({TEST_ERR: 8.75}, time_ms=13)
    assert history.last() == {TEST_ERR: 8.75, LR: 0.1}


def test_a_metric_nobody_has_named_is_not_recorded() -> None:
    with pytest.raises(KeyError, match="accuracy"):
        History().record({"accuracy": 1.0}, time_ms=0)


def test_a_run_costs_what_all_its_attempts_recorded() -> None:
    first, second = {"device_seconds": 2.5, "joules": 100}, {"device_seconds": 1, "joules": 50.5}
    assert cost_of([first, second]) == {"device_seconds": 3.5, "joules": 150.5}
    assert cost_of([first, {"device_seconds": 1}]) == {"device_seconds": 3.5}
    assert cost_of([{}, first]) == cost_of([]) == {}
    assert cost_of([{"device_seconds": "2", "joules": float("nan")}]) == {}
