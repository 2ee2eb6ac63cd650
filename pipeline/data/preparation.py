"""Datasets on a user's behalf: the one that `--data` means, prepared into storage if need be.

A dataset is looked up by name or id in `pipeline.data.stored`. One that is not there yet comes from
the catalogue or from a path: what lies at a path is recognised by the catalogue's modules, and read
as parquet files where none of them knows it. Photographs are prepared by `jobs.execution.ingest`.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pipeline.data.catalogue import cifar10
from pipeline.data.catalogue.digits import DIGITS
from pipeline.data.catalogue.known_dataset import KnownDataset
from pipeline.data.catalogue.table import DATASETS
from pipeline.data.datasets import Dataset, Images
from pipeline.data.parquet import parquet_folder
from pipeline.data.progress import Progress
from pipeline.data.sources.source_files import beside
from pipeline.data.stored import find_stored, read_dataset, stored_manifests, write_dataset
from pipeline.errors import InputError
from pipeline.recipe.overrides import nearest
from pipeline.storage import Storage

CACHE = Path("~", ".cache", "resnet-repro")
"""Where downloads are kept, a folder for each dataset."""

RULES = 2
"""Of which files are read and what images become: what was read by others is read again."""


def resolve_dataset(storage: Storage, data: str, progress: Progress) -> dict[str, Any]:
    """The manifest of what `data` names: a prepared name or id, or a path that is prepared now.

    Raises:
        InputError: nothing of that name, or files that cannot be prepared.
    """
    # What is prepared comes first: a folder that happens to be called `cifar10` hides no dataset.
    stored = find_stored(storage, data)
    if stored:
        return stored
    check_dataset_name(storage, data)
    known = DATASETS.get(data)
    if known is not None and known.embedded is not None:
        return write_dataset(storage, known.embedded(), {"kind": "embedded"})
    if known is not None and not Path(data).exists():
        raise InputError(f"{data} is not prepared in {storage.uri}; {how_to_bring(storage, known)}")
    return prepare_path(storage, Path(data).expanduser(), None, progress)


def how_to_bring(storage: Storage, known: KnownDataset) -> str:
    """The command that prepares a known dataset, and what does without it."""
    source = "--download" if known.download else "--from FOLDER"
    says = f"`resnet-repro data prepare {known.name} {source} --storage {storage.uri}` brings it"
    if known.photographs:
        return f"{says} ({known.spec.arrives})"
    files = " (--from PATH: files that you have)" if known.download else ""
    return f"{says}{files}, and --data {DIGITS.name} needs no file"


def is_path(data: str) -> bool:
    """Whether there is a file or folder of this name."""
    try:
        return Path(data).expanduser().exists()
    # No home of that user, a name longer than file systems have them, a folder that is closed.
    except (RuntimeError, OSError):
        return False


def check_dataset_name(storage: Storage, data: str) -> None:
    """Refuse what names neither a dataset nor a path.

    Raises:
        InputError: says which names come nearest.
    """
    if data not in DATASETS and not is_path(data):
        prepared = {manifest["row"]["name"] for manifest in stored_manifests(storage)}
        raise InputError(
            f"--data {data}: no dataset and no path of that name; "
            f"{nearest(data, sorted(DATASETS.keys() | prepared))}"
        )


def prepare(
    storage: Storage, name: str, path: Path | None, download: bool, progress: Progress
) -> dict[str, Any]:
    """Put a dataset into storage and return its manifest.

    Raises:
        InputError: it is unknown, or its files are missing, damaged or not what they should be.
    """
    if path is not None:
        return prepare_path(storage, path, name, progress)
    known = DATASETS.get(name)
    if known is None:
        raise InputError(
            f"unknown dataset {name}; {nearest(name, DATASETS)} For files of your own give --from "
            "PATH"
        )
    if known.embedded is not None:
        return write_dataset(storage, known.embedded(), {"kind": "embedded"})
    # What was downloaded before is used again without being asked for: its checksum is looked at.
    kept = (CACHE / name).expanduser()
    if known.download is None or not (download or kept.exists()):
        raise InputError(f"{name} comes by {known.spec.arrives}")
    return prepare_path(storage, known.download(kept, progress), name, progress)


def prepare_path(
    storage: Storage, path: Path, name: str | None, progress: Progress
) -> dict[str, Any]:
    """Prepare what lies at a path; files that did not change are read only once.

    Raises:
        InputError: the path is missing or holds something else.
    """
    if not path.exists():
        raise InputError(f"--from {path}: no such file or folder")
    known = {"mark": file_mark(path), "rules": RULES}
    for manifest in stored_manifests(storage):
        # A folder may hold the archives of two datasets: the one that was read is the one meant
        # only where no other was named.
        meant = name not in DATASETS or manifest["row"]["name"] == name
        if meant and any(known.items() <= source.items() for source in manifest["sources"]):
            return manifest
    dataset = _read(path, name, progress)
    source: dict[str, Any] = {"kind": "path", "path": str(path), **known}
    if dataset.notes:
        source["notes"] = list(dataset.notes)
    return write_dataset(storage, dataset, source)


def source_notes(manifest: dict[str, Any], path: Path) -> list[str]:
    """What was noted of a source of a dataset when it was read: what lies there and is left out."""
    notes = [source.get("notes", ()) for source in manifest["sources"]
             if source.get("path") == str(path)]  # fmt: skip
    return [note for of_source in notes[-1:] for note in of_source]


def _read(path: Path, name: str | None, progress: Progress) -> Dataset:
    """The dataset at a path, whichever it is; `name` is what the user calls it.

    Raises:
        InputError: nothing is recognised there, or it is damaged.
    """
    # The one that was named is tried first, as a folder may hold the archives of two datasets.
    for known in sorted(DATASETS.values(), key=lambda known: known.name != name):
        found = known.find(path) if known.find else []
        if found and known.read:
            if name in DATASETS and known.name != name:
                raise InputError(f"--from {path}: holds {known.name}, not {name}")
            dataset = known.read(found[0])
            return replace(dataset, notes=dataset.notes + beside(found[0].name, found[1:]))
    if path.is_file():
        # A single file is an archive, and none that is recognised: the reader that refuses it says
        # which checksums would be right.
        named = DATASETS.get(name or "")
        read = named.read if named and named.read else cifar10.ARCHIVES.read
        return read(path)
    given = name if name and name not in DATASETS else path.resolve().name
    given = re.sub(r"[^A-Za-z0-9._-]+", "-", given).strip("-.") or "images"
    # A copy never takes the name of the dataset that it may be a copy of.
    return parquet_folder(path, f"{given}-parquet" if given in DATASETS else given, progress)


def verify_against(storage: Storage, manifest: dict[str, Any], archive: Path) -> dict[str, Any]:
    """Make a prepared copy of CIFAR-10 comparable, if it holds what the official archive holds.

    Raises:
        InputError: the archive is not official, or the copy differs from it (says by how much).
    """
    copy, official = read_dataset(storage, manifest["id"]), cifar10.ARCHIVES.read(archive)
    if not official.spec.comparable:
        raise InputError(
            f"--against {archive}: nobody vouches for these files, which have no published "
            "checksums; name an official archive, or what the python one unpacks to"
        )
    # Equal ids are equal pixels and labels. The rest says how far apart the two are.
    if copy.id != official.id:
        missing = sum(
            _missing(getattr(official, split), getattr(copy, split)) for split in ("train", "test")
        )
        total = len(official.train) + len(official.test)
        raise InputError(
            f"{manifest['row']['name']} ({copy.id}) is not the official CIFAR-10 ({official.id}): "
            f"{missing:,} of its {total:,} images, with their labels and splits, are not there; "
            "results on it stay not comparable"
        )
    source = {"kind": "verified against", "path": str(archive), "mark": file_mark(archive)}
    return write_dataset(storage, official, source)


def _missing(expected: Images, found: Images) -> int:
    """How many images of one split are not in another, each counted as often as it occurs."""
    return sum((Counter(_pairs(expected)) - Counter(_pairs(found))).values())


def _pairs(images: Images) -> Iterator[tuple[bytes, int]]:
    return (
        (image.tobytes(), int(label))
        for image, label in zip(images.pixels, images.labels, strict=True)
    )


def file_mark(path: Path) -> str:
    """Changes when a file does: places, sizes and times of everything below a path."""
    # No contents: ImageNet's 150 GB would be read before a second `data prepare` says "done".
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    facts = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return blake2b(repr(facts).encode(), digest_size=16).hexdigest()
