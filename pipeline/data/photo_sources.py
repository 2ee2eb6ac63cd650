"""The layouts in which photographs come: ILSVRC-2012's tar files, class folders, or parquet files.

A source is checked and listed as parts (`pipeline.data.photo_parts`) before anything of it is read:
what is missing from it is said at once, not after hours of reading. Torch-free.
"""

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np

from pipeline.data.parquet_images import ImagesFile
from pipeline.data.photo_parts import FilesPart, ParquetPart, Part, Split, TarPart, tar_members
from pipeline.errors import InputError, first_line
from pipeline.storage import check_regular

PART_IMAGES = 1500
"""About so many images make a part, and a shard."""

TRAIN_TAR, VALIDATION_TAR, DEVKIT = (
    "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz",
)  # fmt: skip
TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
META = "data/meta.mat"
DEVKIT_FILE_BYTES = 64 << 20
"""Of a file of the development kit that is read; each has less than one."""

SUFFIXES = (".jpeg", ".jpg", ".png")


@dataclass(frozen=True)
class Listing:
    """What a path holds: the name of its layout, how many classes, and its parts."""

    # Half-done ingests are found by the repr of this object: another class name or field, here or
    # in a part, would start them from the beginning (`Reading.key`).
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
            f"--from {path}: no such folder; expected ILSVRC-2012's tar files, train/ and "
            "val/, or parquet"
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
    prefixes: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("validation", "val")}
    for split, names in prefixes.items():
        # A set, as `val*` finds the files of `validation*` too; sorted, as parts are numbered.
        files = sorted({file for name in names for file in path.rglob(f"{name}*.parquet")})
        if not files:
            raise InputError(f"--from {path}: holds no {names[0]}*.parquet")
        _check_all_there(files)
        for file in files:
            parts += _parquet_parts(file, split)
    # The files do not say how many classes they have: labels up to ImageNet's 1,000 are accepted.
    return Listing("parquet", 1000, tuple(parts))


def _check_all_there(files: list[Path]) -> None:
    """Refuse files of which, by their own names (`train-00003-of-00294.parquet`), some are missing.

    Raises:
        InputError: says how many.
    """
    for file in files:
        if total := re.search(r"-of-(\d+)", file.stem):
            alike = [other for other in files if total[0] in other.stem]
            if len(alike) != int(total[1]):
                raise InputError(
                    f"{file.parent}: holds {len(alike)} of {int(total[1])} files named like "
                    f"{file.name}"
                )


def _parquet_parts(file: Path, split: Split) -> Iterator[ParquetPart]:
    # A part is whole row groups, as nothing less can be read of a file without reading the rest.
    sizes = ImagesFile(file, ("image",)).rows
    first, before = 0, 0
    for group in range(len(sizes)):
        rows = sum(sizes[first : group + 1])
        if rows >= PART_IMAGES or group + 1 == len(sizes):
            yield ParquetPart(split, str(file), first, group + 1, before)
            first, before = group + 1, before + rows


def _list_folders(path: Path) -> Listing:
    # Labels are the places of sorted folder names: sorted WordNet ids are the usual order of
    # ImageNet's classes, so a tree and the tar files give the same labels.
    classes = sorted(folder.name for folder in (path / "train").iterdir() if folder.is_dir())
    labels = {name: label for label, name in enumerate(classes)}
    parts: list[Part] = []
    folders: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("val", "validation")}
    for split, names in folders.items():
        root = next((path / name for name in names if (path / name).is_dir()), None)
        if root is None:
            raise InputError(f"--from {path}: holds no {names[0]}/ with a folder per class")
        files = []
        absent = sorted(name for name in labels if not (root / name).is_dir())
        if absent:
            raise InputError(
                f"{root}: has no folder {absent[0]}; expected one per class, as in {path / 'train'}"
            )
        for folder in sorted(root.iterdir()):
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
    for archive in paths:
        if not archive.exists():
            raise InputError(
                f"--from {path}: holds no {archive.name}; ILSVRC-2012 is all three of its archives"
            )
    train, validation, devkit = paths
    wnids, truth = read_devkit(devkit)
    labels = {wnid: label for label, wnid in enumerate(sorted(wnids.values()))}
    # The training archive holds a tar file per class, named after it.
    inner = tar_members(train)
    for wnid in sorted(labels.keys() ^ {PurePosixPath(member.name).stem for member in inner}):
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
    # Sorted by name, as the ground truth's lines are: ILSVRC2012_val_00000001.JPEG is the first.
    images = sorted(tar_members(validation))
    if len(images) != len(truth):
        raise InputError(
            f"{validation}: holds {len(images):,} images, {DEVKIT} has labels of {len(truth):,}"
        )
    labelled = [
        image._replace(label=labels[wnids[number]])
        for image, number in zip(images, truth, strict=True)
    ]
    parts += [
        TarPart("test", str(validation), tuple(labelled[at : at + PART_IMAGES]))
        for at in range(0, len(labelled), PART_IMAGES)
    ]
    return Listing("tar", len(labels), tuple(parts), archives=tuple(map(str, paths)))


def read_devkit(devkit: Path) -> tuple[dict[int, str], list[int]]:
    """The WordNet id of each ILSVRC class number, and the class numbers of the validation images.

    Raises:
        InputError: it is not the development kit of tasks 1 and 2.
    """
    # Slow to import, and only the tar files have a devkit.
    from scipy.io import loadmat

    check_regular(devkit)
    try:
        with tarfile.open(devkit, "r:gz") as tar:
            files = {}
            for member in tar:
                for name in (TRUTH, META):
                    if member.isfile() and member.name.endswith(name):
                        if member.size > DEVKIT_FILE_BYTES:
                            raise ValueError(f"{name} has {member.size:,} bytes")
                        content = tar.extractfile(member)
                        files[name] = content.read() if content else b""
        absent = sorted({TRUTH, META} - files.keys())
        if absent:
            raise ValueError(f"holds no {absent[0]}")
        found = loadmat(BytesIO(files[META]), squeeze_me=True, variable_names=["synsets"])
        if "synsets" not in found:
            raise ValueError(f"{META} holds no synsets")
        synsets = np.atleast_1d(found["synsets"])
        # Synsets with children are not classes: they only hold the 1,000 leaves together.
        leaves = [synset for synset in synsets if int(synset[4]) == 0]
        wnids = {int(synset[0]): str(synset[1]) for synset in leaves}
        truth = [int(line) for line in files[TRUTH].split()]
        unknown = sorted(set(truth) - set(wnids))
    # Everything is caught, because foreign files of MATLAB make scipy's reader raise anything.
    except Exception as error:
        raise InputError(
            f"{devkit}: not ILSVRC-2012's development kit ({type(error).__name__}: "
            f"{first_line(error)}); fetch it again"
        ) from error
    if unknown:
        raise InputError(f"{devkit}: validation labels out of range, such as {unknown[0]}")
    return wnids, truth
