"""Photographs into storage by Ray tasks: one for each part, and for each archive's checksum.

What a part is and what becomes of it is `pipeline.data.photo_parts` and `photo_ingest`.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import ray

from jobs.execution.cluster import remote
from pipeline.data.download import md5_of
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
    """Put the photographs of a source into storage and return the dataset's manifest.

    Needs a Ray cluster. Given again after an interruption it goes on; for a source that was read
    before, it returns what came of it.

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
    # The same source, read in the same way, is not read again unless a shard of it is gone.
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
    part_task, md5_task = remote(_ingest, max_retries=3), remote(_md5, max_retries=3)
    # Checksums are begun first, as each takes longer than a part; parts are read meanwhile.
    sums = [md5_task.remote(archive) for archive in listing.archives]
    waiting = [
        part_task.remote(storage.uri, key, number, listing.parts[number], listing.classes, reading)
        for number in missing
    ]
    total, done = len(listing.parts), len(listing.parts) - len(missing)
    progress(done, total)
    try:
        # Whichever part ends next: the first that is refused ends the command, not the last.
        while waiting:
            (ended,), waiting = ray.wait(waiting)
            refused = ray.get(ended)
            if refused:
                raise InputError(refused)
            done += 1
            progress(done, total)
        return bool(sums) and ray.get(sums) == _official_sums()
    finally:
        # What is still running would write into storage after the command has ended.
        for task in waiting:
            ray.cancel(task, force=True)


def _ingest(storage: str, key: str, number: int, part: Part, classes: int, reading: Reading) -> str:
    """Read one part, and return what is wrong with it, if anything is."""
    # Returned and not raised: Ray would wrap it into an error of its own, with a traceback. What
    # `max_retries` is for is the death of a worker or a node.
    try:
        ingest_part(Storage(storage), key, number, part, classes, reading)
    except InputError as error:
        return str(error)
    except OSError as error:
        node = os.uname().nodename
        return (
            f"{storage}: cannot be written from {node} ({first_line(error)}); give the same "
            "command again"
        )
    return ""


def _md5(path: str) -> str:
    """An archive's checksum; empty where it cannot be read, which makes it no official one."""
    try:
        return md5_of(Path(path))
    except InputError:
        return ""


def _official_sums() -> list[str]:
    """The archives' md5s as torchvision knows them, in the order of a listing."""
    from torchvision.datasets.imagenet import ARCHIVE_META

    return [ARCHIVE_META[name][1] for name in ("train", "val", "devkit")]


def _check_room(storage: Storage, path: Path, share: float) -> None:
    """Refuse a local storage that cannot hold the source's images.

    Raises:
        InputError: says how much is needed and how much there is.
    """
    if storage.local is None:
        return
    # Encoded images take as much room in shards as in their source.
    needed = share * sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    free = shutil.disk_usage(storage.local).free
    if needed > free:
        raise InputError(
            f"--storage {storage.uri}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB "
            "are free; make room, or name another storage"
        )
