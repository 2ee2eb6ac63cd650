"""Hugging Face's parquet layout: which files are a split's, and which columns images and labels.

Both small images (`pipeline.data.parquet`) and photographs come in it. Torch-free.
"""

import filecmp
import os
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.data.sources.parquet_rows import ParquetRows
from pipeline.data.sources.source_files import Tally, few, files_below
from pipeline.errors import InputError
from pipeline.stored_json import parse

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "fine_label")
"""Of which the first that a file has is taken: CIFAR-100 has coarse labels too."""


def parquet_files(
    path: Path, splits: dict[str, tuple[str, ...]]
) -> tuple[dict[str, list[Path]], tuple[str, ...]]:
    """The parquet files of each split below a path, none of them twice, and notes on the others.

    A file is of a split if its name begins with one of the split's names, or if its folder is
    called so (`default/train/0000.parquet`). A split without files has none in the answer.

    Raises:
        InputError: a split's files lie in several folders or are of several sets, or some miss.
        OSError: a folder cannot be read.
    """
    tally = Tally(path, "parquet files")
    found: dict[str, list[Path]] = {split: [] for split in splits}
    read: dict[str, Path] = {}
    for file in files_below(path, tally, ".parquet"):
        split = _split_of(file, splits)
        if split is None:
            tally.leave_out("of no split that is read", file)
        elif (where := os.path.realpath(file)) in read:
            # Hugging Face's cache links each file into the folder of every version that has it.
            tally.leave_out("read under another name", file)
        else:
            read[where] = file
            found[split].append(file)
    for split, files in found.items():
        _check_one_folder(path, split, files)
        # Of a whole set (`train-00000-of-00002`, `train-00001-of-00002`) all are meant.
        if _told_totals(files) != {len(files)}:
            for file in _copies(files):
                files.remove(file)
                tally.leave_out("with the same content as another", file)
        _check_all_there(files)
        tally.read += len(files)
    return found, tally.notes() if any(found.values()) else ()


def _split_of(file: Path, splits: dict[str, tuple[str, ...]]) -> str | None:
    by_name = [split for split, names in splits.items() if file.name.startswith(names)]
    by_folder = [split for split, names in splits.items() if file.parent.name in names]
    return next(iter(by_name + by_folder), None)


def _check_one_folder(path: Path, split: str, files: list[Path]) -> None:
    # Two versions of a dataset, or a copy of it: which is meant is not ours to guess.
    folders = Counter(file.parent for file in files)
    if len(folders) > 1:
        places = few(f"{folder} ({count:,})" for folder, count in folders.items())
        raise InputError(
            f"{path}: parquet files for {split} lie in {len(folders)} folders: {places}; "
            "name the one that is meant, or put what belongs together into one"
        )


def _copies(files: list[Path]) -> list[Path]:
    """Those whose content an earlier one of the files has."""
    of_size = defaultdict(list)
    for file in files:
        of_size[file.stat().st_size].append(file)
    # Files of one size alone are compared, and that ends with the first byte that differs.
    pairs = [pair for alike in of_size.values() for pair in combinations(alike, 2)]
    return sorted({copy for file, copy in pairs if filecmp.cmp(file, copy, shallow=False)})


def _told_totals(files: list[Path]) -> set[int]:
    """Of how many files theirs are by their names (`train-00003-of-00294.parquet`); 0: not told."""
    found = (re.search(r"-of-(\d+)", file.stem) for file in files)
    return {int(total[1]) if total else 0 for total in found}


def _check_all_there(files: list[Path]) -> None:
    """Refuse files of which, by their own names, some are missing, or which are of several sets."""
    totals = _told_totals(files)
    if totals <= {0} or totals == {len(files)}:
        return
    total = max(totals)
    alike = [file for file in files if _told_totals([file]) == {total}]
    where, named = alike[0].parent, f"of {total:,} files named like {alike[0].name}"
    if len(alike) != total:
        raise InputError(f"{where}: holds {len(alike):,} {named}")
    others = few(file.name for file in files if file not in alike)
    raise InputError(
        f"{where}: holds {total:,} {named}, and for the same split {others}; leave one"
    )


