"""The format in which the two CIFAR datasets are published: two archives of the same images.

The binary archive holds records of bytes. The python one holds pickles: it is opened only after its
md5 is right, and by an unpickler that can rebuild arrays and nothing else. The folders that come
out of them are read too: of the python one each file has a published md5, which is looked at before
the file is unpickled; of the binary one nothing is published, so it is comparable only once `data
verify --against` has compared it with an archive.
"""

import gzip
import pickle
import tarfile
import zlib
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import md5
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets import Dataset, DatasetSpec, Images, canonical_dataset
from pipeline.data.download import download, md5_of
from pipeline.data.progress import Progress, silent
from pipeline.data.sources.tar_archives import tar_files
from pipeline.errors import InputError
from pipeline.storage import regular_file

SITE = "https://www.cs.toronto.edu/~kriz"
PIXEL_BYTES = 3 * 32 * 32
MOST_BYTES = 1 << 28
MOST_FILES = 100
"""Of an archive, and in it; the official ones have less than 200 MB, and less than ten files."""

ARRAYS_ALONE = {
    ("numpy", "ndarray"), ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
}  # fmt: skip
"""What the python archives' pickles name; anything else is refused."""


@dataclass(frozen=True, kw_only=True)
class CifarArchives:
    """The official archives of one of the two datasets: their names, and what lies where in them.

    `train` and `test` name the members of an archive; in the binary one they end in `.bin`.
    """

    spec: DatasetSpec
    title: str
    """The dataset's name in prose."""
    binary: str
    python: str
    checksums: dict[str, str]
    """The archives' official md5s, by name."""
    binary_folder: str
    python_folder: str
    file_checksums: dict[str, str]
    """Md5s of the files in the python folder, as torchvision publishes them (`CIFAR10.train_list`,
    `test_list`, and CIFAR100's).
    """
    train: tuple[str, ...]
    test: str
    label_bytes: int
    """Bytes before the pixels of a binary record, of which the last is the label."""
    label_key: bytes
    """Where the labels are in a pickled dictionary."""

    def find(self, path: Path) -> list[Path]:
        """The archives, and the folders that came out of them, that a path is or holds; best first.

        An archive is known by its name or, renamed, by its checksum; a folder by its name or files.
        """
        if not path.is_dir():
            ours = (
                path.name in self.checksums or _md5_within_bounds(path) in self.checksums.values()
            )
            return [path] if ours else []
        # Archives come first, as one checksum vouches for all of it; the binary one of them, as
        # reading it needs no unpickler.
        archives = [path / name for name in (self.binary, self.python)]
        folders = [path, path / self.python_folder, path / self.binary_folder]
        return [archive for archive in archives if archive.exists()] + [
            folder for folder in folders if folder.is_dir() and self._suffix(folder) is not None
        ]

    def _suffix(self, folder: Path) -> str | None:
        """What names of a folder's files end in, if it is one that comes out of an archive."""
        named = {self.python_folder: "", self.binary_folder: ".bin"}.get(folder.name)
        # Of a renamed folder two files are enough; whichever is missing is said when it is read.
        names = (*self.train, self.test)
        there = {end: sum((folder / f"{n}{end}").is_file() for n in names) for end in ("", ".bin")}
        return next((end for end, count in there.items() if count > 1), named)

    def download(self, folder: Path, progress: Progress = silent) -> Path:
        """The official binary archive in `folder`, fetched if need be; raises as `download`."""
        url, checksum = f"{SITE}/{self.binary}", self.checksums[self.binary]
        return download(url, checksum, folder / self.binary, progress)

    def read(self, path: Path) -> Dataset:
        """The dataset from one of its official archives, or a folder that came out of one.

        Raises:
            InputError: another file, or a damaged one.
        """
        if path.is_dir():
            return self._read_folder(path)
        # The checksum comes before anything is opened: it alone makes CIFAR-10 comparable with the
        # paper, and it is why a pickle may be read at all.
        found = _md5_within_bounds(path)
        if found == self.checksums[self.binary]:
            return self.binary_members(regular_file(path), str(path))
        if found == self.checksums[self.python]:
            return self.python_members(regular_file(path), str(path))
        official = " and ".join(f"{md5} ({name})" for name, md5 in self.checksums.items())
        raise InputError(
            f"{path}: md5 {found}, the official archives have {official}: a truncated download or "
            "another file; fetch it again"
        )

    def _read_folder(self, folder: Path) -> Dataset:
        """The dataset from the files that came out of an archive.

        Raises:
            InputError: a file is missing or damaged, or a pickle is not the official one.
        """
        names, end = (*self.train, self.test), self._suffix(folder) or ""
        files: dict[str, bytes] = {}
        for name in names:
            file = folder / f"{name}{end}"
            try:
                files[file.name] = regular_file(file, MOST_BYTES)
            except FileNotFoundError:
                continue  # said by the reader
            except OSError as error:
                raise InputError(f"{file}: cannot be read ({error.strerror})") from error
            # Of the very bytes that are unpickled then: the file may change meanwhile.
            found = md5(files[file.name], usedforsecurity=False).hexdigest()
            if not end and found != self.file_checksums[name]:
                raise InputError(
                    f"{file}: md5 {found}, the official file has {self.file_checksums[name]}: a "
                    "truncated download or another file, which is not opened; fetch it again"
                )
        where = str(folder)
        if not end:
            return self._dataset({name: self._batch(files, name, where) for name in names})
        dataset = self._dataset(
            {name: self._records(files, f"{name}.bin", where) for name in names}
        )
        # What nobody vouches for never takes the name of the dataset that it may be a copy of.
        spec = replace(self.spec, name=f"{self.spec.name}-bin", comparable=False)
        note = (
            f"the files of {folder.name} have no published checksums; `resnet-repro data verify "
            f"{spec.name} --against {self.binary}` makes it comparable, if it is the same"
        )
        return replace(dataset, spec=spec, notes=(note,) if self.spec.comparable else ())

    def binary_members(self, archive: bytes, where: str) -> Dataset:
        """The dataset from a gzipped tar's bytes: records of labels and 3x32x32 bytes.

        Raises:
            InputError: a file is missing, truncated, or holds a label out of range.
        """
        files = _members(archive, where)
        names = (*self.train, self.test)
        return self._dataset({name: self._records(files, f"{name}.bin", where) for name in names})

    def python_members(self, archive: bytes, where: str) -> Dataset:
        """The dataset from a gzipped tar's bytes: pickled dictionaries of arrays.

        Raises:
            InputError: a file is missing or damaged, or its pickle names anything but arrays.
        """
        files = _members(archive, where)
        names = (*self.train, self.test)
        return self._dataset({name: self._batch(files, name, where) for name in names})

    def _dataset(self, members: dict[str, Images]) -> Dataset:
        train = [members[name] for name in self.train]
        pixels = np.concatenate([images.pixels for images in train])
        labels = np.concatenate([images.labels for images in train])
        return canonical_dataset(self.spec, Images(pixels, labels), members[self.test])

    def _content(self, files: dict[str, bytes], name: str, where: str) -> bytes:
        if name not in files:
            raise InputError(f"{where}: holds no {name}; this is not the {self.title} archive")
        return files[name]

    def _records(self, files: dict[str, bytes], name: str, where: str) -> Images:
        size = self.label_bytes + PIXEL_BYTES
        content = np.frombuffer(self._content(files, name, where), dtype=np.uint8)
        if not len(content) or len(content) % size:
            raise InputError(
                f"{where}: {name} is {len(content)} bytes, not a whole number of {size}-byte "
                "records"
            )
        records = content.reshape(-1, size)
        return _images(records[:, self.label_bytes :], records[:, self.label_bytes - 1])

    def _batch(self, files: dict[str, bytes], name: str, where: str) -> Images:
        """A member of the python archive.

        Raises:
            InputError: it is no dictionary of uint8 planes and class numbers.
        """
        try:
            content = _ArraysAlone(
                BytesIO(self._content(files, name, where)), encoding="bytes"
            ).load()
            planes, labels = np.asarray(content[b"data"]), np.asarray(content[self.label_key])
        # What an unpickler raises of damaged bytes: it promises no single class of errors.
        except (
            pickle.UnpicklingError,
            KeyError,
            TypeError,
            EOFError,
            ValueError,
            IndexError,
            AttributeError,
        ) as error:
            raise InputError(f"{where}: {name} is not a batch of images ({error})") from error
        shape = (len(labels), PIXEL_BYTES) if labels.ndim else None
        if planes.dtype != np.uint8 or planes.shape != shape:
            raise InputError(
                f"{where}: {name} holds {planes.dtype} {list(planes.shape)}, not uint8 [n, "
                f"{PIXEL_BYTES}]"
            )
        # Before the conversion to uint8, in which 256 would become class 0.
        integers = labels.dtype.kind in "iu" and len(labels) > 0
        if not integers or labels.min() < 0 or labels.max() > 255:
            raise InputError(f"{where}: {name} holds labels that are no class numbers")
        return _images(planes, labels.astype(np.uint8))


