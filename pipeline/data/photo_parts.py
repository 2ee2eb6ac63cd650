"""The parts of a source of photographs, each small enough for one task, which reads its images.

Parts travel to Ray tasks, so they hold paths and numbers, never images. Tar files are read where
they lie, never extracted: 150 GB are not written twice. Torch-free.
"""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from pipeline.data.parquet_images import ImagesFile
from pipeline.errors import InputError
from pipeline.storage import check_regular, regular_file

# The names and fields of the classes here are part of what a half-done ingest is filed under
# (`Reading.key` hashes their repr): renaming one restarts it.

BLOCK = 512
"""Bytes that everything in a tar file is a multiple of; one of zeros ends it."""

Split = Literal["train", "test"]


class Found(NamedTuple):
    """One image as a source holds it; `name` says where."""

    name: str
    label: int
    content: bytes


@dataclass(frozen=True)
class ParquetPart:
    """Row groups `first` to `last` (excluded) of a file."""

    split: Split
    file: str
    first: int
    last: int
    rows_before: int
    """Rows of the file before this part."""

    def read(self) -> Iterator[Found]:
        """Raises InputError: the file is damaged, or a row has no image or label."""
        number = self.rows_before
        try:
            check_regular(self.file)
        except OSError as error:
            raise _unseen(self.file, error) from error
        file = ImagesFile(Path(self.file), ("image",))
        for content, label in file.images(self.first, self.last):
            where = f"{self.file}, row {number}"
            if content is None or label is None:
                raise InputError(f"{where}: has no image bytes and integer label")
            yield Found(where, label, content)
            number += 1


@dataclass(frozen=True)
class FilesPart:
    """Files with their labels."""

    split: Split
    files: tuple[tuple[str, int], ...]

    def read(self) -> Iterator[Found]:
        """Raises InputError: a file cannot be read."""
        for file, label in self.files:
            try:
                yield Found(file, label, regular_file(file))
            except OSError as error:
                raise _unseen(file, error) from error


class Member(NamedTuple):
    """A file within a tar file: its bytes lie at `offset`."""

    name: str
    offset: int
    size: int
    label: int


@dataclass(frozen=True)
class TarPart:
    """Files that lie in a tar file; if `nested`, they are tar files of one class's images each."""

    split: Split
    tar: str
    members: tuple[Member, ...]
    nested: bool = False

    def read(self) -> Iterator[Found]:
        """Raises InputError: the tar file cannot be read here, is cut off or leads outside."""
        try:
            check_regular(self.tar)
            file = open(self.tar, "rb")  # noqa: SIM115  (closed below)
        except OSError as error:
            raise _unseen(self.tar, error) from error
        with file:
            for member in self.members:
                file.seek(member.offset)
                content = file.read(member.size)
                if len(content) < member.size:
                    raise InputError(f"{self.tar}: cut off within {member.name}")
                if not self.nested:
                    yield Found(f"{self.tar}: {member.name}", member.label, content)
                    continue
                # A class's tar file fits into memory: it is read in one go, and taken apart there.
                where = f"{self.tar}: {member.name}"
                for image in tar_members(BytesIO(content), where):
                    inside = content[image.offset : image.offset + image.size]
                    yield Found(f"{where}: {image.name}", member.label, inside)


def _unseen(file: str, error: OSError) -> InputError:
    return InputError(
        f"{file}: cannot be read on {os.uname().nodename} ({error.strerror or error}); every node "
        "must see it"
    )


Part = ParquetPart | FilesPart | TarPart
"""Some images of one split."""


def tar_members(source: Path | BytesIO, where: str = "") -> list[Member]:
    """The files of an uncompressed tar file, labels not set.

    Raises:
        InputError: it is no tar file, is cut off, or has a name that leads out of it.
    """
    where = where or str(source)
    try:
        if isinstance(source, Path):
            check_regular(source)
        with source.open("rb") if isinstance(source, Path) else source as file:
            size = file.seek(0, 2)
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                # Offsets are kept, so that a part seeks to its images without a walk through the
                # archive.
                members = [Member(m.name, m.offset_data, m.size, -1) for m in tar if m.isfile()]
            # After the last member a block of zeros must follow: tarfile takes a header that is cut
            # off or damaged for the end, and would lose the rest without a word.
            end = max((m.offset + -(-m.size // BLOCK) * BLOCK for m in members), default=0)
            file.seek(end)
            ended = file.read(BLOCK) == bytes(BLOCK)
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"{where}: not a whole tar file ({error})") from error
    for member in members:
        name = PurePosixPath(member.name)
        # Nothing is extracted, so such a name could do no harm; but no official archive has one.
        if name.is_absolute() or ".." in name.parts:
            raise InputError(
                f"{where}: has a file named {member.name!r}, which leads out of it; this is no "
                "ILSVRC-2012 tar"
            )
        if member.offset + member.size > size:
            raise InputError(f"{where}: cut off within {member.name}")
    if not members:
        raise InputError(f"{where}: holds no files")
    if not ended:
        raise InputError(f"{where}: cut off or damaged after {members[-1].name}")
    return members
