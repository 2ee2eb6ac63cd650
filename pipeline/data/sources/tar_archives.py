"""Tar archives that a user names, which may be anything, read within bounds.

Nothing is ever extracted, so a member's path leads nowhere; links and devices are passed over. What
is bounded is time and memory: an archive of a megabyte can claim gigabytes, or a million files.
"""

import tarfile
from collections.abc import Iterator
from gzip import GzipFile
from typing import IO, BinaryIO, cast

MOST_MEMBERS = 200_000
"""Of an archive; ILSVRC-2012's largest has a quarter of it."""
MOST_MEMBER_BYTES = 1 << 30
"""Of a file in an archive; the largest is a class of ILSVRC-2012, some 1,300 photographs."""
MOST_UNPACKED = 2 << 30
"""Of a compressed archive, unpacked; CIFAR's are a tenth of it."""

MOST_HEADER = 1 << 20
"""Bytes of a header of a tar file, which may be a name or a comment."""


def tar_files(file: IO[bytes] | GzipFile, compressed: bool = False) -> Iterator[tarfile.TarInfo]:
    """The regular files of a tar archive, where their bytes begin (`offset_data`), and their sizes.

    `file` is its bytes, unpacked; `compressed` if they are unpacked as they are read.

    Raises:
        tarfile.TarError: it is none, or holds more than archives of ours.
    """
    bounded = cast(BinaryIO, _Bounded(file, MOST_UNPACKED if compressed else None))
    with tarfile.open(fileobj=bounded, mode="r:") as tar:
        for number, member in enumerate(tar):
            if number >= MOST_MEMBERS:
                raise tarfile.ReadError(f"holds more than {MOST_MEMBERS:,} files")
            if member.isfile() and member.size > MOST_MEMBER_BYTES:
                raise tarfile.ReadError(f"{member.name[:80]} has {member.size:,} bytes")
            # The archive keeps all that it has come by, which nobody asks it for.
            tar.members = []  # type: ignore[attr-defined]
            if member.isfile() and not member.issparse():
                yield member


class _Bounded:
    """A file of which no more than a header is read at once, and `most` bytes unpacked."""

    def __init__(self, file: IO[bytes] | GzipFile, most: int | None) -> None:
        self._file, self._most = file, most

    def read(self, size: int = -1) -> bytes:
        # Headers say how long the next header is, and it is read into memory.
        if size > MOST_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        self._check_unpacked(self._file.tell())
        return self._file.read(size)

    def seek(self, position: int, whence: int = 0) -> int:
        self._check_unpacked(position)
        return self._file.seek(position, whence)

    def _check_unpacked(self, position: int) -> None:
        if self._most is not None and position > self._most:
            raise tarfile.ReadError(f"unpacks to more than {self._most:,} bytes")

    def tell(self) -> int:
        return self._file.tell()
