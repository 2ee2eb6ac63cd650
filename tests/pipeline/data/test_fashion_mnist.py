"""Fashion-MNIST from IDX files made by hand, from the real ones where Debian's package is, and
damaged ones.
"""

import gzip
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.catalogue.fashion_mnist import fashion_mnist, find_idx_files
from pipeline.errors import InputError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
RNG = np.random.default_rng(0)
GREY = RNG.integers(1, 256, (5, 28, 28), dtype=np.uint8)


def idx(values: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(
        size.to_bytes(4, "big") for size in values.shape
    )
    return header + values.tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three training and two test images; the training files are gzipped."""
    for name, part in (("train", slice(0, 3)), ("t10k", slice(3, 5))):
        images, labels = GREY[part], np.arange(5, dtype=np.uint8)[part]
        for kind, values in (
            (f"{name}-images-idx3-ubyte", images),
            (f"{name}-labels-idx1-ubyte", labels),
        ):
            if name == "train":
                (tmp_path / f"{kind}.gz").write_bytes(gzip.compress(idx(values)))
            else:
                (tmp_path / kind).write_bytes(idx(values))
    return tmp_path


def test_images_are_padded_with_black_and_repeated(folder: Path) -> None:
    dataset = fashion_mnist(folder)
    assert (len(dataset.train), len(dataset.test), dataset.spec.name) == (3, 2, "fashion-mnist")
    by_label = dict(zip(dataset.train.labels.tolist(), dataset.train.pixels, strict=True))
    for label in range(3):
        image = by_label[label]
        assert np.array_equal(image[2:30, 2:30], np.stack([GREY[label]] * 3, axis=-1))
        assert image.sum() == 3 * GREY[label].sum(dtype=np.int64)  # nothing but black around it


def test_a_folder_is_known_by_any_of_the_files(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert find_idx_files(folder) == [folder]
    assert not find_idx_files(tmp_path_factory.mktemp("empty"))


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("t10k-labels-idx1-ubyte", None, "t10k-labels-idx1-ubyte.gz: no such file"),
        (
            "t10k-labels-idx1-ubyte",
            idx(np.arange(3, dtype=np.uint8)),
            "2 t10k images, but 3 labels",
        ),
        (
            "t10k-labels-idx1-ubyte",
            idx(np.array([3, 10], dtype=np.uint8)),
            "test image . has label 10",
        ),
        ("t10k-images-idx3-ubyte", idx(GREY[3:5])[:-1], "1,567 bytes of values, its header says"),
        (
            "t10k-images-idx3-ubyte",
            b"\x00\x00\x0d\x03" + bytes(12),
            "not an IDX file of unsigned bytes",
        ),
        ("t10k-images-idx3-ubyte", b"", "not an IDX file"),
        ("t10k-images-idx3-ubyte", idx(GREY[3:5, :20]), "not .32, 32, 3"),
        ("train-images-idx3-ubyte.gz", b"no gzip", "train-images-idx3-ubyte.gz: cannot be read"),
        (
            "train-images-idx3-ubyte.gz",
            gzip.compress(idx(GREY[:3]))[:-20],
            "train-images-idx3-ubyte.gz: cannot be read",
        ),
    ],
)
def test_what_is_damaged_is_named(
    folder: Path, file: str, content: bytes | None, says: str
) -> None:
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(InputError, match=says) as error:
        fashion_mnist(folder)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(
    not DEBIAN.exists(), reason="Debian's package dataset-fashion-mnist is not installed"
)
def test_the_real_files_are_70_000_images_of_ten_classes() -> None:
    dataset = fashion_mnist(DEBIAN)
    assert np.bincount(dataset.train.labels).tolist() == [6_000] * 10
    assert np.bincount(dataset.test.labels).tolist() == [1_000] * 10
    assert not dataset.spec.comparable
