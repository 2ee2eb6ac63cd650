"""The format in which the two CIFAR datasets are published: two archives of the same images.

The binary archive holds records of bytes. The python one holds pickles: it is opened only after its
md5 is right, and by an unpickler that can rebuild arrays and nothing else.
"""

import pickle
import tarfile
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets import Dataset, DatasetSpec, Images, canonical_dataset
from pipeline.data.download import download, md5_of
from pipeline.data.progress import Progress, silent
from pipeline.errors import InputError
from pipeline.storage import regular_file

SITE = "https://www.cs.toronto.edu/~kriz"
PIXEL_BYTES = 3 * 32 * 32

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
    train: tuple[str, ...]
    test: str
    label_bytes: int
    """Bytes before the pixels of a binary record, of which the last is the label."""
    label_key: bytes
    """Where the labels are in a pickled dictionary."""

    def find(self, path: Path) -> Path | None:
        """The archive that a path is or holds, by its name or, renamed, by its checksum."""
        if path.is_dir():
            # The binary one first: reading it needs no unpickler.
            inside = [path / name for name in (self.binary, self.python)]
            return next((archive for archive in inside if archive.exists()), None)
        ours = path.name in self.checksums or md5_of(path) in self.checksums.values()
        return path if ours else None

    def download(self, folder: Path, progress: Progress = silent) -> Path:
        """The official binary archive in `folder`, fetched if need be; raises as `download`."""
        url, checksum = f"{SITE}/{self.binary}", self.checksums[self.binary]
        return download(url, checksum, folder / self.binary, progress)

    def read(self, path: Path) -> Dataset:
        """The dataset from one of its official archives.

        Raises:
            InputError: another file, or a damaged one.
        """
        # The checksum comes before anything is opened: it alone makes CIFAR-10 comparable with the
        # paper, and it is why a pickle may be read at all.
        found = md5_of(path)
        if found == self.checksums[self.binary]:
            return self.binary_members(regular_file(path), str(path))
        if found == self.checksums[self.python]:
            return self.python_members(regular_file(path), str(path))
        official = " and ".join(f"{md5} ({name})" for name, md5 in self.checksums.items())
        raise InputError(
            f"{path}: md5 {found}, the official archives have {official}: a truncated download or "
            "another file; fetch it again"
        )

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


def _members(archive: bytes, where: str) -> dict[str, bytes]:
    """The files of a gzipped tar by name, without their folder."""
    files: dict[str, bytes] = {}
    try:
        # Read in memory, never extracted: a member's path can then lead nowhere.
        with tarfile.open(fileobj=BytesIO(archive), mode="r:gz") as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.isfile() else None
                if stream is not None:
                    files[Path(member.name).name] = stream.read()
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
