"""Small images of anyone's, of CIFAR-10's shape, in the Hugging Face parquet layout.

This is how a dataset comes that has no row in the catalogue. Everything is checked while it is
read: files of one's own have no official checksum.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.catalogue.cifar10 import CIFAR10
from pipeline.data.catalogue.cifar100 import CIFAR100
from pipeline.data.datasets import Dataset, DatasetSpec, Images, canonical_dataset
from pipeline.data.photo_decoding import BROKEN, UndecodableError, in_rgb, opened
from pipeline.data.progress import Progress, silent
from pipeline.data.sources.parquet_layout import ImageColumns, parquet_files, same_classes
from pipeline.data.sources.parquet_rows import ParquetRows
from pipeline.data.sources.source_files import held
from pipeline.errors import InputError, first_line

MOST_CLASSES = 256
"""Labels of small images are bytes."""
SPLITS: dict[str, tuple[str, ...]] = {"train": ("train",), "test": ("test",)}


def parquet_folder(path: Path, name: str, progress: Progress = silent) -> Dataset:
    """The images in the parquet files of the splits train and test below `path`.

    Files and columns are found as `pipeline.data.sources.parquet_layout` says. Images become RGB as
    `in_rgb` converts them, and are never resized.

    Raises:
        InputError: names the file, and the row, of what cannot be read.
    """
    try:
        files, notes = parquet_files(path, SPLITS)
        for split, found in files.items():
            if not found:
                raise InputError(
                    f"{path}: holds no {split}*.parquet; expected train*.parquet and "
                    f"test*.parquet, or files that `data list` names; it holds {held(path)}"
                )
    except OSError as error:
        where = error.filename or path
        raise InputError(f"{where}: cannot be read ({error.strerror})") from error
    columns = same_classes(files)
    # Never comparable, whatever its name: `data verify --against` finds out whether it is CIFAR-10.
    spec = replace(
        CIFAR10.spec,
        name=name,
        arrives=f"parquet: {path.name}",
        comparable=False,
        classes=_classes(columns),
    )
    total = sum(sum(ParquetRows(file).groups) for found in files.values() for file in found)
    splits, done = {}, 0
    for split, found in files.items():
        pixels, labels = [], []
        for image, label in (pair for file in found for pair in _decoded(file, columns, spec)):
            pixels.append(image)
            labels.append(label)
            done += 1
            # Seldom, as showing progress costs more than decoding a small image.
            if done % 500 == 0 or done == total:
                progress(done, total)
        if not pixels:
            raise InputError(f"{path}: the {split} split has no images")
        splits[split] = Images(np.stack(pixels), np.array(labels, dtype=np.uint8))
    dataset = canonical_dataset(spec, splits["train"], splits["test"])
    return replace(dataset, notes=notes, class_names=columns.names)


def _classes(columns: ImageColumns) -> int:
    """How many classes there are: as many as texts or `ClassLabel` name, at least CIFAR-10's."""
    least = CIFAR100.spec.classes if columns.label == "fine_label" else CIFAR10.spec.classes
    if len(columns.names) > MOST_CLASSES:
        raise InputError(
            f"{len(columns.names):,} classes are named; small images have at most {MOST_CLASSES}"
        )
    return len(columns.names) if columns.texts else max(least, len(columns.names))


def _decoded(
    file: Path, columns: ImageColumns, spec: DatasetSpec
) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Pixels [side, side, 3] and label of each row of a file."""
    rows = ParquetRows(file).read([columns.image, columns.label])
    for number, record in enumerate(rows):
        yield _decode(*columns.pair(record), spec, f"{file}, row {number}")


def _decode(
    content: bytes | None, label: int | None, spec: DatasetSpec, where: str
) -> tuple[NDArray[np.uint8], int]:
    try:
        with opened(content or b"") as image:
            # By its header, and never resized: an image of another size is not of this dataset.
            if image.size != (spec.side, spec.side):
                shape = (image.height, image.width, len(image.getbands()))
                raise _of_another_shape(where, shape, spec)
            pixels = np.asarray(in_rgb(image))
    # A damaged image makes Pillow raise many things.
    except (UndecodableError, *BROKEN) as error:
        raise InputError(
            f"{where}: not an image that can be decoded ({first_line(error)})"
        ) from error
    # Checked here and not in `canonical_dataset` alone: as uint8, a label of 256 would be 0.
    if label is None or not 0 <= label < spec.classes:
        raise InputError(f"{where}: label {label}, labels go from 0 to {spec.classes - 1}")
    return pixels, label


def _of_another_shape(where: str, shape: tuple[int, ...], spec: DatasetSpec) -> InputError:
    return InputError(f"{where}: an image of shape {shape}, not {(spec.side, spec.side, 3)}")
