"""Photographs into storage: each part is read, checked and written; then all become one dataset.

A part's record is written after its shard, so what was interrupted goes on with the parts that have
none. The same photographs give the same dataset, mean image and id, whatever the layout and however
many tasks read it. Torch-free.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from io import BytesIO
from json import dumps
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from typing_extensions import TypedDict

from pipeline.data.catalogue.imagenet import IMAGENET
from pipeline.data.datasets import FORMAT
from pipeline.data.photo_decoding import (
    FILTER,
    MEAN_SIDE,
    UndecodableError,
    decode,
    for_the_mean,
    resized,
)
from pipeline.data.photo_parts import Part
from pipeline.data.photo_shards import (
    DIGEST_BYTES,
    INDEX,
    KIND,
    PHOTOS,
    SPLITS,
    arrow_file,
    entry,
    photos_id,
    pixel_digest,
    shard_entry,
    shard_file,
)
from pipeline.data.photo_sources import Listing
from pipeline.data.stored import (
    FOLDER,
    StoredFile,
    read_manifest,
    stored_manifests,
    with_class_names,
)
from pipeline.errors import InputError
from pipeline.storage import Storage
from pipeline.stored_json import parse, parse_as

QUALITY = 95
"""Of the JPEG in which a photograph is stored that was scaled down, with full chroma."""

OFFICIAL_COUNTS = {"train": IMAGENET.train_images, "test": IMAGENET.test_images}


@dataclass(frozen=True)
class Reading:
    """How a source is read."""

    longest_short_side: int = 0
    """Photographs whose shorter side is larger are scaled down to it; 0: all stay as they are."""
    excluded: tuple[str, ...] = ()
    """Ends of names of images that are left out."""

    def key(self, listing: Listing, mark: str) -> str:
        """What this reading of this source is filed under; `mark` changes when a file does."""
        # `excluded` stays out: another --exclude then reads again only the parts that it concerns
        # (`read_record`).
        return blake2b(
            repr((listing, mark, self.longest_short_side)).encode(), digest_size=12
        ).hexdigest()

    def leaves_out(self, name: str) -> bool:
        """Whether an image of that name is left out."""
        return any(name.endswith(end) for end in self.excluded)


def record_path(key: str, number: int) -> str:
    """A part's record: what is known of its images."""
    return f"{PHOTOS}/records/{key}/{number:05d}.safetensors"


def ingest_part(
    storage: Storage, key: str, number: int, part: Part, classes: int, reading: Reading
) -> None:
    """Read a part, write its shard, and then its record.

    Raises:
        InputError: an image that cannot be decoded, or a label out of range; names it.
    """
    images, digests, labels = [], [], []
    names: list[str] = []
    left_out: list[str] = []
    notes: list[str] = []
    # Integer sums: they are the same in whatever order parts are added up, as a mean of floating
    # point values would not be.
    sums, squares = np.zeros((MEAN_SIDE, MEAN_SIDE, 3), dtype=np.int64), np.zeros(3, dtype=np.int64)
    for name, label, content in part.read():
        names.append(name)
        if reading.leaves_out(name):
            left_out.append(name)
            continue
        image = _decoded(name, label, content, classes)
        if (
            content[:4] == b"\x89PNG"
            and not name.lower().endswith(".png")
            and ".parquet" not in name
        ):
            notes.append(f"{name} is a PNG")
        if reading.longest_short_side and min(image.size) > reading.longest_short_side:
            content, image = _scaled_down(image, reading.longest_short_side)
        # The encoded bytes are kept and the decoded pixels identified: an image that is repacked
        # into another file without loss is still the same.
        images.append(content)
        digests.append(pixel_digest(np.asarray(image)))
        labels.append(label)
        # The mean image knows nothing of the images that the network is tested on.
        if part.split == "train":
            view = for_the_mean(image).astype(np.int64)
            sums += view
            squares += (view**2).sum((0, 1))
    shard, offsets, sizes = shard_file(images)
    named = shard_entry(shard, part.split, len(images))
    # Shard first, record last: a part without a record is read again, one with a record never.
    storage.write(named["path"], shard)
    arrays: dict[str, Any] = {
        "digests": np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, DIGEST_BYTES),
        "labels": np.array(labels, dtype=np.uint16),
        "offsets": offsets,
        "sizes": sizes,
        "sums": sums,
        "squares": squares,
    }
    about = {
        "split": part.split,
        "names": names,
        "left_out": left_out,
        "notes": notes,
        "shard": named,
    }
    storage.write(record_path(key, number), save_arrays(arrays, metadata={"about": dumps(about)}))


