"""Images in the Hugging Face parquet layout are the same dataset; a damaged row is named."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.data.datasets import Dataset
from pipeline.data.parquet import parquet_folder
from pipeline.errors import InputError
from tests.pipeline.data.test_cifar10_binary import EXPECTED, LABELS, PIXELS


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
        (
            [{"img": row["img"]} for row in records(0, 2)],
            "columns are img; expected image or img, and label",
        ),
        ([{"picture": 1, "label": 2}], "columns are picture, label"),
        (
            changed(img={"bytes": png(PIXELS[0][:16]), "path": None}),
            r"row 2: an image of shape \(16, 32, 3\)",
        ),
        (changed(label=10), "row 2: label 10"),
        (changed(label=-1), "row 2: label -1"),
        (changed(label=None), "row 2: label None"),
        (changed(img={"bytes": b"nonsense", "path": None}), "row 2: not an image"),
        (changed(img={"bytes": png(PIXELS[0])[:300], "path": None}), "row 2: not an image"),
        (changed(img={"bytes": None, "path": "elsewhere.png"}), "row 2: not an image"),
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
