"""Where images come from: scikit-learn's digits, the official CIFAR-10 archive, or the Hugging Face parquet layout.

Everything is checked while it is read; no pickle is ever loaded (so the archive is the *binary* one). Torch-free.
"""

import tarfile
import zlib
from collections.abc import Callable, Iterator
from hashlib import md5
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.datasets import CIFAR10, DATASETS, Dataset, DatasetRow, Images, canonical_dataset
from pipeline.errors import InputError, first_line

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
_CIFAR10_RECORD = 1 + 3 * 32 * 32

Progress = Callable[[int, int], None]
"""Called with (done, all) now and then while something long is read."""


def silent(done: int, total: int) -> None:
    """No progress shown."""


def digits() -> Dataset:
    """scikit-learn's digits: 8x8 scans doubled to 16x16, grey repeated to three channels, split 1,437/360 by class.

    Values 0..16 become 0..255. For testing, every fifth image of each class in the file's order, up to the class's
    proportional share of 360.
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


def download_cifar10(target: Path, progress: Progress = silent) -> Path:
    """Fetch the official binary archive to `target`, whole or not at all.

    Raises:
        InputError: it cannot be fetched (says why, and how to do without).
    """
    partial = target.with_suffix(".partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with urlopen(CIFAR10_URL, timeout=60) as response, open(partial, "wb") as file:
            total, done = int(response.headers.get("Content-Length", 0)), 0
            while block := response.read(1 << 20):
                done += file.write(block)
                progress(done, total)
        found = md5(partial.read_bytes(), usedforsecurity=False).hexdigest()
        if found != CIFAR10_MD5:
            raise OSError(f"md5 {found} after {done:,} bytes, not {CIFAR10_MD5}: cut short or changed")
        partial.replace(target)
    except (URLError, OSError, HTTPException) as error:
        raise InputError(f"{CIFAR10_URL}: {error}; fetch it elsewhere and name it with --from PATH") from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def cifar10_archive(path: Path) -> Dataset:
    """CIFAR-10 from the official binary archive, whose md5 makes its results comparable with the paper's.

    Raises:
        InputError: another file, or a damaged one.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    found = md5(content, usedforsecurity=False).hexdigest()
    if found != CIFAR10_MD5:
        raise InputError(
            f"{path}: md5 {found}, the official cifar-10-binary.tar.gz has {CIFAR10_MD5}: "
            "a truncated download or another file; fetch it again"
        )
    return cifar10_members(content, str(path))


def cifar10_members(archive: bytes, where: str) -> Dataset:
    """CIFAR-10 from the bytes of a gzipped tar in the official layout: five training files and one for testing.

    Raises:
        InputError: a file is missing, truncated, or holds a label above 9.
    """
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=BytesIO(archive), mode="r:gz") as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.isfile() and member.name.endswith(".bin") else None
                if stream is not None:
                    files[Path(member.name).name] = stream.read()
    except (tarfile.TarError, zlib.error, OSError, EOFError) as error:
        raise InputError(f"{where}: not a readable tar.gz ({error})") from error
    train = [_cifar10_records(files, f"data_batch_{number}.bin", where) for number in range(1, 6)]
    pixels, labels = (np.concatenate(parts) for parts in zip(*((t.pixels, t.labels) for t in train), strict=True))
    return canonical_dataset(CIFAR10, Images(pixels, labels), _cifar10_records(files, "test_batch.bin", where))


def _cifar10_records(files: dict[str, bytes], name: str, where: str) -> Images:
    if name not in files:
        raise InputError(f"{where}: holds no {name}; this is not the CIFAR-10 binary archive")
    content = np.frombuffer(files[name], dtype=np.uint8)
    if not len(content) or len(content) % _CIFAR10_RECORD:
        raise InputError(
            f"{where}: {name} is {len(content)} bytes, not a whole number of {_CIFAR10_RECORD}-byte records"
        )
    records = content.reshape(-1, _CIFAR10_RECORD)
    return Images(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0])


def parquet_folder(path: Path, name: str, progress: Progress = silent) -> Dataset:
    """CIFAR-10's shape in the Hugging Face parquet layout: `train*.parquet` and `test*.parquet` below `path`.

    Each row has an image struct with encoded `bytes` (column `img` or `image`) and an integer `label`.

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
            raise InputError(f"{path}: holds no {split}*.parquet; wanted are train*.parquet and test*.parquet")
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
        raise InputError(f"{file}: columns are {', '.join(columns)}; wanted are img (or image) and label")
    number = 0
    try:
        for batch in parquet.iter_batches(1000, columns=[image_column, "label"]):
            for record in batch.to_pylist():
                yield _decode(record, image_column, row, f"{file}, row {number}")
                number += 1
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file}: damaged after row {number} ({first_line(error)})") from error


def _decode(record: dict, column: str, row: DatasetRow, where: str) -> tuple[NDArray[np.uint8], int]:
    try:
        with Image.open(BytesIO(record[column]["bytes"]), formats=["PNG", "JPEG"]) as image:
            pixels = np.asarray(image)
    except (TypeError, KeyError, UnidentifiedImageError, OSError) as error:
        raise InputError(f"{where}: not a PNG or JPEG image that can be decoded ({error})") from error
    if pixels.shape != (row.side, row.side, 3):
        raise InputError(f"{where}: an image of shape {pixels.shape}, not {(row.side, row.side, 3)}")
    label = record["label"]
    if not isinstance(label, int) or not 0 <= label < row.classes:
        raise InputError(f"{where}: label {label}, labels go from 0 to {row.classes - 1}")
    return pixels, label
