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
from pipeline.data.datasets import Dataset, DatasetSpec, Images, canonical_dataset
from pipeline.data.parquet_images import ImagesFile
from pipeline.data.photo_decoding import UndecodableError, opened
from pipeline.data.progress import Progress, silent
from pipeline.errors import InputError, first_line

COLUMNS = ("img", "image")


def parquet_folder(path: Path, name: str, progress: Progress = silent) -> Dataset:
    """The images in `train*.parquet` and `test*.parquet` below `path`.

    Each row has an image struct with encoded `bytes` (column `img` or `image`) and an integer
    `label`.

    Raises:
        InputError: names the file, and the row, of what cannot be read.
    """
    # Never comparable, whatever its name: `data verify --against` finds out whether it is CIFAR-10.
    spec = replace(CIFAR10.spec, name=name, arrives=f"parquet: {path.name}", comparable=False)
    files = {split: sorted(path.rglob(f"{split}*.parquet")) for split in ("train", "test")}
    for split, found in files.items():
        if not found:
            raise InputError(
                f"{path}: holds no {split}*.parquet; expected train*.parquet and test*.parquet"
            )
    total = sum(sum(ImagesFile(file, COLUMNS).rows) for found in files.values() for file in found)
    splits, done = {}, 0
    for split, found in files.items():
        pixels, labels = [], []
        for image, label in (pair for file in found for pair in _decoded(file, spec)):
            pixels.append(image)
            labels.append(label)
            done += 1
            # Seldom, as showing progress costs more than decoding a small image.
            if done % 500 == 0 or done == total:
                progress(done, total)
        if not pixels:
            raise InputError(f"{path}: its {split}*.parquet have no images")
        splits[split] = Images(np.stack(pixels), np.array(labels, dtype=np.uint8))
    return canonical_dataset(spec, splits["train"], splits["test"])


def _decoded(file: Path, spec: DatasetSpec) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Pixels [side, side, 3] and label of each row of a file."""
    for number, (content, label) in enumerate(ImagesFile(file, COLUMNS).images()):
        yield _decode(content, label, spec, f"{file}, row {number}")


def _decode(
    content: bytes | None, label: int | None, spec: DatasetSpec, where: str
) -> tuple[NDArray[np.uint8], int]:
    try:
        with opened(content or b"") as image:
            # By its header, and never resized: an image of another size is not of this dataset.
            if image.size != (spec.side, spec.side):
                shape = (image.height, image.width, len(image.getbands()))
                raise _of_another_shape(where, shape, spec)
            pixels = np.asarray(image)
    # A damaged image makes Pillow raise many things.
    except (UndecodableError, OSError, SyntaxError, ValueError, TypeError) as error:
        raise InputError(
            f"{where}: not a PNG or JPEG image that can be decoded ({first_line(error)})"
        ) from error
    if pixels.shape != (spec.side, spec.side, 3):
        raise _of_another_shape(where, pixels.shape, spec)
    # Checked here and not in `canonical_dataset` alone: as uint8, a label of 256 would be 0.
    if not isinstance(label, int) or not 0 <= label < spec.classes:
        raise InputError(f"{where}: label {label}, labels go from 0 to {spec.classes - 1}")
    return pixels, label


def _of_another_shape(where: str, shape: tuple[int, ...], spec: DatasetSpec) -> InputError:
    return InputError(f"{where}: an image of shape {shape}, not {(spec.side, spec.side, 3)}")
