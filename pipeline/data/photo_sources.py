"""The layouts in which photographs come: ILSVRC-2012's tar files, class folders, or parquet files.

A source is checked and listed as parts (`pipeline.data.photo_parts`) before anything of it is read:
what is missing from it is said at once, not after hours of reading. Torch-free.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pipeline.data.photo_decoding import SUFFIXES, identified
from pipeline.data.photo_parts import FilesPart, ParquetPart, Part, Split, TarPart, tar_members
from pipeline.data.sources.parquet_layout import ImageColumns, parquet_files, same_classes
from pipeline.data.sources.parquet_rows import ParquetRows
from pipeline.data.sources.source_files import (
    Tally,
    beside,
    few,
    files_below,
    held,
    is_foreign,
    leave_out_foreign,
)
from pipeline.data.sources.validation_labels import (
    DEVKIT,
    SOLUTION,
    read_devkit,
    validation_labels,
)
from pipeline.errors import InputError

PART_IMAGES = 1500
"""About so many images make a part, and a shard."""

TRAIN_TAR, VALIDATION_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
TARS = (TRAIN_TAR, VALIDATION_TAR, DEVKIT)

PARQUET_SPLITS: dict[str, tuple[str, ...]] = {"train": ("train",), "test": ("validation", "val")}
FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "ILSVRC2012_img_train"),
    "test": ("val", "validation", "ILSVRC2012_img_val"),
}
KAGGLE = "ILSVRC/Data/CLS-LOC"
"""Where Kaggle's archive has the two folders."""


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
    notes: tuple[str, ...] = field(default=(), repr=False)
    """What lies there and is not read, a line each."""
    class_names: tuple[str, ...] = field(default=(), repr=False)
    """What its folders or files call the classes, by number."""

    @property
    def images(self) -> int | None:
        """How many images there are, where it is known before anything is read."""
        counts = [len(part.files) for part in self.parts if isinstance(part, FilesPart)]
        return sum(counts) if len(counts) == len(self.parts) else None


def list_source(path: Path) -> Listing:
    """What lies at a path.

    Of several layouts beside each other one is read, and a note names the others.

    Raises:
        InputError: nothing of the three layouts, or one that is not whole.
    """
    try:
        if path.is_dir():
            return _listed(path)
    except OSError as error:
        raise InputError(
            f"--from {error.filename or path}: cannot be read ({error.strerror})"
        ) from error
    what = "is a file" if path.exists() else "no such folder"
    raise InputError(
        f"--from {path}: {what}; expected a folder with ILSVRC-2012's tar files, train/ and val/, "
        "or parquet files"
    )


def _listed(path: Path) -> Listing:
    tars = [name for name in TARS[:2] if (path / name).exists()]
    root = next((p for p in (path / KAGGLE, path / "Data/CLS-LOC") if p.is_dir()), path)
    folders = [root / name for names in FOLDERS.values() for name in names]
    folders = [folder for folder in folders if folder.is_dir()]
    if tars and (not folders or (len(tars) == 2 and (path / DEVKIT).exists())):
        return _list_tars(path, folders)
    with_classes = [folder for folder in folders if _subfolders(folder)]
    try:
        files, notes = parquet_files(path, PARQUET_SPLITS)
        # A single table beside folders of classes is rather a list of their files.
        if files["train"] and (files["test"] or not with_classes):
            return _list_parquet(path, files, notes + beside("parquet", with_classes))
    except InputError:
        # Nor is a table in them one of images (Hugging Face's `metadata.parquet`).
        if not with_classes:
            raise
    if any(folder.name in FOLDERS["train"] for folder in folders):
        return _list_folders(path, root, tars)
    raise InputError(
        f"--from {path}: holds neither {TRAIN_TAR}, nor train/ and val/ with a folder per class, "
        f"nor train*.parquet; it holds {held(path)}"
    )


def _list_parquet(path: Path, files: dict[str, list[Path]], notes: tuple[str, ...]) -> Listing:
    if not files["test"]:
        raise InputError(f"--from {path}: holds no validation*.parquet; it holds {held(path)}")
    columns = same_classes(files)
    splits: tuple[Split, ...] = ("train", "test")
    parts = [
        part
        for split in splits
        for file in files[split]
        for part in _parquet_parts(file, split, columns)
    ]
    # Integers do not say how many classes there are: labels up to ImageNet's 1,000 are accepted.
    classes = len(columns.names) if columns.texts else 1000
    return Listing("parquet", classes, tuple(parts), notes=notes, class_names=columns.names)


def _parquet_parts(file: Path, split: Split, columns: ImageColumns) -> Iterator[ParquetPart]:
    # A part is whole row groups, as nothing less can be read of a file without reading the rest.
    sizes = ParquetRows(file).groups
    first, before = 0, 0
    for group in range(len(sizes)):
        rows = sum(sizes[first : group + 1])
        if rows >= PART_IMAGES or group + 1 == len(sizes):
            yield ParquetPart(split, str(file), first, group + 1, before, columns)
            first, before = group + 1, before + rows


