"""Where images come from: scikit-learn's digits, or files in the Hugging Face parquet layout;
archives are elsewhere.

Everything is checked while it is read. Torch-free.
"""

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.data.datasets import CIFAR10, DATASETS, Dataset, DatasetRow, Images, canonical_dataset
from pipeline.errors import InputError, first_line

Progress = Callable[[int, int], None]
"""Called with (done, all) now and then while something long is read."""


def silent(done: int, total: int) -> None:
    """No progress shown."""


def digits() -> Dataset:
    """scikit-learn's digits: 8x8 scans doubled to 16x16, grey repeated to three channels, split
    1,437/360 by class.

    Values 0..16 become 0..255. For testing, every fifth image of each class in the file's order, up
    to the class's proportional share of 360.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)
    pixels, labels = grey[..., None].repeat(3, axis=3), bunch.target.astype(np.uint8)
    test = np.zeros(len(labels), dtype=bool)
    for label, count in enumerate(_test_counts(labels, 360)):
        test[np.flatnonzero(labels == label)[::5][:count]] = True
    train, held = Images(pixels[~test], labels[~test]), Images(pixels[test], labels[test])
    return canonical_dataset(DATASETS["digits"], train, held)


def _test_counts(labels: NDArray[np.uint8], total: int) -> list[int]:
    """How many images of each class are for testing: in proportion, largest remainders first."""
    sizes = np.bincount(labels)
    exact = sizes * total / len(labels)
    counts = np.floor(exact).astype(int)
    for label in np.argsort(counts - exact, kind="stable")[: total - counts.sum()]:
        counts[label] += 1
    return [int(count) for count in counts]


def parquet_folder(path: Path, name: str, progress: Progress = silent) -> Dataset:
    """CIFAR-10's shape in the Hugging Face parquet layout: `train*.parquet` and `test*.parquet`
    below `path`.

    Each row has an image struct with encoded `bytes` (column `img` or `image`) and an integer
    `label`.

    Raises:
        InputError: names the file, and the row, of what cannot be read.
    """
    row = DatasetRow(
        name=name,
        side=CIFAR10.side,
        classes=CIFAR10.classes,
        pad=CIFAR10.pad,
        flip=True,
        arrives=f"parquet: {path.name}",
    )
    files = {split: sorted(path.rglob(f"{split}*.parquet")) for split in ("train", "test")}
    for split, found in files.items():
        if not found:
            raise InputError(
                f"{path}: holds no {split}*.parquet; wanted are train*.parquet and test*.parquet"
            )
    total = sum(_rows(file) for found in files.values() for file in found)
    splits, done = {}, 0
    for split, found in files.items():
        pixels, labels = [], []
        for image, label in (pair for file in found for pair in _decoded(file, row)):
            pixels.append(image)
            labels.append(label)
            done += 1
            if done % 500 == 0 or done == total:
                progress(done, total)
        splits[split] = Images(np.stack(pixels), np.array(labels, dtype=np.uint8))
    return canonical_dataset(row, splits["train"], splits["test"])


def _rows(file: Path) -> int:
    try:
        return pq.ParquetFile(file).metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file}: not a readable parquet file ({first_line(error)})") from error


def _decoded(file: Path, row: DatasetRow) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Pixels [side, side, 3] and label of each row of a file."""
    parquet = pq.ParquetFile(file)
    columns = parquet.schema_arrow.names
    image_column = next((column for column in ("img", "image") if column in columns), None)
    if image_column is None or "label" not in columns:
        raise InputError(
            f"{file}: columns are {', '.join(columns)}; wanted are img (or image) and label"
        )
    number = 0
    try:
        for batch in parquet.iter_batches(1000, columns=[image_column, "label"]):
            for record in batch.to_pylist():
                yield _decode(record, image_column, row, f"{file}, row {number}")
                number += 1
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file}: damaged after row {number} ({first_line(error)})") from error


def _decode(
    record: dict, column: str, row: DatasetRow, where: str
) -> tuple[NDArray[np.uint8], int]:
    try:
        with Image.open(BytesIO(record[column]["bytes"]), formats=["PNG", "JPEG"]) as image:
            pixels = np.asarray(image)
    except (TypeError, KeyError, UnidentifiedImageError, OSError) as error:
        raise InputError(
            f"{where}: not a PNG or JPEG image that can be decoded ({error})"
        ) from error
    if pixels.shape != (row.side, row.side, 3):
        raise InputError(
            f"{where}: an image of shape {pixels.shape}, not {(row.side, row.side, 3)}"
        )
    label = record["label"]
    if not isinstance(label, int) or not 0 <= label < row.classes:
        raise InputError(f"{where}: label {label}, labels go from 0 to {row.classes - 1}")
    return pixels, label
