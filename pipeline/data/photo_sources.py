"""Where photographs come from: ILSVRC-2012's tar files, a folder per class, or the Hugging Face
parquet layout (torch-free).

A source is checked and listed as parts (`pipeline.data.photo_parts`) before anything of it is read.
"""

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.photo_parts import FilesPart, ParquetPart, Part, Split, TarPart, tar_members
from pipeline.errors import InputError, first_line

PART_IMAGES = 1500
"""About so many images make a part, and a shard."""

TRAIN_TAR, VALIDATION_TAR, DEVKIT = (
    "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz",
)  # fmt: skip
TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
META = "data/meta.mat"
SUFFIXES = (".jpeg", ".jpg", ".png")


@dataclass(frozen=True)
class Listing:
    """What a path holds: its parts, how many classes, the layout's name, and whether labels and
    counts are ILSVRC-2012's.
    """

    layout: str
    classes: int
    parts: tuple[Part, ...]
    archives: tuple[str, ...] = ()
    """Official archives whose md5 makes the dataset comparable with the paper's."""


def list_source(path: Path) -> Listing:
    """What lies at a path.

    Raises:
        InputError: nothing of the three layouts, or one that is not whole.
    """
    if not path.is_dir():
        raise InputError(
            f"--from {path}: no such folder; wanted are ILSVRC-2012's tar files, train/ and val/, "
            "or parquet"
        )
    if (path / TRAIN_TAR).exists() or (path / VALIDATION_TAR).exists():
        return _list_tars(path)
    if any(path.rglob("*.parquet")):
        return _list_parquet(path)
    if (path / "train").is_dir():
        return _list_folders(path)
    raise InputError(
        f"--from {path}: holds neither {TRAIN_TAR}, nor train/ and val/ with a folder per class, "
        "nor train*.parquet"
    )


def _list_parquet(path: Path) -> Listing:
    parts: list[Part] = []
    wanted: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("validation", "val")}
    for split, names in wanted.items():
        files = sorted({file for name in names for file in path.rglob(f"{name}*.parquet")})
        if not files:
            raise InputError(f"--from {path}: holds no {names[0]}*.parquet")
        _check_all_there(files)
        for file in files:
            parts += _parquet_parts(file, split)
    return Listing("parquet", 1000, tuple(parts))


def _check_all_there(files: list[Path]) -> None:
    """Refuse files of which, by their own names (`train-00003-of-00294.parquet`), some are missing.

    Raises:
        InputError: says how many.
    """
    for file in files:
        if found := re.search(r"-of-(\d+)", file.stem):
            wanted, alike = int(found[1]), [other for other in files if found[0] in other.stem]
            if len(alike) != wanted:
                raise InputError(
                    f"{file.parent}: holds {len(alike)} of {wanted} files named like {file.name}"
                )


def _parquet_parts(file: Path, split: Split) -> Iterator[ParquetPart]:
    try:
        parquet = pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file}: not a readable parquet file ({first_line(error)})") from error
    missing = {"image", "label"} - set(parquet.schema_arrow.names)
    if missing:
        raise InputError(
            f"{file}: has no column {' and '.join(sorted(missing))}; wanted are image and label"
        )
    types = {name: parquet.schema_arrow.field(name).type for name in ("image", "label")}
    encoded = pa.types.is_struct(types["image"]) and "bytes" in {
        field.name for field in types["image"]
    }
    if not encoded or not pa.types.is_integer(types["label"]):
        raise InputError(
            f"{file}: wanted are an image with `bytes` and an integer label, not {types['image']}, "
            f"{types['label']}"
        )
    sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
    first, before = 0, 0
    for group in range(len(sizes)):
        rows = sum(sizes[first : group + 1])
        if rows >= PART_IMAGES or group + 1 == len(sizes):
            yield ParquetPart(split, str(file), first, group + 1, before)
            first, before = group + 1, before + rows


