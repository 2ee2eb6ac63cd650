"""CIFAR as torchvision leaves it, unpacked: official by each file's md5 before a pickle is opened,
or compared with an archive.
"""

import os
import pickle
from pathlib import Path

import pytest

from pipeline.data.catalogue import cifar10, cifar100
from pipeline.data.catalogue.cifar_archives import CifarArchives
from pipeline.data.download import md5_of
from pipeline.data.preparation import prepare, source_notes, verify_against
from pipeline.data.progress import silent
from pipeline.errors import InputError
from pipeline.storage import Storage
from tests.conftest import Cli
from tests.pipeline.data import test_cifar10_binary as binary10
from tests.pipeline.data import test_cifar10_python as python10
from tests.pipeline.data import test_cifar100 as of_cifar100


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "storage"))


def python_folder(root: Path) -> Path:
    """`cifar-10-batches-py` with three images a batch."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, batch in python10.batches().items():
        (folder / name).write_bytes(python10.by_python2(batch))
    (folder / "batches.meta").write_bytes(b"never opened")
    (folder / "readme.html").write_text("<p>")
    return folder


def binary_folder(root: Path) -> Path:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name, content in binary10.members().items():
        (folder / name).write_bytes(content)
    return folder


def taken_for_official(patched: pytest.MonkeyPatch, archives: CifarArchives, folder: Path) -> None:
    for name in (*archives.train, archives.test):
        patched.setitem(archives.file_checksums, name, md5_of(folder / name))


def test_the_md5s_are_torchvisions() -> None:
    from torchvision.datasets import CIFAR10, CIFAR100

    for archives, theirs in ((cifar10.ARCHIVES, CIFAR10), (cifar100.ARCHIVES, CIFAR100)):
        published = dict(theirs.train_list + theirs.test_list)
        assert archives.file_checksums == published
        assert archives.python_folder == theirs.base_folder


@pytest.mark.parametrize("named", ["itself", "root", "renamed"])
def test_official_files_of_an_unpacked_archive_are_comparable(
    named: str, tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = python_folder(tmp_path / "data")
    taken_for_official(monkeypatch, cifar10.ARCHIVES, folder)
    if named == "renamed":
        folder = folder.rename(tmp_path / "data" / "batches")
    path = folder.parent if named == "root" else folder
    manifest = prepare(storage, "cifar10", path, False, silent)
    assert manifest["id"] == binary10.EXPECTED.id
    assert manifest["row"]["comparable"] and manifest["row"]["name"] == "cifar10"


def test_a_file_of_another_md5_is_never_unpickled(
    cli: Cli, tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, touched = python_folder(tmp_path), tmp_path / "touched"
    taken_for_official(monkeypatch, cifar10.ARCHIVES, folder)
    evil = pickle.dumps(python10.Evil(os.system, f"touch {touched}"))
    (folder / "data_batch_4").write_bytes(evil)
    with pytest.raises(InputError, match="data_batch_4: md5 ") as error:
        prepare(storage, "cifar10", folder, False, silent)
    assert "which is not opened" in str(error.value) and not touched.exists()
    done = cli("data", "prepare", "cifar10", "--from", folder, "--storage", storage.uri)
    assert done.returncode == 2 and not touched.exists()
    assert "c99cafc152244af753f735de768cd75f" in done.stderr  # of data_batch_1, as published


def test_even_an_official_pickle_is_opened_by_the_reader_that_rebuilds_arrays_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, touched = python_folder(tmp_path), tmp_path / "touched"
    evil = pickle.dumps(python10.Evil(os.system, f"touch {touched}"))
    (folder / "test_batch").write_bytes(evil)
    taken_for_official(monkeypatch, cifar10.ARCHIVES, folder)
    with pytest.raises(InputError, match=r"its pickle names .*\.system"):
        cifar10.ARCHIVES.read(folder)
    assert not touched.exists()


def test_a_binary_folder_becomes_comparable_by_the_archive(
    tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = binary_folder(tmp_path / "data")
    manifest = prepare(storage, "cifar10", folder, False, silent)
    assert (manifest["id"], manifest["row"]["name"]) == (binary10.EXPECTED.id, "cifar10-bin")
    assert not manifest["row"]["comparable"]
    (note,) = source_notes(manifest, folder)
    assert "data verify cifar10-bin --against cifar-10-binary.tar.gz" in note
    with pytest.raises(InputError, match="no published checksums; name an official archive"):
        verify_against(storage, manifest, folder)
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(binary10.archive(binary10.members()))
    monkeypatch.setitem(cifar10.ARCHIVES.checksums, archive.name, md5_of(archive))
    assert verify_against(storage, manifest, archive)["row"]["comparable"]


def test_a_python_folder_verifies_a_copy_as_an_archive_does(
    tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = python_folder(tmp_path / "data")
    taken_for_official(monkeypatch, cifar10.ARCHIVES, folder)
    copy = prepare(storage, "cifar10", binary_folder(tmp_path / "copy"), False, silent)
    assert verify_against(storage, copy, folder)["row"]["comparable"]


def test_cifar_100_comes_unpacked_too(
    tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in (("python", of_cifar100.pickled()), ("binary", of_cifar100.binary())):
        folder = tmp_path / name / f"cifar-100-{name}"
        folder.mkdir(parents=True)
        for member, inside in cifar_members(content).items():
            (folder / member).write_bytes(inside)
        if name == "python":
            taken_for_official(monkeypatch, cifar100.ARCHIVES, folder)
        manifest = prepare(storage, "cifar100", folder.parent, False, silent)
        assert manifest["id"] == of_cifar100.EXPECTED.id and not manifest["row"]["comparable"]
        assert source_notes(manifest, folder.parent) == []


def cifar_members(content: bytes) -> dict[str, bytes]:
    from pipeline.data.catalogue.cifar_archives import _members

    return _members(content, "here")


@pytest.mark.parametrize("make", [python_folder, binary_folder])
def test_a_missing_or_cut_file_is_one_line(
    make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path)
    if make is python_folder:
        taken_for_official(monkeypatch, cifar10.ARCHIVES, folder)
    (file,) = folder.glob("data_batch_3*")
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(InputError, match=r"data_batch_3: md5|data_batch_3\.bin is 9218 bytes"):
        cifar10.ARCHIVES.read(folder)
    file.unlink()
    with pytest.raises(InputError, match=rf"holds no {file.name}"):
        cifar10.ARCHIVES.read(folder)


def test_an_archive_beside_what_was_unpacked_of_it_is_read_once(
    tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`torchvision.datasets.CIFAR10(root, download=True)` leaves both."""
    python_folder(tmp_path / "data")
    archive = tmp_path / "data" / "cifar-10-python.tar.gz"
    archive.write_bytes(python10.pickled(python10.batches()))
    monkeypatch.setitem(cifar10.ARCHIVES.checksums, archive.name, md5_of(archive))
    manifest = prepare(storage, "cifar10", archive.parent, False, silent)
    assert manifest["id"] == binary10.EXPECTED.id
    assert source_notes(manifest, archive.parent) == [
        "read: cifar-10-python.tar.gz; beside it and not read: cifar-10-batches-py/"
    ]


def test_a_folder_of_something_else_is_one_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "cifar" / "train" / "cat").mkdir(parents=True)
    (tmp_path / "cifar" / "notes.txt").write_text("hello")
    done = cli("data", "prepare", "mine", "--from", tmp_path / "cifar", "--storage", tmp_path / "s")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert "expected train*.parquet" in done.stderr and "notes.txt, train/" in done.stderr
