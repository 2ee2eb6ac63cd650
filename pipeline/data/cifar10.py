"""CIFAR-10 from its official archives, which alone make a result comparable with the paper's (by
their md5).

The binary archive holds records of bytes. The python one holds pickles: it is opened only after its
md5 is right, and by an unpickler that can rebuild arrays and nothing else. Torch-free.
"""

import pickle
import tarfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets import CIFAR10, Dataset, Images, canonical_dataset
from pipeline.data.download import download, md5_of
from pipeline.data.sources import Progress, silent
from pipeline.errors import InputError

SITE = "https://www.cs.toronto.edu/~kriz"
BINARY, BINARY_MD5 = "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"
PYTHON, PYTHON_MD5 = "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = "test_batch"
RECORD = 1 + 3 * 32 * 32

ARRAYS_ALONE = {
    ("numpy", "ndarray"), ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
}  # fmt: skip
"""What the python archive's pickles name; anything else is refused."""


def download_cifar10(folder: Path, progress: Progress = silent) -> Path:
    """The official binary archive in `folder`, fetched if need be; raises as `download`."""
    return download(f"{SITE}/{BINARY}", BINARY_MD5, folder / BINARY, progress)


def cifar10_archive(path: Path) -> Dataset:
    """CIFAR-10 from one of its official archives.

    Raises:
        InputError: another file, or a damaged one.
    """
    found = md5_of(path)
    if found == BINARY_MD5:
        return binary_members(path.read_bytes(), str(path))
    if found == PYTHON_MD5:
        return python_members(path.read_bytes(), str(path))
    raise InputError(
        f"{path}: md5 {found}, the official archives have {BINARY_MD5} ({BINARY}) and {PYTHON_MD5} "
        f"({PYTHON}): "
        "a truncated download or another file; fetch it again"
    )


def binary_members(archive: bytes, where: str) -> Dataset:
    """CIFAR-10 from the bytes of a gzipped tar in the official binary layout: records of a label
    and 3x32x32 bytes.

    Raises:
        InputError: a file is missing, truncated, or holds a label above 9.
    """
    files = _members(archive, where)
    return _dataset({name: _records(files, f"{name}.bin", where) for name in (*TRAIN, TEST)})


def python_members(archive: bytes, where: str) -> Dataset:
    """CIFAR-10 from the bytes of a gzipped tar in the official python layout: pickled dictionaries
    of arrays.

    Raises:
        InputError: a file is missing or damaged, or its pickle names anything but arrays.
    """
    files = _members(archive, where)
    return _dataset({name: _batch(files, name, where) for name in (*TRAIN, TEST)})


def _dataset(splits: dict[str, Images]) -> Dataset:
    train = [splits[name] for name in TRAIN]
    pixels, labels = (
        np.concatenate(parts) for parts in zip(*((t.pixels, t.labels) for t in train), strict=True)
    )
    return canonical_dataset(CIFAR10, Images(pixels, labels), splits[TEST])


def _members(archive: bytes, where: str) -> dict[str, bytes]:
    """The files of a gzipped tar by name, without their folder."""
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=BytesIO(archive), mode="r:gz") as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.isfile() else None
                if stream is not None:
                    files[Path(member.name).name] = stream.read()
    except (tarfile.TarError, zlib.error, OSError, EOFError) as error:
        raise InputError(f"{where}: not a readable tar.gz ({error})") from error
    return files


def _content(files: dict[str, bytes], name: str, where: str) -> bytes:
    if name not in files:
        raise InputError(f"{where}: holds no {name}; this is not the CIFAR-10 archive")
    return files[name]


def _images(planes: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Images:
    """Rows of 1,024 red, 1,024 green and 1,024 blue values as images [n, 32, 32, 3]."""
    return Images(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels)


def _records(files: dict[str, bytes], name: str, where: str) -> Images:
    content = np.frombuffer(_content(files, name, where), dtype=np.uint8)
    if not len(content) or len(content) % RECORD:
        raise InputError(
            f"{where}: {name} is {len(content)} bytes, not a whole number of {RECORD}-byte records"
        )
    records = content.reshape(-1, RECORD)
    return _images(records[:, 1:], records[:, 0])


def _batch(files: dict[str, bytes], name: str, where: str) -> Images:
    try:
        content = _ArraysAlone(BytesIO(_content(files, name, where)), encoding="bytes").load()
        planes, labels = np.asarray(content[b"data"]), np.asarray(content[b"labels"])
    except (
        pickle.UnpicklingError,
        KeyError,
        TypeError,
        EOFError,
        ValueError,
        IndexError,
        AttributeError,
    ) as error:
        raise InputError(f"{where}: {name} is not a batch of images ({error})") from error
    if planes.dtype != np.uint8 or planes.ndim != 2 or planes.shape != (len(labels), RECORD - 1):
        raise InputError(
            f"{where}: {name} holds {planes.dtype} {list(planes.shape)}, not uint8 [n, "
            f"{RECORD - 1}]"
        )
    if labels.dtype.kind not in "iu" or not len(labels) or labels.min() < 0 or labels.max() > 255:
        raise InputError(f"{where}: {name} holds labels that are no class numbers")
    return _images(planes, labels.astype(np.uint8))


class _ArraysAlone(pickle.Unpickler):
    """Rebuilds numpy arrays from built-in types; whatever else a pickle names is refused before it
    is looked up.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAYS_ALONE:
            raise pickle.UnpicklingError(f"its pickle names {module}.{name}")
        return super().find_class(
            module.replace("numpy.core.", "numpy._core."), name
        )  # its name since numpy 2
