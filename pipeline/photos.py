"""Photographs in storage: shards of encoded images, any of which is reached in one step by its sample id (torch-free).

Shards are Arrow files in the order in which a source was read; the index gives each sample id its shard and row, its label
and the digest of its pixels. Ids count in the order of the digests, so they do not depend on the source's layout.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from io import BytesIO
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays

from pipeline.datasets import DatasetRow, dataset_key, prepared_manifest
from pipeline.errors import InputError
from pipeline.storage import Storage

KIND = "photographs"
SPLITS = ("train", "test")
BATCH_ROWS = 256
"""Rows of each record batch of a shard but its last, so that a row's place follows from its number."""

DIGEST_BYTES = 16
SCHEMA = pa.schema([pa.field("image", pa.large_binary(), nullable=False)])
INDEX = pa.schema(
    [pa.field(name, kind, nullable=False) for name, kind in (
        ("shard", pa.uint16()), ("row", pa.uint32()), ("label", pa.uint16()), ("digest", pa.binary(DIGEST_BYTES)),
    )]
)  # fmt: skip


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


def shard_file(images: list[bytes]) -> bytes:
    """Encoded images as a shard."""
    parts = [images[start : start + BATCH_ROWS] for start in range(0, len(images), BATCH_ROWS)]
    return arrow_file(SCHEMA, [pa.record_batch([pa.array(part, pa.large_binary())], schema=SCHEMA) for part in parts])


def entry(path: str, content: bytes, **more: int) -> dict[str, Any]:
    """How a manifest names a file: place, size and checksum."""
    return {"path": path, "size": len(content), "checksum": blake2b(content, digest_size=32).hexdigest(), **more}


def fits(entry: dict[str, Any], content: bytes) -> bool:
    """Whether these are the bytes of the file that a manifest names."""
    same_size = len(content) == entry["size"]
    return same_size and blake2b(content, digest_size=32).hexdigest() == entry["checksum"]


@dataclass(frozen=True)
class PhotoSplit:
    """One split of a dataset: `labels` uint16 [n], and each image's encoded bytes by its sample id."""

    labels: NDArray[np.uint16]
    shards: NDArray[np.uint16]
    rows: NDArray[np.uint32]
    files: "ShardFiles"

    def __len__(self) -> int:
        return len(self.labels)

    def encoded(self, sample: int) -> bytes:
        """A photograph as it is stored."""
        return self.files.image(int(self.shards[sample]), int(self.rows[sample]))


class ShardFiles:
    """Shards in a local folder, mapped into memory when they are first asked for."""

    def __init__(self, folder: Path, paths: list[str]) -> None:
        self.folder, self.paths = folder, paths
        self.open: dict[int, list[pa.Array]] = {}

    def image(self, shard: int, row: int) -> bytes:
        """An image's encoded bytes."""
        batches = self.open.get(shard)
        if batches is None:
            reader = pa.ipc.open_file(pa.memory_map(str(self.folder / self.paths[shard])))
            batches = [reader.get_batch(number).column(0) for number in range(reader.num_record_batches)]
            self.open[shard] = batches
        batch, place = divmod(row, BATCH_ROWS)
        return bytes(batches[batch][place].as_buffer())


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
    def row(self) -> DatasetRow:
        return DatasetRow(**self.manifest["row"])

    @property
    def key(self) -> str:
        return dataset_key(self.row.name, self.id)

    def mean(self, side: int) -> NDArray[np.float32]:
        """The mean image [side, side, 3] in pixel values: per pixel at 224, else its average over places (our reading)."""
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


def open_photos(storage: Storage, dataset_id: str, copies: Path | None, say: Callable[[str], None] = print) -> Photos:
    """A stored dataset of photographs, its index and mean verified; shards that are not in a local folder are copied into
    `copies` first, each once per node and by its checksum.

    Raises:
        InputError: it is not there, is damaged, or there is no folder for copies.
    """
    manifest = prepared_manifest(storage, dataset_id)
    folder = storage.local
    if folder is None:
        folder = stage(storage, manifest, copies, say)
    here = Storage(str(folder))
    _verified(here, manifest["index"])
    files = ShardFiles(folder, [shard["path"] for shard in manifest["shards"]])
    # Mapped, so that all workers of a node share it: of ImageNet, ten megabytes are ever looked at.
    table = pa.ipc.open_file(pa.memory_map(here.path(manifest["index"]["path"]))).read_all()
    start, splits = 0, []
    for split in SPLITS:
        count = manifest[f"{split}_images"]
        of_split = table.slice(start, count)
        labels, shards, rows = (of_split.column(name).to_numpy() for name in ("label", "shard", "row"))
        splits.append(PhotoSplit(labels, shards, rows, files))
        start += count
    mean = load_arrays(_verified(storage, manifest["mean"]))
    return Photos(manifest, splits[0], splits[1], mean["sums"], mean["squares"])


