"""Photographs in storage: shards of encoded images, each reached in one step by its sample id.

Shards are Arrow files in the order in which a source was read; the index gives each sample id its
shard, where its bytes lie in it, its label and the digest of its pixels. Ids count in the order of
the digests, so they do not depend on the source's layout. Torch-free.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays

from pipeline.data.datasets import DatasetSpec, dataset_key
from pipeline.data.decoders import StoredPhoto
from pipeline.data.stored import require_stored
from pipeline.errors import InputError, first_line
from pipeline.storage import Storage, checksum

KIND = "photographs"
SPLITS = ("train", "test")
DIGEST_BYTES = 16
SCHEMA = pa.schema([pa.field("image", pa.large_binary(), nullable=False)])
INDEX = pa.schema(
    [pa.field(name, kind, nullable=False) for name, kind in (
        ("shard", pa.uint16()), ("offset", pa.uint32()), ("size", pa.uint32()),
        ("label", pa.uint16()), ("digest", pa.binary(DIGEST_BYTES)),
    )]
)  # fmt: skip
"""`offset` and `size` are of an image's bytes within its shard's file."""

PHOTOS = "photographs"
"""Where shards lie in storage, each named after what it holds."""


def holds_photographs(manifest: dict[str, Any]) -> bool:
    """Whether a dataset's manifest is of shards of encoded images."""
    return manifest.get("kind") == KIND


def arrow_file(schema: pa.Schema, batches: list[pa.RecordBatch]) -> bytes:
    """Record batches as an Arrow IPC file."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return bytes(sink.getvalue())


def shard_file(images: list[bytes]) -> tuple[bytes, NDArray[np.uint32], NDArray[np.uint32]]:
    """Encoded images as a shard, with where each one's bytes begin in it and how many they are."""
    if not images:
        return arrow_file(SCHEMA, []), np.zeros(0, np.uint32), np.zeros(0, np.uint32)
    content = arrow_file(
        SCHEMA, [pa.record_batch([pa.array(images, pa.large_binary())], schema=SCHEMA)]
    )
    # Read back from the file itself, for where Arrow put the bytes: an image is then one `pread` at
    # its offset, and no reader of Arrow files is needed while training.
    whole = pa.py_buffer(content)
    column = pa.ipc.open_file(whole).get_batch(0).column(0)
    ends = np.frombuffer(column.buffers()[1], dtype=np.int64)[: len(images) + 1]
    begins = column.buffers()[2].address - whole.address
    return content, (begins + ends[:-1]).astype(np.uint32), np.diff(ends).astype(np.uint32)


def shard_entry(content: bytes, split: str, rows: int) -> dict[str, Any]:
    """How a manifest names a shard."""
    # Under its checksum, so that no other content ever comes to lie under this name, and a copy on
    # a node stays right for as long as its size is.
    named = entry("", content, rows=rows)
    return named | {"path": f"{PHOTOS}/{named['checksum'][:32]}.arrow", "split": split}


def entry(path: str, content: bytes, **more: int) -> dict[str, Any]:
    """How a manifest names a file: path, size and checksum."""
    return {"path": path, "size": len(content), "checksum": checksum(content), **more}


def fits(entry: dict[str, Any], content: bytes) -> bool:
    """Whether these are the bytes of the file that a manifest names."""
    return len(content) == entry["size"] and checksum(content) == entry["checksum"]


@dataclass(frozen=True)
class PhotoSplit:
    """One split: `labels` uint16 [n], and each image's encoded bytes by its sample id."""

    labels: NDArray[np.uint16]
    shards: NDArray[np.uint16]
    offsets: NDArray[np.uint32]
    sizes: NDArray[np.uint32]
    files: tuple[str, ...]
    """The shards' paths on this machine."""

    def __len__(self) -> int:
        return len(self.labels)

    def stored(self, sample: int) -> StoredPhoto:
        """Where a photograph's encoded bytes are."""
        file = self.files[self.shards[sample]]
        return StoredPhoto(file, int(self.offsets[sample]), int(self.sizes[sample]))

    def encoded(self, sample: int) -> bytes:
        """A photograph as it is stored.

        Raises:
            OSError: its shard cannot be read, or is shorter than the index says.
        """
        return self.stored(sample).read()