@dataclass(frozen=True)
class ImageColumns:
    """Which columns of a parquet file are images and labels, and what its labels are called."""

    image: str = "image"
    label: str = "label"
    names: tuple[str, ...] = ()
    """Of the classes in the order of their numbers, as the file (`ClassLabel`) says them."""
    texts: bool = False
    """Whether labels are texts, to be numbered by `names`."""

    @classmethod
    def of(cls, file: Path) -> "ImageColumns":
        """Those of a file: images are bytes or a struct with `bytes`, labels integers or texts.

        Raises:
            InputError: it is no parquet file, or has no such columns; says which it has.
        """
        schema = ParquetRows(file).schema
        image = next((name for name in IMAGE_COLUMNS if name in schema.names), None)
        label = next((name for name in LABEL_COLUMNS if name in schema.names), None)
        if image is None or label is None:
            raise InputError(
                f"{file}: columns are {few(schema.names)}; expected {' or '.join(IMAGE_COLUMNS)}"
                f", and {' or '.join(LABEL_COLUMNS)}"
            )
        for name in (image, label):
            if schema.names.count(name) > 1:
                raise InputError(f"{file}: column {name} is there twice")
        kinds = schema.field(image).type, schema.field(label).type
        texts = _is_text(kinds[1])
        if not _is_encoded(kinds[0]) or not (texts or pa.types.is_integer(kinds[1])):
            raise InputError(
                f"{file}: expected images as bytes or a struct with `bytes`, and labels as "
                f"integers or texts, not {kinds[0]}, {kinds[1]}"
            )
        return cls(image, label, () if texts else _class_names(schema, label), texts)

    def pair(self, record: dict[str, Any]) -> tuple[bytes | None, int | None]:
        """A row's encoded image and class number, None for what it has not."""
        image, label = record[self.image], record[self.label]
        content = image.get("bytes") if isinstance(image, dict) else image
        if self.texts:
            # In the order of the names: whoever numbered the classes sorted them, too.
            label = self.names.index(label) if label in self.names else None
        return (
            content if isinstance(content, bytes) else None,
            label if isinstance(label, int) else None,
        )


def _is_text(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner))


def _is_encoded(kind: pa.DataType) -> bool:
    plain = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return plain or (pa.types.is_struct(kind) and "bytes" in {field.name for field in kind})


def _class_names(schema: pa.Schema, label: str) -> tuple[str, ...]:
    """The names that Hugging Face's `ClassLabel` gives the classes; none where it is not there."""
    try:
        about = parse((schema.metadata or {})[b"huggingface"])
        return tuple(str(name) for name in about["info"]["features"][label]["names"])
    except (ValueError, KeyError, TypeError):
        return ()


def same_classes(files: dict[str, list[Path]]) -> ImageColumns:
    """The columns that all files of a dataset have; texts are numbered in their sorted order.

    Raises:
        InputError: files have other columns, kinds of labels or classes than the first.
    """
    (first, columns), *others = [
        (file, ImageColumns.of(file)) for of_split in files.values() for file in of_split
    ]
    for file, other in others:
        # A file that was written without `ClassLabel` has no names to compare.
        if replace(other, names=other.names and columns.names) != replace(
            columns, names=columns.names and other.names
        ):
            raise InputError(
                f"{file}: has other columns, classes or kinds of labels than {first}; the splits "
                "of a dataset have the same"
            )
    if not columns.texts:
        return columns
    names = {split: _texts(of_split, columns.label) for split, of_split in files.items()}
    for split, of_split in names.items():
        if unknown := sorted(of_split - names["train"]):
            raise InputError(
                f"{files[split][0].parent}: {split} has the class {unknown[0]!r}, which train has "
                "not"
            )
    return replace(columns, names=tuple(sorted(names["train"])))


def _texts(files: list[Path], label: str) -> set[str]:
    found: set[str] = set()
    for file in files:
        found |= {record[label] for record in ParquetRows(file).read([label])}
        if None in found:
            raise InputError(f"{file}: has rows without a {label}")
    return found
