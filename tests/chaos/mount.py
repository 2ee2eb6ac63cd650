"""A storage that is a file system of its own, so that it can be full, or read-only, for a while."""

import errno
import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path

SIZE = "256m"
TRIES = 50


def mountable() -> str:
    """Why no file system can be mounted here; empty if one can."""
    return "" if os.geteuid() == 0 else "needs root"


def mount(folder: Path) -> None:
    """Mount an empty one on a folder, unless a campaign that was killed has left one there.

    Before nodes start: what is mounted later is not seen in their namespaces.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not folder.is_mount():
        _mount("-t", "tmpfs", "-o", f"size={SIZE}", "storage", str(folder))
    free(folder)
    set_writable(folder, True)


def unmount(folder: Path) -> None:
    """Take it away, with all that is in it."""
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)


def fill(folder: Path) -> None:
    """Take all the room that is left."""
    with open(folder / "filler", "wb", buffering=0) as file:
        for block in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(block))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def free(folder: Path) -> None:
    """Give the room back."""
    with suppress(OSError):
        (folder / "filler").unlink()


def set_writable(folder: Path, writable: bool) -> None:
    """Make it read-only for everybody, in every namespace, or writable again."""
    for tries_left in reversed(range(TRIES)):
        try:
            return _mount("-o", f"remount,{'rw' if writable else 'ro'}", str(folder))
        except RuntimeError:  # busy as long as anybody writes a file
            if not tries_left:
                raise
            time.sleep(0.05)


def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"mount {' '.join(words)}: {done.stderr.strip()}")
