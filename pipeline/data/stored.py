"""Datasets in storage: written once, found by name or id, read and verified (torch-free).

A dataset is a folder `datasets/<id>` with its manifest, written last, which names every other file
with its size and checksum. Photographs have manifests here too, and their files elsewhere
(`pipeline.data.photo_shards`).
"""

import re
from collections.abc import Callable
from dataclasses import asdict, replace
from hashlib import blake2b
from json import dumps
from typing import Any, Literal, NotRequired

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from typing_extensions import TypedDict

from pipeline.data.catalogue.table import DATASETS
from pipeline.data.datasets import FORMAT, Dataset, DatasetSpec, Images, canonical_dataset
from pipeline.errors import InputError
from pipeline.storage import Storage
from pipeline.stored_json import MOST_BYTES, DamagedError, check_as, parse

FOLDER = "datasets"
SHORTEST_PREFIX = 4
"""Digits of an id that are enough to name a dataset by."""


class ImagesManifest(TypedDict):
    """`manifest.json` of a dataset of images of one size."""

    id: str
    row: DatasetSpec  # as a dictionary of its fields
    train_images: int
    test_images: int
    sources: list[dict[str, Any]]
    size: int
    checksum: str
    class_names: NotRequired[list[str]]


class StoredFile(TypedDict):
    """What a manifest says of a file of photographs."""

    path: str
    size: int
    checksum: str
    split: NotRequired[str]
    rows: NotRequired[int]


class PhotosManifest(TypedDict):
    """`manifest.json` of a dataset of photographs."""

    id: str
    kind: Literal["photographs"]
    row: DatasetSpec  # as a dictionary of its fields
    train_images: int
    test_images: int
    sources: list[dict[str, Any]]
    classes_seen: dict[str, int]
    left_out: list[str]
    notes: list[str]
    class_names: NotRequired[list[str]]
    shards: list[StoredFile]
    index: StoredFile
    mean: StoredFile


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
        # Images first, manifest last: an interrupted write leaves no dataset, only a file that the
        # next try writes over.
        content = save_arrays(_arrays(dataset))
        storage.write(images_path(dataset.id), content)
        manifest = {
            "format": FORMAT,
            "id": dataset.id,
            "row": asdict(dataset.spec),
            "train_images": len(dataset.train),
            "test_images": len(dataset.test),
            "size": len(content),
            "checksum": blake2b(content).hexdigest(),
            "sources": [source],
        }
    else:
        # The images are there already. The name stays, as runs are filed under it (`dataset_key`).
        sources = old["sources"] + [source] * (source not in old["sources"])
        comparable = old["row"]["comparable"] or dataset.spec.comparable
        manifest = old | {"sources": sources, "row": old["row"] | {"comparable": comparable}}
    manifest = with_class_names(manifest, dataset.class_names)
    storage.write(f"{FOLDER}/{dataset.id}/manifest.json", dumps(manifest, indent=1).encode())
    return manifest


