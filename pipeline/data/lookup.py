"""Datasets on a user's behalf: finding the one that is named, and preparing it into storage where
it is not there yet.
"""

import re
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pipeline.data.cifar10 import BINARY, PYTHON, cifar10_archive, download_cifar10
from pipeline.data.datasets import (
    DATASETS,
    Dataset,
    Images,
    read_dataset,
    stored_manifests,
    write_dataset,
)
from pipeline.data.fashion_mnist import download_fashion_mnist, fashion_mnist, has_idx_files
from pipeline.data.sources import Progress, digits, parquet_folder
from pipeline.errors import InputError
from pipeline.recipe.overrides import nearest
from pipeline.storage import Storage

CACHE = Path.home() / ".cache" / "resnet-repro"
"""Where downloads are kept, a folder for each dataset."""


def find_dataset(storage: Storage, data: str, progress: Progress) -> dict[str, Any]:
    """The manifest of the dataset that `data` names: prepared (name or id), embedded, or a path
    that is prepared now.

    Raises:
        InputError: nothing of that name, or files that cannot be prepared.
    """
    stored = stored_named(storage, data)
    if stored:
        return stored
    if data == "digits":
        return write_dataset(storage, digits(), {"kind": "embedded"})
    if data in DATASETS and not Path(data).exists():
        raise InputError(
            f"--data {data}: not prepared in {storage.uri}; run `resnet-repro data prepare {data} "
            f"--storage {storage.uri}` "
            f"with --from PATH or --download ({DATASETS[data].arrives})"
        )
    check_named(storage, data)
    return prepare_path(storage, Path(data).expanduser(), None, progress)


def check_named(storage: Storage, data: str) -> None:
    """Refuse what names neither a dataset nor a path.

    Raises:
        InputError: says what comes nearest.
    """
    if data not in DATASETS and not Path(data).expanduser().exists():
        known = DATASETS.keys() | {
            manifest["row"]["name"] for manifest in stored_manifests(storage)
        }
        raise InputError(
            f"--data {data}: no dataset and no path of that name; {nearest(data, sorted(known))}"
        )


def prepare(
    storage: Storage, name: str, path: Path | None, download: bool, progress: Progress
) -> dict[str, Any]:
    """Put a dataset into storage and return its manifest.

    Raises:
        InputError: it is unknown, or its files are missing, damaged or not what they should be.
    """
    if name == "digits" and path is None:
        return write_dataset(storage, digits(), {"kind": "embedded"})
    if path is None and name not in DATASETS:
        raise InputError(
            f"unknown dataset {name}; {nearest(name, DATASETS)} For files of your own give --from "
            "PATH"
        )
    if path is None:
        if not download and not (CACHE / name).exists():
            raise InputError(f"{name} comes by {DATASETS[name].arrives}")
        fetch = {"cifar10": download_cifar10, "fashion-mnist": download_fashion_mnist}[name]
        path = fetch(CACHE / name, progress)
    return prepare_path(storage, path, name, progress)


def prepare_path(
    storage: Storage, path: Path, name: str | None, progress: Progress
) -> dict[str, Any]:
    """Prepare an official archive, IDX files or a folder of parquet files; unchanged files are read
    only once.

    Raises:
        InputError: the path is missing or holds something else.
    """
    if not path.exists():
        raise InputError(f"--from {path}: no such file or folder")
    known = mark(path)
    for manifest in stored_manifests(storage):
        if any(source.get("mark") == known for source in manifest["sources"]):
            return manifest
    dataset = _read(path, name, progress)
    return write_dataset(storage, dataset, {"kind": "path", "path": str(path), "mark": known})


def _read(path: Path, name: str | None, progress: Progress) -> Dataset:
    if path.is_file():
        return cifar10_archive(path)
    for archive in (path / BINARY, path / PYTHON):
        if archive.exists():
            return cifar10_archive(archive)
    if has_idx_files(path):
        return fashion_mnist(path)
    given = name if name and name not in DATASETS else path.resolve().name
    given = re.sub(r"[^A-Za-z0-9._-]+", "-", given).strip("-.") or "images"
    return parquet_folder(path, f"{given}-parquet" if given in DATASETS else given, progress)


def verify_against(storage: Storage, name: str, archive: Path) -> dict[str, Any]:
    """Make a prepared copy of CIFAR-10 comparable with the paper, if it holds what the official
    archive holds.

    Raises:
        InputError: the archive is not official, or the copy differs from it (says by how much).
    """
    copy, official = (
        read_dataset(storage, manifest_of(storage, name)["id"]),
        cifar10_archive(archive),
    )
    if copy.id != official.id:
        missing = sum(
            _missing(getattr(official, split), getattr(copy, split)) for split in ("train", "test")
        )
        total = len(official.train) + len(official.test)
        raise InputError(
            f"{name} ({copy.id}) is not the official CIFAR-10 ({official.id}): {missing:,} of its "
            f"{total:,} images, "
            "with their labels and splits, are not there; results on it stay not comparable"
        )
    return write_dataset(
        storage, official, {"kind": "verified against", "path": str(archive), "mark": mark(archive)}
    )


def _missing(wanted: Images, found: Images) -> int:
    there = Counter(_pairs(found))
    return sum((Counter(_pairs(wanted)) - there).values())


def _pairs(images: Images) -> Iterator[tuple[bytes, int]]:
    return (
        (image.tobytes(), int(label))
        for image, label in zip(images.pixels, images.labels, strict=True)
    )


def mark(path: Path) -> str:
    """Changes when a file does: places, sizes and times of everything below a path."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    facts = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return blake2b(repr(facts).encode(), digest_size=16).hexdigest()


def stored_named(storage: Storage, name: str) -> dict[str, Any] | None:
    """The manifest of the prepared dataset of that name, or whose id begins so (four digits at the
    least).

    Raises:
        InputError: there are several.
    """
    prepared = stored_manifests(storage)
    stored = [
        m
        for m in prepared
        if name == m["row"]["name"] or (len(name) >= 4 and m["id"].startswith(name))
    ]
    if len(stored) > 1:
        ids = ", ".join(manifest["id"] for manifest in stored)
        raise InputError(
            f"{name}: {storage.uri} has several datasets of that name; say which by id: {ids}"
        )
    return stored[0] if stored else None


def manifest_of(storage: Storage, name: str) -> dict[str, Any]:
    """The manifest of a prepared dataset, by name or id.

    Raises:
        InputError: it is not prepared.
    """
    found = stored_named(storage, name)
    if found is None:
        prepared = ", ".join(m["row"]["name"] for m in stored_manifests(storage)) or "none"
        raise InputError(
            f"{name} is not prepared in {storage.uri} (prepared: {prepared}); see `resnet-repro "
            "data prepare`"
        )
    return found