@dataclass(frozen=True)
class Photos:
    """A dataset of photographs that is at hand: every file in a folder of this machine."""

    manifest: dict[str, Any]
    train: PhotoSplit
    test: PhotoSplit
    mean_sums: NDArray[np.int64]
    """The sum of the training images' central squares [224, 224, 3] at shorter side 256."""
    mean_squares: NDArray[np.int64]
    """The sum over places of their squared values [3]."""

    @property
    def id(self) -> str:
        return str(self.manifest["id"])

    @cached_property
    def spec(self) -> DatasetSpec:
        return DatasetSpec(**self.manifest["row"])

    @property
    def key(self) -> str:
        return dataset_key(self.spec.name, self.id)

    def mean(self, side: int) -> NDArray[np.float32]:
        """The mean image [side, side, 3] in pixel values.

        It is per pixel at side 224; elsewhere each channel's average over places (our reading).
        """
        mean = (self.mean_sums / len(self.train)).astype(np.float32)
        if mean.shape[0] == side:
            return mean
        return np.broadcast_to(self.channel_mean, (side, side, 3))

    @property
    def channel_mean(self) -> NDArray[np.float32]:
        """Mean of each channel [3] in pixel values."""
        values = len(self.train) * self.mean_sums.shape[0] * self.mean_sums.shape[1]
        return (self.mean_sums.sum(axis=(0, 1)) / values).astype(np.float32)

    @property
    def channel_std(self) -> NDArray[np.float32]:
        """Standard deviation of each channel [3] in pixel values."""
        values = len(self.train) * self.mean_sums.shape[0] * self.mean_sums.shape[1]
        mean = self.mean_sums.sum(axis=(0, 1)) / values
        return np.sqrt(self.mean_squares / values - mean**2).astype(np.float32)


def open_photos(
    storage: Storage,
    dataset_id: str,
    copies: Path | None,
    say: Callable[[str], None] = print,
    splits: tuple[str, ...] = SPLITS,
) -> Photos:
    """A stored dataset of photographs, its index and mean verified.

    Where storage is no local folder, the shards of `splits` are copied into `copies` first, each
    once per node and by its checksum.

    Raises:
        InputError: it is not there, is damaged, or there is no folder or no room for copies.
    """
    manifest = require_stored(storage, dataset_id)
    folder = storage.local
    if folder is None:
        folder = stage(storage, manifest, copies, say, splits)
    here = Storage(str(folder))
    _verified(here, manifest["index"])
    files = tuple(here.path(shard["path"]) for shard in manifest["shards"])
    # Mapped, so that all workers of a node share its pages. The digests, which are most of it, are
    # never looked at while training.
    table = pa.ipc.open_file(pa.memory_map(here.path(manifest["index"]["path"]))).read_all()
    start, parts = 0, []
    for split in SPLITS:
        count = manifest[f"{split}_images"]
        of_split = table.slice(start, count)
        columns = [
            of_split.column(name).to_numpy() for name in ("label", "shard", "offset", "size")
        ]
        parts.append(PhotoSplit(columns[0], columns[1], columns[2], columns[3], files))
        start += count
    mean = load_arrays(_verified(storage, manifest["mean"]))
    return Photos(manifest, parts[0], parts[1], mean["sums"], mean["squares"])


def _verified(storage: Storage, named: dict[str, Any]) -> bytes:
    content = storage.read_if_there(named["path"]) or b""
    if not fits(named, content):
        raise InputError(
            f"{storage.path(named['path'])}: damaged or missing (checksum differs); delete it and "
            "prepare the dataset again"
        )
    return content