def with_class_names(manifest: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """A manifest with what a source calls the classes, unless it has names already."""
    return (
        manifest | {"class_names": manifest.get("class_names") or list(names)}
        if names
        else manifest
    )


def class_names(manifest: dict[str, Any]) -> tuple[str, ...]:
    """What a stored dataset's classes are called, by number; empty where nobody has said.

    Its files' own names come before those that the catalogue has for a dataset of its name.
    """
    row = manifest["row"]
    # A copy under another name that was verified against the paper's own data has its classes.
    known = [
        each
        for name, each in DATASETS.items()
        if name == row["name"]
        or (row["comparable"] and each.spec.comparable and each.spec.side == row["side"])
    ]
    names = tuple(manifest.get("class_names") or (known[0].class_names if known else ()))
    return names if len(names) == row["classes"] else ()


def _arrays(dataset: Dataset) -> dict[str, NDArray[np.uint8]]:
    return {
        "train.pixels": dataset.train.pixels, "train.labels": dataset.train.labels,
        "test.pixels": dataset.test.pixels, "test.labels": dataset.test.labels,
    }  # fmt: skip


def read_manifest(storage: Storage, dataset_id: str) -> dict[str, Any] | None:
    """The manifest of a stored dataset, None where there is none or it is not one of ours."""
    try:
        return _manifest(storage, dataset_id)
    except InputError:  # damaged: as good as not there, and written anew by `data prepare`
        return None


def _manifest(storage: Storage, dataset_id: str) -> dict[str, Any] | None:
    """A manifest; None where there is none, or it is of another format.

    Raises:
        InputError: it is damaged, or of something else than its folder says.
    """
    path = f"{FOLDER}/{dataset_id}/manifest.json"
    content, where = storage.read_if_there(path, MOST_BYTES), storage.path(path)
    if content is None:
        return None
    try:
        manifest: Any = parse(content)
    except ValueError as error:
        raise DamagedError(f"{where}: damaged ({error}); prepare the dataset again") from None
    # Someone else's folder, or a later format's manifest, is no dataset here and is left alone.
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        return None
    check_as(content, PhotosManifest if "kind" in manifest else ImagesManifest, where)
    files = [manifest[name] for name in ("index", "mean") if name in manifest]
    paths = [file["path"] for file in [*files, *manifest.get("shards", ())]]
    # They name what is read, copied and deleted: nothing outside the storage.
    inside = all(re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", path) for path in paths)
    if manifest["id"] != dataset_id or not inside:
        raise DamagedError(f"{where}: names what does not belong to it; prepare the dataset again")
    return manifest


def stored_manifests(
    storage: Storage, damaged: Callable[[str], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Manifests of all datasets in storage, by id; `damaged` is told of those that are."""
    found = []
    for name in storage.names(FOLDER):
        try:
            manifest = _manifest(storage, name)
        except InputError as error:
            damaged(str(error))
            continue
        found += [manifest] if manifest is not None else []
    return found


def find_stored(storage: Storage, name: str) -> dict[str, Any] | None:
    """The manifest of the prepared dataset of that name or id; None where there is none.

    The first four digits of an id, or more, are enough.

    Raises:
        InputError: more than one dataset is meant.
    """
    # A whole id names its folder: workers, which know it, then read one manifest and not all.
    if re.fullmatch("[0-9a-f]{16}", name):
        manifest = read_manifest(storage, name)
        if manifest is not None and manifest["id"] == name:
            return manifest
    meant = [
        manifest
        for manifest in stored_manifests(storage)
        if name == manifest["row"]["name"]
        or (len(name) >= SHORTEST_PREFIX and manifest["id"].startswith(name))
    ]
    if len(meant) > 1:
        ids = ", ".join(manifest["id"] for manifest in meant)
        raise InputError(
            f"{name}: {storage.uri} has several datasets of that name; say which by id: {ids}"
        )
    return meant[0] if meant else None


def require_stored(storage: Storage, name: str) -> dict[str, Any]:
    """The manifest of a dataset that must be prepared, by name or id.

    Raises:
        InputError: it is not prepared, or more than one is meant.
    """
    manifest = find_stored(storage, name)
    if manifest is None:
        prepared = ", ".join(m["row"]["name"] for m in stored_manifests(storage)) or "none"
        raise InputError(
            f"{name} is not prepared in {storage.uri} (prepared: {prepared}); see `resnet-repro "
            "data prepare`"
        )
    return manifest


def read_dataset(storage: Storage, dataset_id: str) -> Dataset:
    """A stored dataset, its file's checksum verified.

    Raises:
        InputError: it is not there, or its bytes are not those its manifest names.
    """
    manifest = require_stored(storage, dataset_id)
    return dataset_of(manifest, read_images(storage, manifest))


def read_images(storage: Storage, manifest: dict[str, Any]) -> bytes:
    """The images file of a stored dataset.

    Raises:
        InputError: its bytes are not those the manifest names.
    """
    path = images_path(manifest["id"])
    # Checked before anything is made of it: safetensors would take a flipped bit for a pixel.
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
    return Dataset(DatasetSpec(**manifest["row"]), splits[0], splits[1], manifest["id"])


def verify_dataset(storage: Storage, dataset_id: str) -> Dataset:
    """Read a stored dataset and derive its id again from its pixels and labels.

    Raises:
        InputError: the checksum or the id differs.
    """
    dataset = read_dataset(storage, dataset_id)
    again = canonical_dataset(dataset.spec, dataset.train, dataset.test)
    if again.id != dataset_id:
        raise InputError(
            f"dataset {dataset_id} in {storage.uri}: its images hash to {again.id}; prepare it "
            "again"
        )
    return replace(again, spec=dataset.spec)
