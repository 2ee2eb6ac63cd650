"""The datasets as rows, and the canonical form every dataset takes before anything trains on it
(torch-free).

Canonical order is by the pixels' hash, so the same images and labels in two layouts are one dataset
with one id. Where images come from is `pipeline.data.sources`; what is done to them is
`pipeline.training.feeding.image_batches`.
"""

from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from json import dumps, loads
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from pipeline.errors import InputError
from pipeline.storage import Storage

FORMAT = "resnet-repro/dataset/1"
FOLDER = "datasets"


@dataclass(frozen=True, kw_only=True)
class DatasetRow:
    """What a dataset is: square colour images of `side` pixels; `pad` pixels are added on each side
    before cropping.

    A `side` of 0 means photographs of any size (`pipeline.data.photo_shards`).
    """

    name: str
    side: int
    classes: int
    pad: int
    flip: bool
    """Whether a mirrored image is still an image of its class."""
    arrives: str
    """One sentence on how its files come here."""
    comparable: bool = False
    """The paper's own data: its numbers may stand beside the paper's."""


CIFAR10 = DatasetRow(
    name="cifar10", side=32, classes=10, pad=4, flip=True, comparable=True,
    arrives="official archive: --from cifar-10-binary.tar.gz (or -python), or --download",
)  # fmt: skip
FASHION_MNIST = DatasetRow(
    name="fashion-mnist", side=32, classes=10, pad=4, flip=True,
    arrives=(
        "four IDX files: --from their folder (Debian: /usr/share/datasets/fashion-mnist), or "
        "--download"
    ),
)  # fmt: skip
IMAGENET = DatasetRow(
    name="imagenet", side=0, classes=1000, pad=0, flip=True,
    arrives=(
        "ILSVRC-2012's three archives, train/ and val/ with a folder per class, or parquet files: "
        "--from their folder"
    ),
)  # fmt: skip
DATASETS: dict[str, DatasetRow] = {
    "digits": DatasetRow(
        name="digits", side=16, classes=10, pad=2, flip=False,
        arrives="embedded: 1,797 handwritten digits that scikit-learn carries",
    ),
    "cifar10": CIFAR10,
    "fashion-mnist": FASHION_MNIST,
    "imagenet": IMAGENET,
}  # fmt: skip


@dataclass(frozen=True)
class Images:
    """One split: `pixels` uint8 [n, side, side, 3] and `labels` uint8 [n]."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.labels)

    def canonical(self) -> "Images":
        """The same images ordered by the hash of their pixels, then by label."""
        digests = [blake2b(image.tobytes(), digest_size=16).digest() for image in self.pixels]
        order = sorted(range(len(self)), key=lambda i: (digests[i], self.labels[i]))
        return Images(np.ascontiguousarray(self.pixels[order]), self.labels[order])


@dataclass(frozen=True)
class Dataset:
    """A dataset in canonical order, with its id: 16 hexadecimal digits of its pixels and labels."""

    row: DatasetRow
    train: Images
    test: Images
    id: str

    @property
    def key(self) -> str:
        """What runs on this dataset are filed under."""
        return dataset_key(self.row.name, self.id)


def dataset_key(name: str, dataset_id: str) -> str:
    """Readable and unambiguous: the name and the first eight digits of the id."""
    return f"{name}-{dataset_id[:8]}"


def canonical_dataset(row: DatasetRow, train: Images, test: Images) -> Dataset:
    """Check, order and identify a dataset.

    Raises:
        InputError: images of the wrong shape, labels out of range, or an empty split.
    """
    for split, images in (("train", train), ("test", test)):
        _check(row, split, images)
    train, test = train.canonical(), test.canonical()
    digest = blake2b(digest_size=8)
    for split, images in (("train", train), ("test", test)):
        digest.update(dumps([FORMAT, split, list(images.pixels.shape)]).encode())
        digest.update(images.pixels.tobytes())
        digest.update(images.labels.tobytes())
    return Dataset(row, train, test, digest.hexdigest())


def _check(row: DatasetRow, split: str, images: Images) -> None:
    if not len(images):
        raise InputError(f"{row.name}: the {split} split has no images")
    if images.pixels.shape[1:] != (row.side, row.side, 3):
        raise InputError(
            f"{row.name}: {split} images are {images.pixels.shape[1:]}, not "
            f"{(row.side, row.side, 3)}"
        )
    worst = int(images.labels.max())
    if worst >= row.classes:
        at = int(np.argmax(images.labels == worst))
        raise InputError(
            f"{row.name}: {split} image {at} has label {worst}, labels go from 0 to "
            f"{row.classes - 1}"
        )


def images_path(dataset_id: str) -> str:
    """Where a dataset's images are in storage, in one safetensors file."""
    return f"{FOLDER}/{dataset_id}/images.safetensors"