def stage(
    storage: Storage,
    manifest: dict[str, Any],
    copies: Path | None,
    say: Callable[[str], None],
    splits: tuple[str, ...],
) -> Path:
    """Copy the shards of these splits into a folder of this node, which is returned.

    Each is copied by whichever worker comes first, and written whole once its checksum is right,
    under a name that is made of it; later only its size is looked at.

    Raises:
        InputError: no folder, no room, or a shard that is damaged in storage.
        OSError: storage cannot be read now; trying again may help.
    """
    if copies is None:
        raise InputError(
            f"dataset {manifest['id']} is in {storage.uri}, and this node has no folder to copy it "
            "to"
        )
    here = Storage(str(copies))
    files = [
        manifest["index"],
        *(shard for shard in manifest["shards"] if shard["split"] in splits),
    ]
    missing = [file for file in files if here.file_size(file["path"]) != file["size"]]
    total = sum(file["size"] for file in missing)
    full = f"{copies}: no room or no right to keep {total / 1e9:.1f} GB of dataset {manifest['id']}"
    if missing:
        say(
            f"dataset {manifest['id']}: {total / 1e9:.1f} GB of {storage.uri} are copied to "
            f"{copies}"
        )

    def bring(file: dict[str, Any]) -> None:
        try:
            lock = copies / f"{file['path']}.lock"
            lock.parent.mkdir(parents=True, exist_ok=True)
            # A lock a shard: the workers of a node share the work. It is the operating system's,
            # which lets go of it when a worker is killed; a soft one would stay.
            waiting = FileLock(lock, fallback_to_soft=False)
            waiting.acquire()
        except OSError as error:
            raise InputError(f"{full} ({first_line(error)})") from error
        try:
            # Looked at again, now that the lock is held: another worker may have brought it.
            if here.file_size(file["path"]) == file["size"]:
                return
            content = _verified(storage, file)
            try:
                here.write(file["path"], content)
            except OSError as error:
                raise InputError(f"{full} ({first_line(error)})") from error
        finally:
            waiting.release()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(bring, missing))
    return copies


def photos_id(
    counts: dict[str, int], digests: dict[str, NDArray[Any]], labels: dict[str, NDArray[Any]]
) -> str:
    """16 hexadecimal digits of every split's digests and labels, in the order of the digests."""
    # Labels as little-endian 16-bit numbers and counts in the header: an id is the same everywhere.
    digest = blake2b(digest_size=8)
    for split in SPLITS:
        digest.update(dumps([KIND, split, counts[split]]).encode())
        digest.update(digests[split].tobytes())
        digest.update(labels[split].astype("<u2").tobytes())
    return digest.hexdigest()


def pixel_digest(pixels: NDArray[np.uint8]) -> bytes:
    """What a photograph is known by: 16 bytes of its size and decoded pixels."""
    return blake2b(
        dumps(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes(),
        digest_size=DIGEST_BYTES,
    ).digest()


def check_files(
    storage: Storage, manifest: dict[str, Any], progress: Callable[[int, int], None]
) -> None:
    """Read every file of a stored dataset and compare its checksum.

    Raises:
        InputError: names the first that is damaged or missing.
    """
    files = [manifest["index"], manifest["mean"], *manifest["shards"]]
    with ThreadPoolExecutor(4) as pool:
        for done, _ in enumerate(pool.map(lambda file: len(_verified(storage, file)), files), 1):
            progress(done, len(files))


def verify_photos(
    storage: Storage, manifest: dict[str, Any], progress: Callable[[int, int], None]
) -> None:
    """Decode every stored photograph again and compare with the index.

    Raises:
        InputError: names the first file or image that is not what it was.
    """
    from pipeline.data.photo_decoding import decode

    table = pa.ipc.open_file(pa.py_buffer(_verified(storage, manifest["index"]))).read_all()
    _verified(storage, manifest["mean"])
    shards, offsets, sizes, labels = (
        table.column(n).to_numpy() for n in ("shard", "offset", "size", "label")
    )
    digests = table.column("digest").to_pylist()
    done = 0
    # Shard by shard, as they lie in storage: in the order of ids, each image is of another.
    for number, shard in enumerate(manifest["shards"]):
        content = _verified(storage, shard)

        def right(at: int, content: bytes = content) -> bool:
            image = content[int(offsets[at]) : int(offsets[at]) + int(sizes[at])]
            return pixel_digest(np.asarray(decode(image))) == digests[at]

        held = np.flatnonzero(shards == number)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for at, same in zip(held, pool.map(right, held), strict=True):
                if not same:
                    where = f"{storage.path(shard['path'])}: the image at byte {offsets[at]:,}"
                    raise InputError(
                        f"{where} is not the one of the index; delete the file and prepare it again"
                    )
        done += len(held)
        progress(done, len(digests))
    counts = {split: manifest[f"{split}_images"] for split in SPLITS}
    cut = np.cumsum([0, *counts.values()])
    parts = {split: slice(cut[i], cut[i + 1]) for i, split in enumerate(SPLITS)}
    raw = np.frombuffer(b"".join(digests), f"S{DIGEST_BYTES}")
    again = photos_id(
        counts, {s: raw[p] for s, p in parts.items()}, {s: labels[p] for s, p in parts.items()}
    )
    if again != manifest["id"]:
        raise InputError(
            f"dataset {manifest['id']} in {storage.uri}: its images hash to {again}; prepare it "
            "again"
        )
