"""What becomes of a command whose storage is full, read-only or away: one line, exit code 1."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.console.console import failed
from pipeline.errors import first_line, redacted

_REMEDIES = {
    errno.ENOSPC: "make room, of bytes and of inodes (`df -h`, `df -i`)",
    errno.EDQUOT: "make room within your quota",
    errno.EROFS: "make it writable",
    errno.EACCES: "ask for the right to it",
    errno.EPERM: "ask for the right to it",
}


@contextmanager
def failures_in_one_line(place: str) -> Iterator[None]:
    """Around what a command does with a storage, or another place that it reads or writes."""
    try:
        yield
    except BrokenPipeError:  # of whoever reads what the command prints
        raise
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "look whether it can be reached")
        # Without the file's name, where it has one: it may be a partial one that is gone by now.
        why = os.strerror(error.errno) if error.errno else first_line(error)
        raise failed(
            f"{redacted(place)}: {why}; {remedy}, and give the same command again"
        ) from error