def _decoded(name: str, label: int, content: bytes, classes: int) -> Image.Image:
    if not 0 <= label < classes:
        raise InputError(f"{name}: label {label}, labels go from 0 to {classes - 1}")
    try:
        return decode(content)
    except UndecodableError as error:
        raise InputError(
            f"{name}: not an image that can be decoded ({error}); repair it, or leave it out "
            "with --exclude"
        ) from error


def _scaled_down(image: Image.Image, shorter: int) -> tuple[bytes, Image.Image]:
    """A photograph scaled down and encoded again, and what is decoded of that."""
    # Decoded from what is stored: the digest must be of the pixels that a run will see.
    sink = BytesIO()
    image.resize(resized(image.size, shorter), FILTER).save(
        sink, "JPEG", quality=QUALITY, subsampling=0
    )
    return sink.getvalue(), decode(sink.getvalue())


class AboutPart(TypedDict):
    """What a record says in words, beside its arrays."""

    split: str
    names: list[str]
    left_out: list[str]
    notes: list[str]
    shard: StoredFile


@dataclass(frozen=True)
class Record:
    """What a part's record says."""

    about: dict[str, Any]
    arrays: dict[str, Any]

    def left_out(self, reading: Reading) -> list[str]:
        """The names of its images that a reading leaves out."""
        return [name for name in self.about["names"] if reading.leaves_out(name)]


def read_record(storage: Storage, key: str, number: int, reading: Reading) -> Record | None:
    """A part's record, or None where the part must be read (again).

    That is so where it was not finished, its shard is gone, or other images were left out of it.
    """
    content = storage.read_if_there(record_path(key, number))
    if content is None:
        return None
    try:
        # safetensors gives its metadata only of files on disk, so the header is read here: eight
        # bytes with its length, then JSON.
        size = int.from_bytes(content[:8], "little")
        header = parse(content[8 : 8 + size])
        words = header["__metadata__"]["about"].encode()
        about: Any = parse_as(words, AboutPart, record_path(key, number))
        record = Record(about, load_arrays(content))
        left_out, shard = record.about["left_out"], record.about["shard"]
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, InputError):
        return None
    if left_out != record.left_out(reading):
        return None
    return record if storage.file_size(shard["path"]) == shard["size"] else None


def finish(
    storage: Storage,
    name: str,
    key: str,
    listing: Listing,
    reading: Reading,
    source: dict[str, Any],
    official: bool,
) -> dict[str, Any]:
    """Make one dataset of all parts' records and return its manifest, which is written last.

    Raises:
        InputError: a split without images, or an excluded name that no image has.
    """
    records, mean = _records(storage, key, listing, reading)
    left_out = [name for record in records for name in record.about["left_out"]]
    _check_excluded(reading.excluded, left_out)
    tables = {split: _index(records, split) for split in SPLITS}
    counts = {split: table.num_rows for split, table in tables.items()}
    for split, count in counts.items():
        if not count:
            raise InputError(f"{name}: the {split} split has no images")
    labels = {split: table.column("label").to_numpy() for split, table in tables.items()}
    dataset_id = photos_id(counts, {s: _digests(table) for s, table in tables.items()}, labels)
    # The official archives alone are not enough: scaled down or with an image less, they are
    # another dataset than the paper's.
    comparable = (
        official and counts == OFFICIAL_COUNTS and not reading.longest_short_side and not left_out
    )
    old = read_manifest(storage, dataset_id)
    if old is not None:
        # The same photographs came from another source before: its shards and index stay.
        comparable = comparable or old["row"]["comparable"]
        sources = old["sources"] + [source] * (source not in old["sources"])
        manifest = old | {"sources": sources, "row": old["row"] | {"comparable": comparable}}
    else:
        spec = replace(IMAGENET.spec, name=name, classes=listing.classes, comparable=comparable)
        batches = [batch for table in tables.values() for batch in table.to_batches()]
        manifest = {
            "format": FORMAT,
            "kind": KIND,
            "id": dataset_id,
            "row": asdict(spec),
            **{f"{split}_images": counts[split] for split in SPLITS},
            "classes_seen": {split: len(np.unique(labels[split])) for split in SPLITS},
            "longest_short_side": reading.longest_short_side,
            "left_out": left_out,
            "notes": [note for record in records for note in record.about["notes"]],
            "shards": [record.about["shard"] for record in records],
            "sources": [source],
        }
        files = {"index": arrow_file(INDEX, batches), "mean": save_arrays(mean)}
        for what, content in files.items():
            path = f"{FOLDER}/{dataset_id}/{what}"
            storage.write(path, content)
            manifest[what] = entry(path, content)
    manifest = with_class_names(manifest, listing.class_names)
    # Last: a dataset is in storage only once everything that its manifest names is.
    storage.write(f"{FOLDER}/{dataset_id}/manifest.json", dumps(manifest, indent=1).encode())
    _delete_unnamed(storage, records)
    return manifest


