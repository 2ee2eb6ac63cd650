"""Bundles of other people's results in a storage: its reports are about their runs too."""

from hashlib import blake2b

from analysis.measured.bundle import unpack
from analysis.measured.frames import Frames
from pipeline.storage import Storage

IMPORTS = "imports"


def keep_bundle(storage: Storage, content: bytes) -> None:
    """Keep a bundle by its content, so that importing it twice changes nothing."""
    storage.write(f"{IMPORTS}/{blake2b(content, digest_size=16).hexdigest()}.zip", content)


def imported_bundles(storage: Storage) -> list[tuple[str, Frames]]:
    """What was imported into a storage, by its path.

    Raises:
        InputError: a bundle was damaged since.
    """
    names = [f"{IMPORTS}/{name}" for name in storage.names(IMPORTS) if name.endswith(".zip")]
    paths = {name: storage.path(name) for name in names}
    return [(path, unpack(storage.read(name), path)[0]) for name, path in paths.items()]
