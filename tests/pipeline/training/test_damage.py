"""Damage that a run survives: broken checkpoints, full, read-only and vanished storage, pickles in
the place of state.
"""

import os
import pickle
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import sleep

import pytest

from pipeline.errors import InputError, StorageLostError
from pipeline.recipe.metrics import IMAGES_PER_SECOND
from pipeline.runs import lease
from pipeline.runs.checkpoint import folder, iterations, newest_checkpoint
from pipeline.runs.execution import Attempt, Execution
from pipeline.runs.history import History
from pipeline.runs.lease import Lease
from pipeline.runs.run import Run
from pipeline.storage import Storage
from pipeline.training import run_writer
from pipeline.training.loop import train
from pipeline.training.step.process_group import single_process
from tests.pipeline.training.small_runs import digits_once, small_run

FILES = ("weights.safetensors", "momentum.safetensors", "history.json", "manifest.json")
EVERY = Execution(checkpoint_seconds=0)


def outcome(storage: Storage, run: Run) -> tuple[bytes, bytes, list[tuple[int, str, float]]]:
    newest = newest_checkpoint(storage, run)
    assert newest is not None and newest.iteration == run.experiment.iterations
    points = History.from_json(newest.files["history.json"]).points
    measured = [(p.iteration, p.metric, p.value) for p in points if p.metric != IMAGES_PER_SECOND]
    return newest.files["weights.safetensors"], newest.files["momentum.safetensors"], measured


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """A run of 30 iterations that was never disturbed."""
    storage = Storage(str(tmp_path_factory.mktemp("undisturbed")))
    assert (
        train(small_run(), digits_once(), storage, single_process(), EVERY)["status"] == "finished"
    )
    return storage


def unfinished(finished: Storage, place: Path) -> Storage:
    """The same run as it stood before its end: its checkpoints at the lr drops alone."""
    storage, run = Storage(str(place)), small_run()
    for iteration in run.experiment.lr_drops:
        for name in FILES:
            path = f"{folder(run, iteration)}/{name}"
            storage.write(path, finished.read(path))
    return storage


def damages() -> Iterator[tuple[str, str, Callable[[bytes], bytes | None]]]:
    for name in FILES:
        for tenth in range(10):
            yield (
                f"{name} cut at {tenth}/10",
                name,
                lambda content, t=tenth: content[: len(content) * t // 10],
            )
        for place in (0, 0.5, 0.99):
            yield (
                f"{name} with a flipped bit at {place}",
                name,
                lambda content, p=place: flipped(content, p),
            )
        yield f"{name} missing", name, lambda content: None


def flipped(content: bytes, place: float) -> bytes:
    at = int(len(content) * place)
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    ("name", "damage"), [d[1:] for d in damages()], ids=[d[0] for d in damages()]
)
def test_a_damaged_checkpoint_is_passed_over_or_refused_in_a_line_and_nothing_older_is_lost(
    finished: Storage, tmp_path: Path, name: str, damage: Callable[[bytes], bytes | None]
) -> None:
    storage, run = unfinished(finished, tmp_path), small_run()
    newest = max(iterations(storage, run))
    path = f"{folder(run, newest)}/{name}"
    content = damage(storage.read(path))
    if content is None:
        storage.delete(path)
    else:
        storage.write(path, content)
    said: list[str] = []
    try:
        found = newest_checkpoint(storage, run, said.append)
        assert said == [] if (name, content) == ("manifest.json", None) else "is damaged" in said[0]
    except (
        InputError
    ) as error:  # a manifest that is not ours any more: nobody's work is skipped over in silence
        assert name == "manifest.json" and "\n" not in str(error) and "move it away" in str(error)
        assert content is not None and len(content) == len(
            finished.read(path)
        )  # it can still be read
        storage.delete(folder(run, newest))
        found = newest_checkpoint(storage, run)
    assert found is not None and found.iteration == min(run.experiment.lr_drops)


def test_a_run_with_a_damaged_newest_checkpoint_ends_with_the_same_bytes(
    finished: Storage, tmp_path: Path
) -> None:
    storage, run = unfinished(finished, tmp_path), small_run()
    path = f"{folder(run, max(iterations(storage, run)))}/momentum.safetensors"
    storage.write(path, storage.read(path)[:-1])
    result = train(run, digits_once(), storage, single_process(), EVERY)
    assert result["attempts"][-1]["from_iteration"] == min(run.experiment.lr_drops)
    assert outcome(storage, run) == outcome(finished, run)


