"""Archives of anyone's: one line, within a few seconds and megabytes, whatever they claim."""

import gzip
import os
import resource
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from time import process_time

import pytest

from pipeline.data.catalogue.cifar10 import ARCHIVES
from pipeline.data.catalogue.fashion_mnist import fashion_mnist
from pipeline.data.photo_parts import TarPart, tar_members
from pipeline.data.photo_sources import list_source
from pipeline.data.sources import tar_archives, validation_labels
from pipeline.errors import InputError
from tests.pipeline.data.photographs import as_tars, pictures

GIGABYTES = 10 << 30
BLOCK = 512


def entry(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """A header as it stands, whatever follows it."""
    about = tarfile.TarInfo(name)
    about.size, about.type, about.linkname = size, kind, link
    return about.tobuf(tarfile.GNU_FORMAT)


END = bytes(2 * BLOCK)
CONTENT = b"x" * BLOCK
HOSTILE = {
    "traversal": entry("../../etc/passwd", BLOCK) + CONTENT + END,
    "absolute": entry("/etc/passwd", BLOCK) + CONTENT + END,
    "links": entry("a", 0, tarfile.SYMTYPE, "/etc/passwd")
    + entry("b", 0, tarfile.LNKTYPE, "a")
    + END,
    "devices": entry("a", 0, tarfile.CHRTYPE) + entry("b", 0, tarfile.FIFOTYPE) + END,
    "claims 10 GB": entry("n1.tar", GIGABYTES) + CONTENT + END,
    "a header of 10 GB": entry("././@PaxHeader", GIGABYTES, tarfile.XHDTYPE) + CONTENT + END,
    "a name of 10 GB": entry("././@LongLink", GIGABYTES, tarfile.GNUTYPE_LONGNAME) + CONTENT + END,
    "negative": entry("a", 0).replace(b"00000000000\0", b"-0000000001\0", 1) + END,
    "nothing": b"",
    "zeros": bytes(10 * BLOCK),
    "noise": bytes(range(256)) * 40,
}


def many(count: int) -> bytes:
    """So many empty members."""
    return entry("a") * count + END


@contextmanager
def bounded(seconds: float = 20.0) -> Iterator[None]:
    """Fail where it took longer, or took a gigabyte; as this process counts them."""
    began, before = process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert process_time() - began < seconds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # kilobytes


def refused(call: Callable[[], object]) -> str:
    with bounded(), pytest.raises(InputError) as error:
        call()
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    return str(error.value)


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "ILSVRC2012_img_train.tar"
    path.write_bytes(HOSTILE[kind])
    refused(lambda: tar_members(path))
    packed = gzip.compress(HOSTILE[kind])
    refused(lambda: ARCHIVES.binary_members(packed, "here"))
    refused(lambda: ARCHIVES.python_members(packed, "here"))
    path = tmp_path / "devkit.tar.gz"
    path.write_bytes(packed)
    refused(lambda: validation_labels.read_devkit(path))
    part = TarPart("train", str(path), (), nested=True)
    assert list(part.read()) == []


def test_too_many_empty_members_are_not_counted_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_archives, "MOST_MEMBERS", 5_000)
    content = many(100_000)
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    assert "more than 5,000 files" in refused(lambda: tar_members(path))
    packed = tmp_path / "devkit.tar.gz"
    packed.write_bytes(gzip.compress(content, 1))
    refused(lambda: validation_labels.read_devkit(packed))
    refused(lambda: ARCHIVES.binary_members(packed.read_bytes(), "here"))


def test_what_unpacks_to_gigabytes_is_left_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_archives, "MOST_UNPACKED", 1 << 22)
    sink = BytesIO()
    with gzip.open(sink, "wb", compresslevel=1) as file:
        for _ in range(8):
            file.write(entry("filler", 1 << 20) + bytes(1 << 20))
        file.write(END)
    path = tmp_path / "devkit.tar.gz"
    path.write_bytes(sink.getvalue())
    assert "unpacks to more than" in refused(lambda: validation_labels.read_devkit(path))
    assert "unpacks to more than" in refused(
        lambda: ARCHIVES.binary_members(sink.getvalue(), "here")
    )


def test_idx_files_that_unpack_to_gigabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.data.catalogue.fashion_mnist.MOST_BYTES", 1 << 20)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(bytes(1 << 24)))
    assert "unpacks to more than" in refused(lambda: fashion_mnist(tmp_path))


def sparse(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def test_a_sparse_file_of_50_gigabytes_is_not_read(tmp_path: Path) -> None:
    sparse(tmp_path / "cifar-10-binary.tar.gz", 50 << 30)
    assert "more than" in refused(lambda: ARCHIVES.read(tmp_path / "cifar-10-binary.tar.gz"))
    assert ARCHIVES.find(sparse(tmp_path / "other", 50 << 30)) == []
    sparse(tmp_path / "train-images-idx3-ubyte", 50 << 30)
    refused(lambda: fashion_mnist(tmp_path))
    refused(lambda: validation_labels.read_devkit(sparse(tmp_path / "devkit", 50 << 30)))
    refused(lambda: tar_members(sparse(tmp_path / "x.tar", 50 << 30)))


def test_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    for read in (ARCHIVES.read, ARCHIVES.find):
        assert "cannot be read" in refused(lambda read=read: read(tmp_path / "nothing"))


def test_a_pipe_or_a_device_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        for read in (ARCHIVES.read, ARCHIVES.find, tar_members, validation_labels.read_devkit):
            process = get_context("fork").Process(target=_refuses, args=(read, path))
            process.start()
            process.join(20)
            if process.is_alive():
                process.kill()
            assert process.exitcode == 0, f"{path} by {read.__qualname__}"


def _refuses(read: Callable[[Path], object], path: Path) -> None:
    with pytest.raises(InputError, match="a pipe, socket or device"):
        read(path)


def test_archives_that_are_whole_are_read_as_before(tmp_path: Path) -> None:
    folder = as_tars(tmp_path / "tars", pictures())
    assert list_source(folder).layout == "tar"
