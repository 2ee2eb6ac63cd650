"""Fashion-MNIST from its four IDX files: 28x28 grey images, padded to CIFAR-10's 32x32 with black.

Not in the paper: 70,000 lossless images of CIFAR-10's size, that many machines have already.
"""

import gzip
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.catalogue.known_dataset import KnownDataset
from pipeline.data.datasets import Dataset, DatasetSpec, Images, canonical_dataset
from pipeline.data.download import download
from pipeline.data.progress import Progress, silent
from pipeline.errors import InputError
from pipeline.storage import regular_file

SPEC = DatasetSpec(
    name="fashion-mnist", side=32, classes=10, pad=4, flip=True,
    arrives=(
        "four IDX files: --from their folder (Debian: /usr/share/datasets/fashion-mnist), or "
        "--download"
    ),
)  # fmt: skip

SITE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
FILES = {
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}
"""Names, and the md5s of their official `.gz`."""

UNSIGNED_BYTES = 0x08
BORDER = 2
MOST_BYTES = 1 << 28
"""Of a file, unpacked; the largest of the four has 47 MB."""


def download_fashion_mnist(folder: Path, progress: Progress = silent) -> Path:
    """The folder with the four official files, fetched if need be; raises as `download`."""
    for name, checksum in FILES.items():
        download(f"{SITE}/{name}.gz", checksum, folder / f"{name}.gz", progress)
    return folder


def find_idx_files(path: Path) -> list[Path]:
    """The folder itself, where any of the four files lies in it: `read` names those that miss."""
    return [path] if any(_file(path, name).exists() for name in FILES) else []


def fashion_mnist(folder: Path) -> Dataset:
    """Fashion-MNIST from the four IDX files in a folder, gzipped or not.

    Raises:
        InputError: names the file that is missing or damaged.
    """
    splits = {}
    for split in ("train", "t10k"):
        grey = read_idx(_file(folder, f"{split}-images-idx3-ubyte"), dimensions=3)
        labels = read_idx(_file(folder, f"{split}-labels-idx1-ubyte"), dimensions=1)
        if len(grey) != len(labels):
            raise InputError(f"{folder}: {len(grey):,} {split} images, but {len(labels):,} labels")
        # The images are of the same size as CIFAR-10's then, and so are the networks' feature maps.
        padded = np.pad(grey, ((0, 0), (BORDER, BORDER), (BORDER, BORDER)))
        splits[split] = Images(padded[..., None].repeat(3, axis=3), labels)
    return canonical_dataset(SPEC, splits["train"], splits["t10k"])


def _file(folder: Path, name: str) -> Path:
    """The file as it is there: unpacked, or else with `.gz`."""
    return folder / name if (folder / name).exists() else folder / f"{name}.gz"


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """An IDX file's values: two zero bytes, the type, the number of dimensions, sizes, values.

    Raises:
        InputError: it is missing, something else, or cut short.
    """
    try:
        content = regular_file(path, MOST_BYTES)
        if path.suffix == ".gz":
            with gzip.open(BytesIO(content)) as unpacked:
                content = unpacked.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise OSError(f"unpacks to more than {MOST_BYTES:,} bytes")
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: no such file; the four files of Fashion-MNIST belong together"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    start = 4 + 4 * dimensions
    if len(content) < start or tuple(content[:4]) != (0, 0, UNSIGNED_BYTES, dimensions):
        raise InputError(f"{path}: not an IDX file of unsigned bytes in {dimensions} dimension(s)")
    shape = tuple(
        int(size) for size in np.frombuffer(content, dtype=">u4", count=dimensions, offset=4)
    )
    values = np.frombuffer(content, dtype=np.uint8, offset=start)
    # In 64 bits: of a damaged header, a product in 32 could wrap to the number of values.
    if len(values) != np.prod(shape, dtype=np.int64):
        raise InputError(f"{path}: {len(values):,} bytes of values, its header says {shape}")
    return values.reshape(shape)


FASHION_MNIST = KnownDataset(
    spec=SPEC, train_images=60_000, test_images=10_000,
    class_names=(
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
        "Ankle boot",
    ),
    find=find_idx_files, read=fashion_mnist, download=download_fashion_mnist,
)  # fmt: skip
