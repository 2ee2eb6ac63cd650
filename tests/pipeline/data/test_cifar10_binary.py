"""CIFAR-10 from tiny archives in the official binary layout, and what is said of damaged ones."""

import gzip
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.catalogue.cifar10 import ARCHIVES, CIFAR10
from pipeline.data.datasets import Images, canonical_dataset
from pipeline.errors import InputError

FILES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (18, 32, 32, 3), dtype=np.uint8)
LABELS = RNG.integers(0, 10, 18).astype(np.uint8)
EXPECTED = canonical_dataset(
    CIFAR10.spec, Images(PIXELS[:15], LABELS[:15]), Images(PIXELS[15:], LABELS[15:])
)


def members() -> dict[str, bytes]:
    """Three images a file: a label byte, then 1,024 red, 1,024 green and 1,024 blue ones."""
    records = [
        bytes([label]) + b"".join(image[:, :, colour].tobytes() for colour in range(3))
        for image, label in zip(PIXELS, LABELS, strict=True)
    ]
    return {name: b"".join(records[3 * i : 3 * i + 3]) for i, name in enumerate(FILES)}


def archive(files: dict[str, bytes]) -> bytes:
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = len(content)
            tar.addfile(entry, BytesIO(content))
    return buffer.getvalue()


def test_the_binary_layout_gives_its_images_and_labels() -> None:
    dataset = ARCHIVES.binary_members(archive(members() | {"readme.html": b"<p>"}), "here")
    assert dataset.id == EXPECTED.id
    assert np.array_equal(dataset.test.pixels, EXPECTED.test.pixels)
    assert dataset.spec.comparable


def without(name: str) -> dict[str, bytes]:
    return {other: content for other, content in members().items() if other != name}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (archive(without("data_batch_4.bin")), "holds no data_batch_4.bin"),
        (archive(without("test_batch.bin")), "holds no test_batch.bin"),
        (
            archive(members() | {"data_batch_2.bin": members()["data_batch_2.bin"][:-1]}),
            "data_batch_2.bin is 9218 bytes",
        ),
        (archive(members() | {"data_batch_2.bin": b""}), "data_batch_2.bin is 0 bytes"),
        (
            archive(members() | {"test_batch.bin": b"\x0a" + members()["test_batch.bin"][1:]}),
            "test image 0 has label 10",
        ),
        (b"not an archive", "not a readable tar.gz"),
        (b"", "not a readable tar.gz"),
        (archive(members())[:-3000], "not a readable tar.gz"),
        (gzip.compress(b"not a tar"), "not a readable tar.gz"),
    ],
)
def test_a_damaged_archive_is_one_line(content: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        ARCHIVES.binary_members(content, "here.tar.gz")
    assert "\n" not in str(error.value)


def test_only_the_official_md5_is_cifar10(tmp_path: Path) -> None:
    file = tmp_path / "cifar-10-binary.tar.gz"
    file.write_bytes(archive(members()))
    with pytest.raises(InputError, match="c32a1d4ab5d03f1284b67883e8d87530"):
        ARCHIVES.read(file)
