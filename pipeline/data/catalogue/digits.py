"""The embedded default: 1,797 handwritten digits that scikit-learn carries, so nothing is fetched.

Not in the paper: real images on which every network of Sec. 4.2 trains within minutes on a laptop.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.data.catalogue.known_dataset import KnownDataset
from pipeline.data.datasets import Dataset, DatasetSpec, Images, canonical_dataset

SPEC = DatasetSpec(
    name="digits", side=16, classes=10, pad=2, flip=False,
    arrives="embedded: 1,797 handwritten digits that scikit-learn carries",
)  # fmt: skip
TEST_IMAGES = 360


def digits() -> Dataset:
    """scikit-learn's 8x8 scans doubled to 16x16, grey repeated to three channels.

    Values 0..16 become 0..255. For testing, every fifth image of each class in the file's order, up
    to the class's proportional share of 360; the other 1,437 are for training.
    """
    # Imported here: it takes a second, which only a run on digits should pay for.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)
    pixels, labels = grey[..., None].repeat(3, axis=3), bunch.target.astype(np.uint8)
    # Every fifth image rather than the last ones: neighbours in the file share a writer, and the
    # dataset has no split of its own. The id hashes this split, so it can never change.
    test = np.zeros(len(labels), dtype=bool)
    for label, count in enumerate(_test_counts(labels)):
        test[np.flatnonzero(labels == label)[::5][:count]] = True
    return canonical_dataset(
        SPEC, Images(pixels[~test], labels[~test]), Images(pixels[test], labels[test])
    )


def _test_counts(labels: NDArray[np.uint8]) -> list[int]:
    """How many images of each class are for testing: in proportion, largest remainders first."""
    sizes = np.bincount(labels)
    exact = sizes * TEST_IMAGES / len(labels)
    counts = np.floor(exact).astype(int)
    # A stable sort: classes with equal remainders are served in the order of their labels.
    for label in np.argsort(counts - exact, kind="stable")[: TEST_IMAGES - counts.sum()]:
        counts[label] += 1
    return [int(count) for count in counts]


DIGITS = KnownDataset(
    spec=SPEC, train_images=1_437, test_images=TEST_IMAGES,
    class_names=tuple("0123456789"), embedded=digits,
)  # fmt: skip