def _list_folders(path: Path) -> Listing:
    classes = sorted(folder.name for folder in (path / "train").iterdir() if folder.is_dir())
    labels = {name: label for label, name in enumerate(classes)}
    parts: list[Part] = []
    wanted: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("val", "validation")}
    for split, names in wanted.items():
        place = next((path / name for name in names if (path / name).is_dir()), None)
        if place is None:
            raise InputError(f"--from {path}: holds no {names[0]}/ with a folder per class")
        files = []
        absent = sorted(name for name in labels if not (place / name).is_dir())
        if absent:
            raise InputError(
                f"{place}: has no folder {absent[0]}; wanted is one per class, as in "
                f"{path / 'train'}"
            )
        for folder in sorted(place.iterdir()):
            if not folder.is_dir():
                continue
            if folder.name not in labels:
                raise InputError(f"{folder}: is no class, as {path / 'train'} has no {folder.name}")
            inside = sorted(
                str(file) for file in folder.iterdir() if file.suffix.lower() in SUFFIXES
            )
            if not inside:
                raise InputError(f"{folder}: holds no images, so a class is missing")
            files += [(file, labels[folder.name]) for file in inside]
        parts += [
            FilesPart(split, tuple(files[at : at + PART_IMAGES]))
            for at in range(0, len(files), PART_IMAGES)
        ]
    return Listing("folders", len(classes), tuple(parts))


def _list_tars(path: Path) -> Listing:
    paths = [path / name for name in (TRAIN_TAR, VALIDATION_TAR, DEVKIT)]
    for wanted in paths:
        if not wanted.exists():
            raise InputError(
                f"--from {path}: holds no {wanted.name}; ILSVRC-2012 is all three of its archives"
            )
    train, validation, devkit = paths
    wnids, truth = read_devkit(devkit)
    labels = {wnid: label for label, wnid in enumerate(sorted(wnids.values()))}
    inner = tar_members(train)
    found = {PurePosixPath(member.name).stem for member in inner}
    for wnid in sorted(labels.keys() ^ found):
        what = f"class {wnid} is missing" if wnid in labels else f"{wnid} is no class of {DEVKIT}"
        raise InputError(f"{train}: {what}")
    parts: list[Part] = [
        TarPart(
            "train",
            str(train),
            (member._replace(label=labels[PurePosixPath(member.name).stem]),),
            nested=True,
        )
        for member in inner
    ]
    images = sorted(tar_members(validation))
    if len(images) != len(truth):
        raise InputError(
            f"{validation}: holds {len(images):,} images, {DEVKIT} has labels of {len(truth):,}"
        )
    labelled = [
        image._replace(label=labels[wnids[number]])
        for image, number in zip(images, truth, strict=True)
    ]  # by name: ILSVRC2012_val_00000001.JPEG is the first
    parts += [
        TarPart("test", str(validation), tuple(labelled[at : at + PART_IMAGES]))
        for at in range(0, len(labelled), PART_IMAGES)
    ]
    return Listing("tar", len(labels), tuple(parts), archives=tuple(map(str, paths)))


def read_devkit(devkit: Path) -> tuple[dict[int, str], list[int]]:
    """ILSVRC's numbers of classes with their WordNet ids, and the number of each validation image's
    class in order.

    Raises:
        InputError: it is not the development kit of tasks 1 and 2.
    """
    from scipy.io import loadmat

    try:
        with tarfile.open(devkit, "r:gz") as tar:
            files = {}
            for member in tar:
                for wanted in (TRUTH, META):
                    if member.isfile() and member.name.endswith(wanted):
                        content = tar.extractfile(member)
                        files[wanted] = content.read() if content else b""
        synsets = loadmat(BytesIO(files[META]), squeeze_me=True)["synsets"]
        leaves = [synset for synset in synsets if int(synset[4]) == 0]
        wnids = {int(synset[0]): str(synset[1]) for synset in leaves}
        truth = [int(line) for line in files[TRUTH].split()]
        unknown = sorted(set(truth) - set(wnids))
    except (
        tarfile.TarError,
        OSError,
        EOFError,
        KeyError,
        ValueError,
        TypeError,
        IndexError,
    ) as error:
        raise InputError(
            f"{devkit}: not ILSVRC-2012's development kit ({type(error).__name__}: {error})"
        ) from error
    if unknown:
        raise InputError(f"{devkit}: validation labels out of range, such as {unknown[0]}")
    return wnids, truth