@pytest.mark.skipif(
    os.geteuid() != 0, reason="a full disk is a small tmpfs, which root alone can mount"
)
def test_a_full_disk_stops_a_run_in_a_line_and_more_room_continues_it(
    finished: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_writer, "PATIENCE_SECONDS", 1.0)
    disk, run = tmp_path / "disk", small_run()
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(disk)], check=True)
    try:
        storage = Storage(str(disk))
        filler = disk / "filler"
        filler.write_bytes(b"x" * 700_000)
        with pytest.raises(
            StorageLostError, match=r"No space left on device.*give the same command again"
        ):
            train(run, digits_once(), storage, single_process(), EVERY)
        before = newest_checkpoint(storage, run)
        assert not list(disk.rglob("*.partial"))
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        result = train(run, digits_once(), storage, single_process(), EVERY)
        assert result["attempts"][-1]["from_iteration"] == (before.iteration if before else 0)
        assert outcome(storage, run) == outcome(finished, run)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_storage_that_is_away_for_a_while_costs_nothing(
    finished: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_writer, "RETRY_SECONDS", 0.1)
    storage, run, away = Storage(str(tmp_path)), small_run(), threading.Event()
    away.set()
    write = Storage.write

    def failing(self: Storage, path: str, content: bytes) -> None:
        if away.is_set() and "/checkpoints/" in path:
            raise OSError(5, "Input/output error")
        write(self, path, content)

    monkeypatch.setattr(Storage, "write", failing)
    threading.Timer(1.5, away.clear).start()
    assert train(run, digits_once(), storage, single_process(), EVERY)["status"] == "finished"
    assert outcome(storage, run) == outcome(finished, run)


@pytest.mark.parametrize("comes_back", [True, False])
def test_storage_that_disappears_during_the_run(
    finished: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes_back: bool
) -> None:
    monkeypatch.setattr(run_writer, "RETRY_SECONDS", 0.1)
    monkeypatch.setattr(run_writer, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(run_writer, "PATIENCE_SECONDS", 30.0 if comes_back else 1.0)
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.1)
    here, away, run = tmp_path / "here", tmp_path / "away", small_run()
    storage = Storage(str(here))

    def disappear() -> None:
        while not storage.exists(f"{folder(run, 7)}/manifest.json"):
            sleep(0.01)
        here.rename(away)
        if comes_back:
            sleep(1.5)
            while (
                away.exists()
            ):  # what was written in between, as below a mount point, is hidden when it is back
                shutil.rmtree(here, ignore_errors=True)
                with suppress(OSError):
                    away.rename(here)

    with Lease(storage, run) as held:
        thread = threading.Thread(target=disappear)
        thread.start()
        writes = (Execution(checkpoint_seconds=0), Attempt(holder=held.holder))
        if comes_back:
            assert (
                train(run, digits_once(), storage, single_process(), *writes)["status"]
                == "finished"
            )
        else:
            with pytest.raises(
                StorageLostError, match=r"lease.json is gone.*give the same command again"
            ):
                train(run, digits_once(), storage, single_process(), *writes)
        thread.join()
    if not comes_back:
        assert not here.exists()  # nothing was begun anew where the storage had been
        away.rename(here)
        with Lease(storage, run) as held:
            result = train(
                run, digits_once(), storage, single_process(), attempt=Attempt(holder=held.holder)
            )
        assert result["attempts"][-1]["from_iteration"] >= 7
    assert outcome(storage, run) == outcome(finished, run)


def test_read_only_storage_is_refused_in_a_line(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(tmp_path)], check=True)
    else:
        tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match=r"cannot be written .*name another place"):
            Storage(str(tmp_path)).check_writable()
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", str(tmp_path)], check=True)
        else:
            tmp_path.chmod(0o700)


class Mark:
    """Unpickled, it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (os.system, (f"touch {self.path}",))


@pytest.mark.parametrize("name", FILES)
def test_a_pickle_where_state_is_expected_is_never_loaded(
    finished: Storage, tmp_path: Path, name: str
) -> None:
    mark, run = tmp_path / "mark", small_run()
    storage = unfinished(finished, tmp_path / "storage")
    storage.write(f"{folder(run, max(iterations(storage, run)))}/{name}", pickle.dumps(Mark(mark)))
    try:
        train(run, digits_once(), storage, single_process(), EVERY)
    except InputError as error:
        assert name == "manifest.json" and "\n" not in str(error)
    sleep(0.2)
    assert not mark.exists()
