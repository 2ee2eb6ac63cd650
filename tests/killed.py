"""A command that is killed at one of the moments at which it changes files, and how many it has.

Python says before it opens, renames or deletes a file (its audit events). A file that is opened to
be written is left with half a line in it, as a machine that loses its power would leave it.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "pyarrow.delete")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def watch(folder: Path, at: int | None, counted: Path) -> None:
    """From now on, count this process's changes below a folder in a file; die at number `at`."""
    inside, count = str(folder.resolve()), 0
    descriptor = os.open(counted, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def changes(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in CHANGES and event != "open":
            return
        path = arguments[0]
        if not isinstance(path, str | bytes | os.PathLike):
            return
        if not os.path.abspath(os.fsdecode(path)).startswith(inside):
            return
        if event == "open" and not arguments[2] & WRITING:
            return
        count += 1
        os.pwrite(descriptor, b"%d" % count, 0)
        if count == at:
            if event == "open" and not os.path.exists(path):
                torn = os.open(path, os.O_WRONLY | os.O_CREAT)
                os.write(torn, b'{"format": "resnet-')
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(changes)
    _say_deletions()


def _say_deletions() -> None:
    """A storage deletes by pyarrow, of which Python says nothing."""
    from pipeline.storage import Storage

    deletes: Callable[[Storage, str], None] = Storage._delete

    def delete(self: Storage, path: str) -> None:
        sys.audit("pyarrow.delete", self.path(path))
        deletes(self, path)

    Storage._delete = delete  # type: ignore[method-assign]