def _list_folders(path: Path, root: Path, tars: list[str]) -> Listing:
    found = {
        split: [root / name for name in names if (root / name).is_dir()]
        for split, names in FOLDERS.items()
    }
    for split, names in FOLDERS.items():
        if not found[split]:
            raise InputError(
                f"--from {path}: holds no {names[0]}/ with a folder per class; {root} holds "
                f"{held(root)}"
            )
    train, test = found["train"][0], found["test"][0]
    # Labels are the places of sorted folder names: sorted WordNet ids are the usual order of
    # ImageNet's classes, so a tree and the tar files give the same labels.
    labels = {folder.name: label for label, folder in enumerate(_subfolders(train))}
    if not labels:
        raise InputError(f"{train}: has no folder per class; it holds {held(train)}")
    tally = Tally(root, f"files below {train.name}/ and {test.name}/")
    images = {"train": _in_class_folders(train, labels, train, tally)}
    if _subfolders(test):
        images["test"] = _in_class_folders(test, labels, train, tally)
    else:
        images["test"] = _in_one_folder(test, labels, (root, path, *root.parents[:3]), tally)
    tally.read = sum(map(len, images.values()))
    parts = tuple(
        FilesPart(split, tuple(images[split][at : at + PART_IMAGES]))
        for split in FOLDERS
        for at in range(0, len(images[split]), PART_IMAGES)
    )
    others = [*found["train"][1:], *found["test"][1:], *(path / tar for tar in tars)]
    notes = tally.notes() + beside("a folder per class", others)
    return Listing("folders", len(labels), parts, notes=notes, class_names=tuple(labels))


def _subfolders(folder: Path) -> list[Path]:
    """Its folders that are not an operating system's or a tool's, sorted."""
    inside = (place for place in folder.iterdir() if not is_foreign(place.name))
    return sorted(place for place in inside if place.is_dir())


def _in_class_folders(
    root: Path, labels: dict[str, int], train: Path, tally: Tally
) -> list[tuple[str, int]]:
    """The images of a split with a folder per class, class by class, with their labels."""
    folders = {folder.name: folder for folder in _subfolders(root)}
    absent = sorted(labels.keys() - folders.keys())
    if absent:
        raise InputError(
            f"{root}: has no folder {absent[0]}; expected one per class, as in {train}"
        )
    for place in sorted(root.iterdir()):
        if is_foreign(place.name):
            leave_out_foreign(place, tally)
        elif place.name not in folders:
            tally.leave_out("in no class's folder", place)
    images = []
    for name, folder in folders.items():
        if name not in labels:
            raise InputError(f"{folder}: is no class, as {train} has no {name}")
        inside = sorted(str(file) for file in _images(files_below(folder, tally), tally))
        if not inside:
            raise InputError(
                f"{folder}: holds no images, so a class is missing; it holds {held(folder)}"
            )
        images += [(file, labels[name]) for file in inside]
    return images


def _images(files: list[Path], tally: Tally) -> list[Path]:
    """Those of the files that are images; a file that is called like one is refused when read."""
    # Only files of other names are opened here: of millions of images on a network drive, hardly
    # any.
    unsure = [file for file in files if file.suffix.lower() not in SUFFIXES]
    with ThreadPoolExecutor(16) as pool:
        no_images = {
            file
            for file, is_image in zip(unsure, pool.map(identified, unsure), strict=True)
            if not is_image
        }
    for file in sorted(no_images):
        tally.leave_out("no images that can be read", file)
    return [file for file in files if file not in no_images]


def _in_one_folder(
    root: Path, labels: dict[str, int], places: tuple[Path, ...], tally: Tally
) -> list[tuple[str, int]]:
    """ILSVRC-2012's validation images, which lie in one folder, labelled by a list beside them."""
    found = validation_labels(places)
    if found is None:
        raise InputError(
            f"{root}: has no folder {next(iter(labels))}; expected one per class, or {SOLUTION} or "
            f"ILSVRC-2012's development kit ({DEVKIT}, or unpacked) beside {root.name}/"
        )
    where, wnids = found
    images = []
    for file in _images(files_below(root, tally), tally):
        wnid = wnids.get(file.stem)
        if wnid not in labels:
            what = f"says {wnid}, which is no class of train/" if wnid else "has no label of it"
            raise InputError(f"{file}: {where} {what}")
        images.append((str(file), labels[wnid]))
    missing = sorted(wnids.keys() - {Path(file).stem for file, _ in images})
    if missing or len(images) != len(wnids):
        raise InputError(
            f"{root}: holds {len(images):,} images, {where} has labels of {len(wnids):,}"
            + (f"; {few(missing)} are missing" if missing else "")
        )
    return images


def _list_tars(path: Path, others: list[Path]) -> Listing:
    paths = [path / name for name in TARS]
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
    notes = beside("the official archives", others)
    return Listing(
        "tar", len(labels), tuple(parts), tuple(map(str, paths)), notes, class_names=tuple(labels)
    )
