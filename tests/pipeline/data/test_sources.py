"""CIFAR-10 from tiny files in the official layouts, and what is said of files that are damaged."""

import gzip
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.data.catalogue.cifar10 import ARCHIVES, CIFAR10
from pipeline.data.datasets import Dataset, Images, canonical_dataset
from pipeline.data.parquet import parquet_folder
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


def png(image: np.ndarray, form: str = "PNG") -> bytes:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, format=form)
    return buffer.getvalue()


def records(first: int, last: int, column: str = "img") -> list[dict]:
    return [
        {column: {"bytes": png(PIXELS[i]), "path": None}, "label": int(LABELS[i])}
        for i in range(first, last)
    ]


def write(folder: Path, name: str, rows: list[dict]) -> Path:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / name)
    return folder / name


@pytest.mark.parametrize("column", ["img", "image"])
def test_parquet_with_the_same_images_is_the_same_dataset(column: str, tmp_path: Path) -> None:
    write(tmp_path, "train-00000-of-00002.parquet", records(0, 7, column))
    write(tmp_path, "train-00001-of-00002.parquet", records(7, 15, column))
    write(tmp_path / "plain_text", "test-00000-of-00001.parquet", records(15, 18, column))
    shown: list[tuple[int, int]] = []
    dataset: Dataset = parquet_folder(
        tmp_path, "mine", lambda done, total: shown.append((done, total))
    )
    assert dataset.id == EXPECTED.id
    assert (dataset.spec.name, dataset.spec.comparable) == ("mine", False)
    assert shown[-1] == (18, 18)


def changed(**changes: object) -> list[dict]:
    rows = records(0, 3)
    rows[2] |= changes
    return rows


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"img": row["img"]} for row in records(0, 2)], "columns are img; expected are img"),
        ([{"picture": 1, "label": 2}], "columns are picture, label"),
        (
            changed(img={"bytes": png(PIXELS[0][:16]), "path": None}),
            r"row 2: an image of shape \(16, 32, 3\)",
        ),
        (
            changed(img={"bytes": png(PIXELS[0][:, :, 0]), "path": None}),
            r"row 2: an image of shape \(32, 32\)",
        ),
        (changed(label=10), "row 2: label 10"),
        (changed(label=-1), "row 2: label -1"),
        (changed(label=None), "row 2: label None"),
        (changed(img={"bytes": b"nonsense", "path": None}), "row 2: not a PNG or JPEG"),
        (changed(img={"bytes": png(PIXELS[0])[:300], "path": None}), "row 2: not a PNG or JPEG"),
        (changed(img={"bytes": None, "path": "elsewhere.png"}), "row 2: not a PNG or JPEG"),
        (changed(img={"bytes": png(PIXELS[0], "BMP"), "path": None}), "row 2: not a PNG or JPEG"),
    ],
)
def test_a_damaged_parquet_row_is_named(rows: list[dict], said: str, tmp_path: Path) -> None:
    write(tmp_path, "train.parquet", rows)
    write(tmp_path, "test.parquet", records(15, 18))
    with pytest.raises(InputError, match=said) as error:
        parquet_folder(tmp_path, "mine")
    assert str(tmp_path / "train.parquet") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("there", "missing"), [("train", "test"), ("test", "train")])
def test_a_missing_split_is_named(there: str, missing: str, tmp_path: Path) -> None:
    write(tmp_path, f"{there}.parquet", records(0, 2))
    with pytest.raises(InputError, match=rf"holds no {missing}\*\.parquet"):
        parquet_folder(tmp_path, "mine")


def zeroed_inside(content: bytes) -> bytes:
    return content[:100] + bytes(3000) + content[3100:]


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-100], lambda c: c[:2], lambda c: b"", zeroed_inside]
)
def test_a_damaged_parquet_file_is_named(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    file = write(tmp_path, "train.parquet", records(0, 15))
    write(tmp_path, "test.parquet", records(15, 18))
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(InputError, match=r"train\.parquet"):
        parquet_folder(tmp_path, "mine")
