"""What a dataset is, and the canonical form that every dataset takes before training.

Canonical order is by the pixels' hash, so the same images and labels in two layouts are one dataset
with one id. Where images come from is `pipeline.data.catalogue` and `pipeline.data.parquet`; what
is done to them is `pipeline.training.feeding.image_batches`; how they are kept, `stored`.
"""

from dataclasses import dataclass
from hashlib import blake2b
from json import dumps

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError

FORMAT = "resnet-repro/dataset/1"
"""Of the canonical form: part of every id, and of every manifest."""


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """What a dataset is: square colour images of `side` pixels, of so many `classes`.

    A `side` of 0 means photographs of any size (`pipeline.data.photo_shards`). A manifest stores
    exactly these fields, as its `row`: another field would change what is on disk.
    """

    name: str
    side: int
    classes: int
    pad: int
    """Pixels that are added on each side before cropping."""
    flip: bool
    """Whether a mirrored image is still an image of its class."""
    arrives: str
    """One sentence on how its files come here."""
    comparable: bool = False
    """The paper's own data: its numbers may stand beside the paper's."""


@dataclass(frozen=True)
class Images:
    """One split: `pixels` uint8 [n, side, side, 3] and `labels` uint8 [n]."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.labels)

    def canonical(self) -> "Images":
        """The same images ordered by the hash of their pixels, then by label."""
        # By content, so that the order in which a layout lists its images leaves no trace; then by
        # label, as the same image may be there twice with different ones.
        digests = [blake2b(image.tobytes(), digest_size=16).digest() for image in self.pixels]
        order = sorted(range(len(self)), key=lambda i: (digests[i], self.labels[i]))
        return Images(np.ascontiguousarray(self.pixels[order]), self.labels[order])


@dataclass(frozen=True)
class Dataset:
    """A dataset in canonical order, with its id: 16 hexadecimal digits of its pixels and labels."""

    spec: DatasetSpec
    train: Images
    test: Images
    id: str
    notes: tuple[str, ...] = ()
    """What lay beside its files and was not read, a line each; of the reading, not of the data."""
    class_names: tuple[str, ...] = ()
    """As its files call the classes, by number; empty where they do not."""

    @property
    def key(self) -> str:
        """What runs on this dataset are filed under."""
        return dataset_key(self.spec.name, self.id)


def dataset_key(name: str, dataset_id: str) -> str:
    """Readable and unambiguous: the name and the first eight digits of the id."""
    return f"{name}-{dataset_id[:8]}"


def canonical_dataset(spec: DatasetSpec, train: Images, test: Images) -> Dataset:
    """Check, order and identify a dataset.

    Raises:
        InputError: images of the wrong shape, labels out of range, or an empty split.
    """
    for split, images in (("train", train), ("test", test)):
        _check(spec, split, images)
    train, test = train.canonical(), test.canonical()
    # The shape goes in before the bytes: without it, images divided between the splits in another
    # way could have the same id.
    digest = blake2b(digest_size=8)
    for split, images in (("train", train), ("test", test)):
        digest.update(dumps([FORMAT, split, list(images.pixels.shape)]).encode())
        digest.update(images.pixels.tobytes())
        digest.update(images.labels.tobytes())
    return Dataset(spec, train, test, digest.hexdigest())


def _check(spec: DatasetSpec, split: str, images: Images) -> None:
    if not len(images):
        raise InputError(f"{spec.name}: the {split} split has no images")
    if images.pixels.shape[1:] != (spec.side, spec.side, 3):
        raise InputError(
            f"{spec.name}: {split} images are {images.pixels.shape[1:]}, not "
            f"{(spec.side, spec.side, 3)}"
        )
    # The first image with the worst label is named, so that it can be looked up in its file.
    worst = int(images.labels.max())
    if worst >= spec.classes:
        at = int(np.argmax(images.labels == worst))
        raise InputError(
            f"{spec.name}: {split} image {at} has label {worst}, labels go from 0 to "
            f"{spec.classes - 1}"
        )
