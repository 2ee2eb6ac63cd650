"""A node takes a dataset from remote storage once, whatever happens to its copy, and a copy is
never needed.
"""

import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from pyarrow import fs

from pipeline.data import staging
from pipeline.data.datasets import Dataset
from pipeline.data.staging import staged_dataset
from pipeline.data.stored import images_path, write_dataset
from pipeline.errors import InputError
from pipeline.storage import Storage
from tests.pipeline.training.small_runs import digits_once

ID = "186de2c683d404c1"


class RemoteStorage(Storage):
    """A folder behind a file system that is not pyarrow's local one, as an object store is; notes
    and delays transfers.
    """

    def __init__(self, folder: Path, delay: float = 0.0) -> None:
        super().__init__(str(folder))
        self._files = fs.SubTreeFileSystem("/", fs.LocalFileSystem())
        self.local, self._notes, self._delay = None, folder.with_name("transfers"), delay

    def read(self, path: str, most: int | None = None) -> bytes:
        if path == images_path(ID):
            with self._notes.open("a") as notes:
                notes.write(f"{os.getpid()}\n")
            time.sleep(self._delay)
        return super().read(path, most)

    @property
    def transfers(self) -> int:
        return len(self._notes.read_text().splitlines()) if self._notes.exists() else 0


@pytest.fixture
def remote(tmp_path: Path) -> RemoteStorage:
    """Remote storage with the digits in it."""
    write_dataset(Storage(str(tmp_path / "bucket")), digits_once(), {"kind": "embedded"})
    return RemoteStorage(tmp_path / "bucket")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def assert_digits(dataset: Dataset) -> None:
    digits = digits_once()
    assert (dataset.id, dataset.spec) == (digits.id, digits.spec)
    for split, expected in ((dataset.train, digits.train), (dataset.test, digits.test)):
        assert np.array_equal(split.pixels, expected.pixels) and np.array_equal(
            split.labels, expected.labels
        )


def test_local_storage_is_read_in_place(storage: Storage, folder: Path) -> None:
    assert_digits(staged_dataset(storage, ID, folder))
    assert not folder.exists()


def test_the_second_run_reads_the_copy_of_the_first(
    remote: RemoteStorage, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        assert_digits(staged_dataset(remote, ID, folder))
    assert remote.transfers == 1
    assert (folder / images_path(ID)).read_bytes() == Path(
        remote.path(images_path(ID))
    ).read_bytes()
    assert not caplog.messages


def stage_with_others(bucket: Path, folder: Path, together: Barrier) -> None:
    """A worker of a node, in a process of its own; storage takes its time, so that the others come
    meanwhile.
    """
    together.wait(60)
    assert len(staged_dataset(RemoteStorage(bucket, delay=1.0), ID, folder).train) == 1437


def test_two_workers_at_once_make_one_transfer(remote: RemoteStorage, folder: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    told = (Path(remote.uri), folder, spawn.Barrier(2))
    workers = [spawn.Process(target=stage_with_others, args=told) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert remote.transfers == 1


@pytest.mark.parametrize(
    "damage",
    [lambda c: c[:-1], lambda c: c[:5000] + bytes([c[5000] ^ 1]) + c[5001:], lambda c: b""],
)
def test_a_damaged_copy_is_replaced(
    remote: RemoteStorage,
    folder: Path,
    damage: Callable[[bytes], bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    staged_dataset(remote, ID, folder)
    copy = folder / images_path(ID)
    whole = copy.read_bytes()
    copy.write_bytes(damage(whole))
    assert_digits(staged_dataset(remote, ID, folder))
    assert (copy.read_bytes(), remote.transfers) == (whole, 2)
    assert not caplog.messages


def test_a_copy_of_other_bytes_than_the_manifest_names_is_replaced(
    remote: RemoteStorage, folder: Path
) -> None:
    digits = digits_once()
    flipped = Dataset(digits.spec, digits.test, digits.train, digits.id)
    write_dataset(Storage(str(folder)), flipped, {})
    assert_digits(staged_dataset(remote, ID, folder))
    assert_digits(staged_dataset(remote, ID, folder))
    assert remote.transfers == 1


def test_what_is_damaged_in_storage_is_refused_and_not_kept(
    remote: RemoteStorage, folder: Path
) -> None:
    Path(remote.path(images_path(ID))).write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"damaged \(checksum differs\)"):
        staged_dataset(remote, ID, folder)
    assert not (folder / images_path(ID)).exists()


def test_a_copy_is_no_dataset_where_storage_has_none(remote: RemoteStorage, folder: Path) -> None:
    staged_dataset(remote, ID, folder)
    Path(remote.path(f"datasets/{ID}/manifest.json")).unlink()
    with pytest.raises(InputError, match="data prepare"):
        staged_dataset(remote, ID, folder)


@pytest.mark.parametrize("place", ["/proc/nowhere", "FILE/below"])
def test_a_folder_that_cannot_be_made_costs_a_warning(
    remote: RemoteStorage, tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert_digits(staged_dataset(remote, ID, Path(place.replace("FILE", str(tmp_path / "file")))))
    assert remote.transfers == 1
    (said,) = caplog.messages
    assert "no copy is kept" in said and "\n" not in said


@contextmanager
def files_no_larger_than(limit: int) -> Iterator[None]:
    """Writes beyond the limit fail in this process, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_copy_that_does_not_fit_costs_a_warning_and_leaves_nothing(
    remote: RemoteStorage, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with files_no_larger_than(500_000):
        assert_digits(staged_dataset(remote, ID, folder))
    assert remote.transfers == 1
    (said,) = caplog.messages
    assert "File too large" in said
    assert [file.suffix for file in folder.rglob("*") if file.is_file()] == [".lock"]


def test_another_transfer_is_not_waited_for_without_end(
    remote: RemoteStorage,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(staging, "WAIT_SECONDS", 0.1)
    lock = folder / f"{images_path(ID)}.lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        assert_digits(staged_dataset(remote, ID, folder))
    assert remote.transfers == 1
    (said,) = caplog.messages
    assert "could not be acquired" in said


def test_without_a_folder_storage_is_read(
    remote: RemoteStorage, caplog: pytest.LogCaptureFixture
) -> None:
    assert_digits(staged_dataset(remote, ID, None))
    assert remote.transfers == 1 and not caplog.messages