def _md5_within_bounds(path: Path) -> str:
    """The md5 of what may be an official archive; of a larger file, that it is one."""
    # What cannot be looked at, `md5_of` says.
    with suppress(OSError):
        if path.stat().st_size > MOST_BYTES:
            return f"is not asked of more than {MOST_BYTES:,} bytes"
    return md5_of(path)


def _members(archive: bytes, where: str) -> dict[str, bytes]:
    """The files of a gzipped tar by name, without their folder."""
    files: dict[str, bytes] = {}
    try:
        # Read in memory, never extracted: a member's path can then lead nowhere.
        with gzip.GzipFile(fileobj=BytesIO(archive)) as unpacked:
            for member in tar_files(unpacked, compressed=True):
                if len(files) > MOST_FILES:
                    raise tarfile.ReadError(f"holds more than {MOST_FILES} files")
                files[Path(member.name).name] = unpacked.read(member.size)
    except (tarfile.TarError, zlib.error, OSError, EOFError) as error:
        raise InputError(f"{where}: not a readable tar.gz ({error})") from error
    return files


def _images(planes: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Images:
    """Rows of 1,024 red, 1,024 green and 1,024 blue values as images [n, 32, 32, 3]."""
    return Images(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels)


class _ArraysAlone(pickle.Unpickler):
    """Rebuilds numpy arrays of built-in types; refuses any other name before it is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAYS_ALONE:
            raise pickle.UnpicklingError(f"its pickle names {module}.{name}")
        # The archives are of 2009; numpy 2 moved what they name.
        return super().find_class(module.replace("numpy.core.", "numpy._core."), name)