def write_dataset(storage: Storage, dataset: Dataset, source: dict[str, Any]) -> dict[str, Any]:
    """Store a dataset under `datasets/<id>`, manifest last, and return its manifest.

    The manifest of one that is there already keeps its name, learns this source, and becomes
    comparable if this one is.
    """
    old = read_manifest(storage, dataset.id)
    if old is None:
        content = save_arrays(_arrays(dataset))
        storage.write(images_path(dataset.id), content)
        manifest = {
            "format": FORMAT,
            "id": dataset.id,
            "row": asdict(dataset.row),
            "train_images": len(dataset.train),
            "test_images": len(dataset.test),
            "size": len(content),
            "checksum": blake2b(content).hexdigest(),
            "sources": [source],
        }
    else:
        sources = old["sources"] + [source] * (source not in old["sources"])
        comparable = old["row"]["comparable"] or dataset.row.comparable
        manifest = old | {"sources": sources, "row": old["row"] | {"comparable": comparable}}
    storage.write(f"{FOLDER}/{dataset.id}/manifest.json", dumps(manifest, indent=1).encode())
    return manifest


def _arrays(dataset: Dataset) -> dict[str, NDArray[np.uint8]]:
    return {
        "train.pixels": dataset.train.pixels, "train.labels": dataset.train.labels,
        "test.pixels": dataset.test.pixels, "test.labels": dataset.test.labels,
    }  # fmt: skip


def read_manifest(storage: Storage, dataset_id: str) -> dict[str, Any] | None:
    """The manifest of a stored dataset, None where there is none or it is not one of ours."""
    content = storage.read_if_there(f"{FOLDER}/{dataset_id}/manifest.json")
    try:
        manifest = loads(content) if content else {}
    except ValueError:
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("format") == FORMAT else None


def stored_manifests(storage: Storage) -> list[dict[str, Any]]:
    """Manifests of all datasets in storage, by id."""
    found = (read_manifest(storage, name) for name in storage.names(FOLDER))
    return [manifest for manifest in found if manifest is not None]


def read_dataset(storage: Storage, dataset_id: str) -> Dataset:
    """A stored dataset, its file's checksum verified.

    Raises:
        InputError: it is not there, or its bytes are not those its manifest names.
    """
    manifest = prepared_manifest(storage, dataset_id)
    return dataset_of(manifest, read_images(storage, manifest))


def prepared_manifest(storage: Storage, dataset_id: str) -> dict[str, Any]:
    """The manifest of a dataset that must be in storage.

    Raises:
        InputError: it is not there.
    """
    manifest = read_manifest(storage, dataset_id)
    if manifest is None or manifest["id"] != dataset_id:
        raise InputError(
            f"dataset {dataset_id} is not in {storage.uri}; `resnet-repro data prepare` puts it "
            "there"
        )
    return manifest


def read_images(storage: Storage, manifest: dict[str, Any]) -> bytes:
    """The images file of a stored dataset.

    Raises:
        InputError: its bytes are not those the manifest names.
    """
    path = images_path(manifest["id"])
    content = storage.read_if_there(path) or b""
    if not intact(manifest, content):
        raise InputError(
            f"{storage.path(path)}: damaged (checksum differs); delete the folder and prepare it "
            "again"
        )
    return content


def intact(manifest: dict[str, Any], content: bytes) -> bool:
    """Whether these are the bytes of the images file that a manifest names."""
    return len(content) == manifest["size"] and blake2b(content).hexdigest() == manifest["checksum"]


def dataset_of(manifest: dict[str, Any], content: bytes) -> Dataset:
    """A dataset from its manifest and its intact images file.

    Raises:
        InputError: the file holds something else; pickles are never loaded.
    """
    try:
        arrays = load_arrays(content)
    except SafetensorError as error:
        raise InputError(
            f"dataset {manifest['id']}: {images_path(manifest['id'])} is not images of ours "
            f"({error}); prepare it again"
        ) from error
    splits = [
        Images(arrays[f"{split}.pixels"], arrays[f"{split}.labels"]) for split in ("train", "test")
    ]
    return Dataset(DatasetRow(**manifest["row"]), splits[0], splits[1], manifest["id"])


def verify_dataset(storage: Storage, dataset_id: str) -> Dataset:
    """Read a stored dataset and derive its id again from its pixels and labels.

    Raises:
        InputError: the checksum or the id differs.
    """
    dataset = read_dataset(storage, dataset_id)
    again = canonical_dataset(dataset.row, dataset.train, dataset.test)
    if again.id != dataset_id:
        raise InputError(
            f"dataset {dataset_id} in {storage.uri}: its images hash to {again.id}; prepare it "
            "again"
        )
    return replace(again, row=dataset.row)
