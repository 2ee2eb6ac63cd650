"""How a worker reads its dataset: in place, or through one copy on each node.

The manifest in storage stays the authority: it is read every time, and a copy counts only while it
has the manifest's checksum (of photographs: the size of a file whose name is made of it). Nothing
is ever deleted here, and where copies are kept is the caller's choice. Torch-free.
"""

import logging
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.data.datasets import Dataset, DatasetSpec
from pipeline.data.photo_shards import SPLITS, Photos, check_files, holds_photographs, open_photos
from pipeline.data.progress import silent
from pipeline.data.stored import (
    dataset_of,
    images_path,
    intact,
    read_dataset,
    read_images,
    require_stored,
    verify_dataset,
)
from pipeline.errors import InputError, first_line
from pipeline.storage import Storage

WAIT_SECONDS = 600.0
"""How long a worker waits for another one's transfer before it makes its own."""

logger = logging.getLogger(__name__)


def staged_dataset(
    storage: Storage, dataset_id: str, folder: Path | None, splits: tuple[str, ...] = SPLITS
) -> Dataset | Photos:
    """A stored dataset, through `folder/datasets/<id>`, where a copy that is not right is replaced.

    Storage that is a local or mounted folder is read in place: the page cache serves every run on
    the node. So is any storage without a `folder`. A folder that cannot be written costs a warning,
    never the run.

    Raises:
        InputError: the dataset is not in storage, or is damaged there.
    """
    manifest = require_stored(storage, dataset_id)
    if holds_photographs(manifest):
        return open_photos(storage, dataset_id, folder, logger.warning, splits)
    if storage.local is not None or folder is None:
        return read_dataset(storage, dataset_id)
    try:
        copies = Storage(str(folder))
    except InputError as error:  # what lies there is no folder
        logger.warning("dataset %s: no copy is kept (%s)", dataset_id, error)
        return read_dataset(storage, dataset_id)
    # Without the lock first: all but the first run on a node find the copy whole.
    content = _copy(copies, manifest)
    if content is None:
        content = _transfer(storage, copies, manifest)
    return dataset_of(manifest, content)


def verify_stored(storage: Storage, dataset_id: str) -> DatasetSpec:
    """Check a stored dataset of either kind, and say what it is.

    Of small images the id is derived again, of photographs every file's checksum: `resnet-repro
    data verify` decodes them all.

    Raises:
        InputError: a checksum or the id differs.
    """
    manifest = require_stored(storage, dataset_id)
    if holds_photographs(manifest):
        check_files(storage, manifest, silent)
        return DatasetSpec(**manifest["row"])
    return verify_dataset(storage, dataset_id).spec


def _copy(copies: Storage, manifest: dict[str, Any]) -> bytes | None:
    """The images file in the folder of copies, if it can be read and is what the manifest says."""
    try:
        content = copies.read(images_path(manifest["id"]))
    except OSError:
        return None
    return content if intact(manifest, content) else None


def _transfer(storage: Storage, copies: Storage, manifest: dict[str, Any]) -> bytes:
    """The images file from storage: a node's first worker copies it, the others wait for that."""
    path = images_path(manifest["id"])
    lock = Path(copies.path(f"{path}.lock"))
    content = None
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        # A soft lock would outlive a worker that is killed. The wait ends (as an OSError), so that
        # a worker that hangs costs the others a transfer and not the run.
        with FileLock(lock, timeout=WAIT_SECONDS, fallback_to_soft=False):
            # Looked at again: whoever held the lock before has brought it.
            content = _copy(copies, manifest)
            if content is None:
                content = read_images(storage, manifest)
                copies.write(path, content)
    except OSError as error:
        logger.warning(
            "dataset %s: no copy is kept in %s (%s); reading from storage",
            manifest["id"],
            copies.uri,
            first_line(error),
        )
    # Storage is read where no copy can be kept; what was read before a full disk is not read twice.
    return read_images(storage, manifest) if content is None else content