def _verified(storage: Storage, named: dict[str, Any]) -> bytes:
    content = storage.read_if_there(named["path"]) or b""
    if not fits(named, content):
        raise InputError(
            f"{storage.path(named['path'])}: damaged (checksum differs); delete the folder and prepare it again"
        )
    return content


def stage(storage: Storage, manifest: dict[str, Any], copies: Path | None, say: Callable[[str], None]) -> Path:
    """Copy the shards into a folder of this node, each by whichever worker comes first; the folder.

    Raises:
        InputError: no folder, no room, or a shard that is damaged in storage.
    """
    if copies is None:
        raise InputError(f"dataset {manifest['id']} is in {storage.uri}, and this node has no folder to copy it to")
    here = Storage(str(copies))

    files = [manifest["index"], *manifest["shards"]]

    def there(file: dict[str, Any]) -> bool:
        # By size: copies are written whole once their checksum is right, and their place is named after what they hold.
        target = copies / file["path"]
        return target.exists() and target.stat().st_size == file["size"]

    def bring(file: dict[str, Any]) -> None:
        if there(file):
            return
        target = copies / file["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock", fallback_to_soft=False):
            if not there(file):
                here.write(file["path"], _verified(storage, file))

    total = sum(file["size"] for file in files)
    say(f"dataset {manifest['id']}: {total / 1e9:.1f} GB of {storage.uri} are kept in {copies}")
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(bring, files))
    except OSError as error:
        raise InputError(
            f"{copies}: no room or no right to keep a dataset of {total / 1e9:.1f} GB ({error})"
        ) from error
    return copies


def photos_id(counts: dict[str, int], digests: dict[str, NDArray[Any]], labels: dict[str, NDArray[Any]]) -> str:
    """16 hexadecimal digits of every split's digests and labels, in the order of the digests."""
    digest = blake2b(digest_size=8)
    for split in SPLITS:
        digest.update(dumps([KIND, split, counts[split]]).encode())
        digest.update(digests[split].tobytes())
        digest.update(labels[split].astype("<u2").tobytes())
    return digest.hexdigest()


def pixel_digest(pixels: NDArray[np.uint8]) -> bytes:
    """What a photograph is known by: 16 bytes of its size and decoded pixels."""
    return blake2b(
        dumps(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes(), digest_size=DIGEST_BYTES
    ).digest()


def verify_photos(storage: Storage, manifest: dict[str, Any], progress: Callable[[int, int], None]) -> None:
    """Decode every stored photograph again and compare with the index.

    Raises:
        InputError: names the first file or image that is not what it was.
    """
    from pipeline.decoding import decode

    table = pa.ipc.open_file(pa.py_buffer(_verified(storage, manifest["index"]))).read_all()
    _verified(storage, manifest["mean"])
    place, digests = table.select(["shard", "row"]).to_pandas(), table.column("digest").to_pylist()
    done = 0
    for number, shard in enumerate(manifest["shards"]):
        content = _verified(storage, shard)
        images = pa.ipc.open_file(BytesIO(content)).read_all().column("image")
        for at in np.flatnonzero(place.shard.to_numpy() == number):
            if pixel_digest(np.asarray(decode(images[int(place.row[at])].as_py()))) != digests[at]:
                raise InputError(f"{storage.path(shard['path'])}: image {place.row[at]} is not the one of the index")
            done += 1
        progress(done, len(digests))
    counts = {split: manifest[f"{split}_images"] for split in SPLITS}
    cut = np.cumsum([0, *counts.values()])
    parts = {split: slice(cut[i], cut[i + 1]) for i, split in enumerate(SPLITS)}
    raw, labels = np.frombuffer(b"".join(digests), "S16"), table.column("label").to_numpy()
    again = photos_id(counts, {s: raw[p] for s, p in parts.items()}, {s: labels[p] for s, p in parts.items()})
    if again != manifest["id"]:
        raise InputError(f"dataset {manifest['id']} in {storage.uri}: its images hash to {again}; prepare it again")
