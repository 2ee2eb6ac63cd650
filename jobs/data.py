"""Datasets on a user's behalf: finding the one that is named, and preparing it into storage where it is not there yet."""

import re
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pipeline.datasets import DATASETS, Dataset, stored_manifests, write_dataset
from pipeline.errors import InputError
from pipeline.overrides import nearest
from pipeline.sources import Progress, cifar10_archive, digits, download_cifar10, parquet_folder
from pipeline.storage import Storage


def find_dataset(storage: Storage, data: str, progress: Progress) -> dict[str, Any]:
    """The manifest of the dataset that `data` names: prepared (name or id), embedded, or a path that is prepared now.

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
            f"--data {data}: not prepared in {storage.uri}; run `resnet-repro data prepare {data} --storage {storage.uri}` "
            f"with --from PATH or --download ({DATASETS[data].arrives})"
        )
    if not Path(data).expanduser().exists():
        known = DATASETS.keys() | {manifest["row"]["name"] for manifest in stored_manifests(storage)}
        raise InputError(f"--data {data}: no dataset and no path of that name; {nearest(data, sorted(known))}")
    return prepare_path(storage, Path(data).expanduser(), None, progress)


def prepare(storage: Storage, name: str, path: Path | None, download: bool, progress: Progress) -> dict[str, Any]:
    """Put a dataset into storage and return its manifest.

    Raises:
        InputError: it is unknown, or its files are missing, damaged or not what they should be.
    """
    if name == "digits" and path is None:
        return write_dataset(storage, digits(), {"kind": "embedded"})
    if path is None and name not in DATASETS:
        raise InputError(f"unknown dataset {name}; {nearest(name, DATASETS)} For files of your own give --from PATH")
    if path is None:
        archive = Path.home() / ".cache" / "resnet-repro" / "cifar-10-binary.tar.gz"
        if not archive.exists():
            if not download:
                raise InputError(f"{name} comes by {DATASETS[name].arrives}")
            download_cifar10(archive, progress)
        path = archive
    return prepare_path(storage, path, name, progress)


def prepare_path(storage: Storage, path: Path, name: str | None, progress: Progress) -> dict[str, Any]:
    """Prepare the official CIFAR-10 archive (a file) or a folder of parquet files; unchanged files are read only once.

    Raises:
        InputError: the path is missing or holds something else.
    """
    if not path.exists():
        raise InputError(f"--from {path}: no such file or folder")
    mark = _mark(path)
    for manifest in stored_manifests(storage):
        if any(source.get("mark") == mark for source in manifest["sources"]):
            return manifest
    dataset = _read(path, name, progress)
    return write_dataset(storage, dataset, {"kind": "path", "path": str(path), "mark": mark})


def _read(path: Path, name: str | None, progress: Progress) -> Dataset:
    if path.is_file():
        return cifar10_archive(path)
    archive = path / "cifar-10-binary.tar.gz"
    if archive.exists():
        return cifar10_archive(archive)
    given = name if name and name not in DATASETS else path.resolve().name
    given = re.sub(r"[^A-Za-z0-9._-]+", "-", given).strip("-.") or "images"
    return parquet_folder(path, f"{given}-parquet" if given in DATASETS else given, progress)


def _mark(path: Path) -> str:
    """Changes when a file does: places, sizes and times of everything below a path."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    facts = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return blake2b(repr(facts).encode(), digest_size=16).hexdigest()


def stored_named(storage: Storage, name: str) -> dict[str, Any] | None:
    """The manifest of the prepared dataset of that name, or whose id begins so (four digits at the least).

    Raises:
        InputError: there are several.
    """
    prepared = stored_manifests(storage)
    stored = [m for m in prepared if name == m["row"]["name"] or (len(name) >= 4 and m["id"].startswith(name))]
    if len(stored) > 1:
        ids = ", ".join(manifest["id"] for manifest in stored)
        raise InputError(f"{name}: {storage.uri} has several datasets of that name; say which by id: {ids}")
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
            f"{name} is not prepared in {storage.uri} (prepared: {prepared}); see `resnet-repro data prepare`"
        )
    return found
