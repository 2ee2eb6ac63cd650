"""Bundles of other people's results in a storage: its reports are about their runs too."""

from hashlib import blake2b
from typing import TYPE_CHECKING

from pipeline.storage import Storage

# Frames load pandas, which `status` need not wait for to count bundles.
if TYPE_CHECKING:
    from analysis.measured.frames import Frames

IMPORTS = "imports"


def keep_bundle(storage: Storage, content: bytes) -> None:
    """Keep a bundle by its content, so that importing it twice changes nothing."""
    storage.write(f"{IMPORTS}/{blake2b(content, digest_size=16).hexdigest()}.zip", content)


def bundle_names(storage: Storage) -> list[str]:
    """Where the bundles are that were imported into a storage."""
    return [f"{IMPORTS}/{name}" for name in storage.names(IMPORTS) if name.endswith(".zip")]


def imported_bundles(storage: Storage) -> "list[tuple[str, Frames]]":
    """What was imported into a storage, by its path.

    Raises:
        InputError: a bundle was damaged since.
    """
    from analysis.measured.bundle import unpack

    paths = {name: storage.path(name) for name in bundle_names(storage)}
    return [(path, unpack(storage.read(name), path)[0]) for name, path in paths.items()]