def _delete_unnamed(storage: Storage, records: list[Record]) -> None:
    """Delete the shards just written that no manifest names.

    The same photographs may have been there already, in another layout's order.
    """
    named = {
        shard["path"] for known in stored_manifests(storage) for shard in known.get("shards", ())
    }
    for record in records:
        if record.about["shard"]["path"] not in named:
            storage.delete(record.about["shard"]["path"])


def _records(
    storage: Storage, key: str, listing: Listing, reading: Reading
) -> tuple[list[Record], dict[str, NDArray[np.int64]]]:
    """The records of all parts, and the sums over them that the mean image is made of."""
    sums, squares = np.zeros((MEAN_SIDE, MEAN_SIDE, 3), dtype=np.int64), np.zeros(3, dtype=np.int64)
    done = []
    for number in range(len(listing.parts)):
        record = read_record(storage, key, number, reading)
        if record is None:
            raise InputError(
                f"part {number} of {len(listing.parts)} was read and is not in {storage.uri}: "
                "every node must write there"
            )
        # Popped, as all records are kept until the index is made, and each sum is a megabyte.
        sums += record.arrays.pop("sums")
        squares += record.arrays.pop("squares")
        done.append(record)
    return done, {"sums": sums, "squares": squares}


def _check_excluded(excluded: Collection[str], left_out: list[str]) -> None:
    # A name with a typing error would otherwise leave nothing out and say nothing.
    for end in excluded:
        if not any(name.endswith(end) for name in left_out):
            raise InputError(f"--exclude {end}: no image that was read now has a name that ends so")


def _digests(table: pa.Table) -> NDArray[Any]:
    return np.frombuffer(b"".join(table.column("digest").to_pylist()), dtype=f"S{DIGEST_BYTES}")


def _index(records: list[Record], split: str) -> pa.Table:
    """The index of a split: a line per image in the order of digest and label."""
    # A shard's number is its place in the manifest, so it counts the records of both splits.
    of_split = [
        (number, record) for number, record in enumerate(records) if record.about["split"] == split
    ]
    if not of_split:
        return INDEX.empty_table()
    joined = {
        name: np.concatenate([record.arrays[name] for _, record in of_split])
        for name in ("digests", "labels", "offsets", "sizes")
    }
    digests, labels = joined["digests"], joined["labels"]
    counts = [len(record.arrays["labels"]) for _, record in of_split]
    shards = np.repeat(np.array([number for number, _ in of_split], dtype=np.uint16), counts)
    # Of its keys, lexsort takes the last as the first: the digests' bytes from left to right, and
    # the label where all of them are equal.
    order = np.lexsort((labels, *digests.T[::-1]))
    sorted_digests = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(DIGEST_BYTES),
        len(order),
        [None, pa.py_buffer(np.ascontiguousarray(digests[order]).tobytes())],
    )
    columns = [
        pa.array(column[order]) for column in (shards, joined["offsets"], joined["sizes"], labels)
    ]
    columns.append(sorted_digests)
    return pa.table(columns, schema=INDEX)
