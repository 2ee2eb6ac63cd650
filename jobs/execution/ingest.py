"""Photographs into storage, as Ray tasks over the cluster: a task a part, and one for each official
archive's checksum.
"""

import os
import shutil
from hashlib import md5
from pathlib import Path
from typing import Any

import ray

from pipeline.data.photo_ingest import Reading, finish, ingest_part, read_record
from pipeline.data.photo_parts import Part
from pipeline.data.photo_shards import holds_photographs
from pipeline.data.photo_sources import Listing, list_source
from pipeline.data.preparation import file_mark
from pipeline.data.progress import Progress
from pipeline.data.stored import stored_manifests
from pipeline.errors import InputError, first_line
from pipeline.storage import Storage


def ingest(
    storage: Storage, name: str, path: Path, reading: Reading, progress: Progress
) -> dict[str, Any]:
    """Put the photographs of a source into storage and return the dataset's manifest; needs a Ray
    cluster.

    Given again after an interruption it goes on; for a source that was read before, it returns what
    came of it.

    Raises:
        InputError: the source is not whole, an image cannot be decoded, or there is no room.
    """
    listing = list_source(path)
    known = file_mark(path)
    source = {
        "kind": listing.layout,
        "path": str(path),
        "mark": known,
        "longest_short_side": reading.longest_short_side,
        "excluded": list(reading.excluded),
    }
    for manifest in stored_manifests(storage):
        whole = holds_photographs(manifest) and all(
            storage.file_size(shard["path"]) == shard["size"] for shard in manifest["shards"]
        )
        if whole and source in manifest["sources"]:
            return manifest
    key = reading.key(listing, known)
    missing = [
        n for n in range(len(listing.parts)) if read_record(storage, key, n, reading) is None
    ]
    _check_room(storage, path, len(missing) / len(listing.parts))
    official = _carry_out(storage, key, listing, reading, missing, progress)
    return finish(storage, name, key, listing, reading, source, official)


def _carry_out(
    storage: Storage,
    key: str,
    listing: Listing,
    reading: Reading,
    missing: list[int],
    progress: Progress,
) -> bool:
    """Read the missing parts; whether the source is the official archives."""
    sums = [_md5.remote(archive) for archive in listing.archives]
    waiting = [
        _ingest.remote(storage.uri, key, number, listing.parts[number], listing.classes, reading)
        for number in missing
    ]
    total, done = len(listing.parts), len(listing.parts) - len(missing)
    progress(done, total)
    try:
        while waiting:
            (ended,), waiting = ray.wait(waiting)
            refused = ray.get(ended)
            if refused:
                raise InputError(refused)
            done += 1
            progress(done, total)
        return bool(sums) and ray.get(sums) == _official_sums()
    finally:
        for task in waiting:
            ray.cancel(task, force=True)


@ray.remote(max_retries=3)
def _ingest(storage: str, key: str, number: int, part: Part, classes: int, reading: Reading) -> str:
    """One part; what is wrong with it, if anything is: trying again would not help."""
    try:
        ingest_part(Storage(storage), key, number, part, classes, reading)
    except InputError as error:
        return str(error)
    except OSError as error:
        return f"{storage}: cannot be written from {os.uname().nodename} ({first_line(error)}); give the same command again"
    return ""


@ray.remote(max_retries=3)
def _md5(path: str) -> str:
    """An archive's checksum; empty where it cannot be read, which makes it no official one."""
    digest = md5(usedforsecurity=False)
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    except OSError:
        return ""
    return digest.hexdigest()


def _official_sums() -> list[str]:
    """The archives' md5s as torchvision knows them, in the order of a listing."""
    from torchvision.datasets.imagenet import ARCHIVE_META

    return [ARCHIVE_META[name][1] for name in ("train", "val", "devkit")]


def _check_room(storage: Storage, path: Path, share: float) -> None:
    """Refuse a local storage that cannot hold the source's images.

    Raises:
        InputError: says how much is wanted and how much there is.
    """
    if storage.local is None:
        return
    wanted = share * sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    free = shutil.disk_usage(storage.local).free
    if wanted > free:
        raise InputError(
            f"--storage {storage.uri}: {wanted / 1e9:.1f} GB are wanted and {free / 1e9:.1f} GB "
            "are free; make room, "
            "or name another place"
        )
