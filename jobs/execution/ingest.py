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
from pipeline.runs.provenance import code_trouble, source_digest
from pipeline.storage import Storage


def ingest(
    storage: Storage,
    name: str,
    path: Path,
    reading: Reading,
    progress: Progress,
    listing: Listing | None = None,
) -> dict[str, Any]:
    """Put the photographs of a source into storage and return the dataset's manifest.

    Needs a Ray cluster. Given again after an interruption it goes on; for a source that was read
    before, it returns what came of it. `listing` is what lies at the path, where it is known.

    Raises:
        InputError: the source is not whole, an image cannot be decoded, or there is no room.
    """
    listing = listing or list_source(path)
    known = file_mark(path)
    source = {
        "kind": listing.layout,
        "path": str(path),
        "mark": known,
        "longest_short_side": reading.longest_short_side,
        "excluded": list(reading.excluded),
        **({"notes": list(listing.notes)} if listing.notes else {}),
    }
    manifest = came_of(storage, source, listing)
    if manifest is not None:
        return manifest
    key = reading.key(listing, known)
    missing = [
        n for n in range(len(listing.parts)) if read_record(storage, key, n, reading) is None
    ]
    _check_room(storage, listing, missing)
    official = _carry_out(storage, key, listing, reading, missing, progress)
    return finish(storage, name, key, listing, reading, source, official)


def came_of(storage: Storage, source: dict[str, Any], listing: Listing) -> dict[str, Any] | None:
    """What came of the same source, read in the same way; None if it is to be read (again).

    That is so where a shard is gone, or an earlier version read other files of it.
    """
    for manifest in stored_manifests(storage):
        # How it is said that files were left out makes no other source; whether it is said does,
        # as earlier versions read such files, or passed over others without a word.
        known = [_noted(other) for other in manifest["sources"]]
        if not holds_photographs(manifest) or _noted(source) not in known:
            continue
        # Earlier versions passed over images by their suffix, without a note.
        counts = (manifest["train_images"], manifest["test_images"], len(manifest["left_out"]))
        if listing.images in (None, sum(counts)) and all(
            storage.file_size(shard["path"]) == shard["size"] for shard in manifest["shards"]
        ):
            return manifest
    return None


def _noted(source: dict[str, Any]) -> dict[str, Any]:
    """A source with whether it has notes in place of their words."""
    return source | {"notes": bool(source.get("notes"))}


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
        part_task.remote(
            *(source_digest(), storage.uri, key, number),
            *(listing.parts[number], listing.classes, reading),
        )
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


def _ingest(
    source: str,
    storage: str,
    key: str,
    number: int,
    part: Part,
    classes: int,
    reading: Reading,
) -> str:
    """Read one part, and return what is wrong with it, if anything is.

    `source` is the digest of the command's code.
    """
    if trouble := code_trouble(source):
        return trouble
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


def _check_room(storage: Storage, listing: Listing, missing: list[int]) -> None:
    """Refuse a local storage that cannot hold the images of the missing parts.

    Raises:
        InputError: says how much is needed and how much there is.
    """
    if storage.local is None:
        return
    # Encoded images take as much room in shards as in their source.
    files = {file for part in listing.parts for file in part.paths}
    share = len(missing) / len(listing.parts)
    needed = share * sum(os.stat(file).st_size for file in files if os.path.exists(file))
    free = shutil.disk_usage(storage.local).free
    if needed > free:
        raise InputError(
            f"--storage {storage.uri}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB "
            "are free; make room, or name another storage"
        )
