"""The newest checkpoint that verifies wins; damaged ones are passed over, foreign refused."""

from collections.abc import Callable
from dataclasses import replace
from json import dumps, loads
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.metrics import TEST_ERR
from pipeline.runs.checkpoint import (
    Checkpoint,
    folder,
    iterations,
    newest_checkpoint,
    newest_history,
    save_checkpoint,
)
from pipeline.runs.history import History
from pipeline.runs.run import Run
from pipeline.storage import Storage

ROW = replace(EXPERIMENTS["resnet20"], iterations=100, lr_drops=(50, 75))
RUN = Run(ROW, "0123456789abcdef", "tiny-01234567", 3)


def checkpoint(iteration: int) -> Checkpoint:
    history = History(iteration=iteration)
    history.record({TEST_ERR: iteration / 3}, time_ms=1)
    files = {
        "weights": bytes([iteration]) * 500,
        "momentum": b"",
        "history.json": history.to_json(),
    }
    return Checkpoint(iteration, files)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """Storage with checkpoints after 10 and 20 iterations."""
    storage = Storage(str(tmp_path))
    for iteration in (10, 20):
        save_checkpoint(storage, RUN, checkpoint(iteration))
    return storage


def test_there_is_none_before_the_first(tmp_path: Path) -> None:
    assert newest_checkpoint(Storage(str(tmp_path)), RUN) is None
    assert newest_history(Storage(str(tmp_path)), RUN) is None


def test_the_newest_is_read_back_whole(storage: Storage) -> None:
    assert newest_checkpoint(storage, RUN) == checkpoint(20)
    assert newest_history(storage, RUN) == History.from_json(checkpoint(20).files["history.json"])


@pytest.mark.parametrize(
    "damage",
    [lambda c: c[:-1], lambda c: c + b"x", lambda c: c[:9] + b"!" + c[10:], lambda c: b"", None],
)
def test_a_damaged_or_missing_file_falls_back_to_the_older_one(
    storage: Storage, damage: Callable[[bytes], bytes] | None
) -> None:
    path = f"{folder(RUN, 20)}/weights"
    if damage is None:
        storage.delete(path)
    else:
        storage.write(path, damage(storage.read(path)))
    assert newest_checkpoint(storage, RUN) == checkpoint(10)


def test_one_without_a_manifest_is_half_written(storage: Storage) -> None:
    storage.delete(f"{folder(RUN, 20)}/manifest.json")
    assert newest_checkpoint(storage, RUN) == checkpoint(10)
    history = newest_history(storage, RUN)
    assert history is not None
    assert history.iteration == 10


def test_all_damaged_means_none(storage: Storage) -> None:
    for iteration in (10, 20):
        storage.write(f"{folder(RUN, iteration)}/weights", b"")
    assert newest_checkpoint(storage, RUN) is None


def test_a_repaired_iteration_can_be_saved_again(storage: Storage) -> None:
    storage.write(f"{folder(RUN, 20)}/weights", b"")
    save_checkpoint(storage, RUN, checkpoint(20))
    assert newest_checkpoint(storage, RUN) == checkpoint(20)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff", b'{"format": "resnet-repro'])
def test_a_manifest_that_cannot_be_parsed_is_damage(storage: Storage, content: bytes) -> None:
    storage.write(f"{folder(RUN, 20)}/manifest.json", content)
    assert newest_checkpoint(storage, RUN) == checkpoint(10)


def test_a_foreign_folder_is_refused(storage: Storage) -> None:
    storage.write(f"{RUN.folder}/checkpoints/epoch_3/model.pt", b"")
    with pytest.raises(InputError, match="epoch_3: not a checkpoint of ours; move it away"):
        newest_checkpoint(storage, RUN)


@pytest.mark.parametrize("content", [b"[]", b"{}", b'{"format": "other/1"}'])
def test_a_foreign_manifest_is_refused(storage: Storage, content: bytes) -> None:
    storage.write(f"{folder(RUN, 20)}/manifest.json", content)
    with pytest.raises(InputError, match="not a checkpoint of ours"):
        newest_checkpoint(storage, RUN)


def test_another_runs_checkpoint_is_refused(storage: Storage) -> None:
    path = f"{folder(RUN, 20)}/manifest.json"
    manifest = loads(storage.read(path))
    manifest["identity"]["seed"] = 4
    storage.write(path, dumps(manifest).encode())
    with pytest.raises(InputError, match=r"a checkpoint of another run .*'seed': 4"):
        newest_checkpoint(storage, RUN)


def test_the_last_two_and_the_milestones_are_kept(tmp_path: Path) -> None:
    storage, kept = Storage(str(tmp_path)), []
    for iteration in (10, 20, 50, 60, 70, 75, 80, 90, 100):
        save_checkpoint(storage, RUN, checkpoint(iteration))
        kept.append(sorted(iterations(storage, RUN)))
    assert kept[2:] == [
        [10, 20, 50],
        [20, 50, 60],
        [50, 60, 70],
        [50, 60, 70, 75],
        [50, 70, 75, 80],
        [50, 75, 80, 90],
        [50, 75, 80, 90, 100],
    ]


def test_unfinished_ones_ahead_never_take_the_place_of_a_finished_one(storage: Storage) -> None:
    for iteration in (28, 30):  # of attempts that got further and died while they wrote
        storage.write(f"{folder(RUN, iteration)}/weights", b"half")
    save_checkpoint(storage, RUN, checkpoint(26))
    assert iterations(storage, RUN) == [20, 26]
    assert newest_checkpoint(storage, RUN) == checkpoint(26)
