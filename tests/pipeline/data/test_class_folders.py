"""Folders of photographs as people have them: what is a class, what is an image, what is said of
the rest.
"""

import csv
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data import photo_sources
from pipeline.data.photo_ingest import Reading
from pipeline.data.photo_parts import FilesPart
from pipeline.data.photo_sources import DEVKIT, Listing, list_source
from pipeline.errors import InputError
from pipeline.storage import Storage
from tests.pipeline.data.photographs import (
    WNIDS,
    as_folders,
    as_parquet,
    as_tars,
    ingested,
    photograph,
    pictures,
)

FOREIGN = (
    ".ipynb_checkpoints", "__MACOSX", "@eaDir", "lost+found", ".Trash-1000", "$RECYCLE.BIN",
    "System Volume Information", "__pycache__", "#recycle", ".git",
)  # fmt: skip


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return as_folders(tmp_path / "source", pictures())


def files_of(listing: Listing) -> dict[str, int]:
    """The names of the images that are read, with their labels."""
    found = {}
    for part in listing.parts:
        assert isinstance(part, FilesPart)
        found |= {f"{part.split}/{Path(file).name}": label for file, label in part.files}
    return found


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_folder_in_both_splits_is_no_class(folders: Path, name: str) -> None:
    clean = list_source(folders)
    for split in ("train", "val"):
        (folders / split / name).mkdir()
        (folders / split / name / "a.JPEG").write_bytes(photograph(1, (40, 30)))
    listing = list_source(folders)
    assert (listing.classes, files_of(listing)) == (3, files_of(clean)) and not clean.notes
    assert listing.notes == (
        "of 20 files below train/ and val/ 18 are read; left out: 2 of an operating system or a "
        f"tool (train/{name}/, val/{name}/)",
    )
    assert Reading().key(listing, "") == Reading().key(clean, "")


def test_everything_that_is_left_out_is_counted_and_few_are_named(folders: Path) -> None:
    for wnid in WNIDS:
        (folders / "train" / wnid / ".DS_Store").write_bytes(b"\0")
        (folders / "train" / wnid / f"._{wnid}_0.JPEG").write_bytes(b"\0\5\x16\7" + bytes(99))
        (folders / "train" / wnid / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(99))
    (folders / "val" / WNIDS[0] / "labels.txt").write_text("hello")
    (folders / "train" / "stray.JPEG").write_bytes(photograph(1, (40, 30)))
    listing = list_source(folders)
    assert listing.notes == (
        "of 29 files below train/ and val/ 18 are read; left out: "
        "1 in no class's folder (train/stray.JPEG); "
        "6 of an operating system or a tool (train/n01440764/.DS_Store, "
        "train/n01440764/._n01440764_0.JPEG, train/n01443537/.DS_Store, "
        "train/n01443537/._n01443537_0.JPEG, train/n01484850/.DS_Store and 1 more); "
        "4 no images that can be read (train/n01440764/Thumbs.db, train/n01443537/Thumbs.db, "
        "train/n01484850/Thumbs.db, val/n01440764/labels.txt)",
    )
    assert listing.images == 18


def test_images_are_known_by_content_whatever_their_names(folders: Path, tmp_path: Path) -> None:
    given = {"JPEG": "jfif JPE mpo dat", "WEBP": "webp", "BMP": "bmp", "PNG": "PNG", "GIF": "gif",
             "TIFF": "tif", "AVIF": "avif", "JPEG2000": "jp2"}  # fmt: skip
    place = folders / "train" / WNIDS[0]
    for number, (form, suffixes) in enumerate(given.items()):
        for suffix in suffixes.split():
            content = photograph(20 + number, (64, 48), form=form)
            (place / f"a {form}.{suffix}").write_bytes(content)
    (place / "no suffix").write_bytes(photograph(50, (64, 48)))
    listing = list_source(folders)
    assert listing.images == 18 + 12 and not listing.notes
    manifest = ingested(Storage(str(tmp_path / "s")), folders)
    assert manifest["train_images"] == 12 + 12


def test_a_file_that_is_called_an_image_and_is_none_is_refused_not_dropped(
    folders: Path, tmp_path: Path
) -> None:
    (folders / "train" / WNIDS[0] / "page.webp").write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match=r"page\.webp: not an image that can be decoded"):
        ingested(Storage(str(tmp_path / "s")), folders)


def test_images_in_folders_within_a_class_are_of_that_class(folders: Path) -> None:
    """Tiny ImageNet has them so; links are followed, and a circle of them ends."""
    for wnid in WNIDS:
        inside = folders / "train" / wnid / "images"
        inside.mkdir()
        for file in (folders / "train" / wnid).glob("*.JPEG"):
            file.rename(inside / file.name)
        (inside / "again").symlink_to(inside)
    listing = list_source(folders)
    assert listing.images == 18 and not listing.notes


def test_a_class_without_images_says_what_it_holds(folders: Path) -> None:
    place = folders / "val" / WNIDS[1]
    for file in place.iterdir():
        file.unlink()
    (place / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    with pytest.raises(InputError, match=r"so a class is missing; it holds a\.heic"):
        list_source(folders)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: None, "nothing"),
        (lambda p: zipfile.ZipFile(p / "imagenet.zip", "w").close(), r"imagenet\.zip"),
        (lambda p: (p / "training" / "cat").mkdir(parents=True), "training/"),
        (lambda p: (p / "a\nb").mkdir(), r"'a\\nb/'"),
    ],
)
def test_what_is_not_known_is_one_line_with_what_was_found(
    make: Callable[[Path], object], says: str, tmp_path: Path
) -> None:
    (tmp_path / "source").mkdir()
    make(tmp_path / "source")
    with pytest.raises(InputError, match=f"holds neither .*; it holds {says}$") as error:
        list_source(tmp_path / "source")
    assert "\n" not in str(error.value)


def test_a_file_where_a_folder_is_expected_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"a\.zip: is a file; expected a folder"):
        list_source(tmp_path / "a.zip")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        list_source(tmp_path / "nowhere")


# ILSVRC-2012 as it is downloaded today.


def solution(images: dict[str, list[tuple[str, int, bytes]]]) -> list[list[str]]:
    """Kaggle's table: a class and a box for each object, in no order."""
    rows = [
        [name.removesuffix(".JPEG"), f"{WNIDS[label]} 85 1 499 272 " * (1 + number % 2)]
        for number, (name, label, _) in enumerate(images["test"])
    ]
    return [["ImageId", "PredictionString"], *rows[::-1]]


def write_solution(file: Path, rows: list[list[str]]) -> None:
    with file.open("w", newline="") as lines:
        csv.writer(lines).writerows(rows)


def kaggle(folder: Path) -> Path:
    """What `imagenet-object-localization-challenge.zip` unpacks to."""
    images = pictures()
    root = as_folders(folder / "ILSVRC/Data/CLS-LOC", images)
    flat(root)
    (root / "test").mkdir()
    (root / "test" / "ILSVRC2012_test_00000001.JPEG").write_bytes(photograph(9, (40, 30)))
    (folder / "ILSVRC/Annotations/CLS-LOC/val").mkdir(parents=True)
    (folder / "ILSVRC/ImageSets/CLS-LOC").mkdir(parents=True)
    write_solution(folder / "LOC_val_solution.csv", solution(images))
    return folder


def flat(root: Path) -> None:
    """Put a split's images into one folder, as the official archive has them."""
    for file in list((root / "val").rglob("*.JPEG")):
        file.rename(root / "val" / file.name)
    for wnid in WNIDS:
        (root / "val" / wnid).rmdir()


def official(folder: Path, unpacked: bool) -> Path:
    """The validation archive unpacked into `val/`, with the development kit beside it."""
    images = pictures()
    root = as_folders(folder, images)
    flat(root)
    tars = as_tars(folder.parent / "tars", images)
    shutil.copy(tars / DEVKIT, root / DEVKIT)
    if unpacked:
        shutil.unpack_archive(root / DEVKIT, root / "unpacked", filter="data")
        (root / "unpacked" / "d").rename(root / DEVKIT.removesuffix(".tar.gz"))
        (root / DEVKIT).unlink()
    return root


@pytest.mark.parametrize("layout", ["kaggle", "CLS-LOC", "devkit", "unpacked"])
def test_ilsvrc_2012_as_it_is_downloaded_is_the_same_dataset(layout: str, tmp_path: Path) -> None:
    expected = ingested(Storage(str(tmp_path / "1")), as_tars(tmp_path / "official", pictures()))
    if layout in ("kaggle", "CLS-LOC"):
        source = kaggle(tmp_path / "source") / ("" if layout == "kaggle" else "ILSVRC/Data/CLS-LOC")
    else:
        source = official(tmp_path / "source", unpacked=layout == "unpacked")
    listing = list_source(source)
    assert (listing.layout, listing.classes, listing.notes) == ("folders", 3, ())
    assert ingested(Storage(str(tmp_path / "2")), source)["id"] == expected["id"]


def test_a_flat_folder_is_labelled_by_names_not_by_order(tmp_path: Path) -> None:
    source = kaggle(tmp_path / "source")
    expected = {f"test/{name}": label for name, label, _ in pictures()["test"]}
    found = files_of(list_source(source))
    assert {name: label for name, label in found.items() if name.startswith("test/")} == expected


def test_a_flat_folder_without_a_list_says_what_was_looked_for(tmp_path: Path) -> None:
    source = official(tmp_path / "source", unpacked=False)
    (source / DEVKIT).unlink()
    with pytest.raises(InputError, match=rf"LOC_val_solution\.csv or .*{DEVKIT}.* beside val/"):
        list_source(source)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda rows: rows[:-1], "has no label of it"),
        (lambda rows: [*rows, ["ILSVRC2012_val_00000099", f"{WNIDS[0]} 1 2 3 4"]],
         "holds 6 images, .* labels of 7; ILSVRC2012_val_00000099 are missing"),
        (lambda rows: [*rows[:-1], [rows[-1][0], "n99 1 2 3 4"]], "says n99, which is no class"),
        (lambda rows: [*rows[:-1], [rows[-1][0], ""]], "line 7 has not one class of one image"),
        (lambda rows: [*rows, rows[-1]], "line 8 has not one class of one image"),
        (lambda rows: [*rows[:-1], [rows[-1][0], f"{WNIDS[0]} 1 2 3 4 {WNIDS[1]} 1 2 3 4"]],
         "line 7 has not one class"),
        (lambda rows: [["id", "label"], *rows[1:]], "its columns are id, label"),
        (lambda rows: [["ImageId", "PredictionString"], ["a"]], "not Kaggle's list"),
        (lambda rows: [], "its columns are none"),
    ],
)  # fmt: skip
def test_a_list_that_does_not_fit_is_one_line(
    change: Callable[[list[list[str]]], list[list[str]]], says: str, tmp_path: Path
) -> None:
    source = kaggle(tmp_path / "source")
    write_solution(source / "LOC_val_solution.csv", change(solution(pictures())))
    with pytest.raises(InputError, match=says) as error:
        list_source(source)
    assert "\n" not in str(error.value)


# Several layouts beside each other: one is read, and a note names the others.


def test_archives_beside_what_was_unpacked_of_them_are_read_once(tmp_path: Path) -> None:
    source = as_tars(as_folders(tmp_path / "source", pictures()), pictures())
    listing = list_source(source)
    assert listing.layout == "tar"
    assert listing.notes == ("read: the official archives; beside it and not read: train/, val/",)
    (source / "ILSVRC2012_img_train.tar").unlink()
    listing = list_source(source)
    assert listing.layout == "folders" and "ILSVRC2012_img_val.tar" in listing.notes[0]


def test_parquet_beside_folders_is_read_once(tmp_path: Path) -> None:
    source = as_parquet(as_folders(tmp_path / "source", pictures()) / "data", pictures()).parent
    listing = list_source(source)
    assert listing.layout == "parquet"
    assert listing.notes == ("read: parquet; beside it and not read: train/, val/",)
    for file in (source / "data").iterdir():
        file.rename(source / f"meta-{file.name}")
    assert list_source(source).layout == "folders"
    (source / "meta-train-0.parquet").rename(source / "train.parquet")
    assert list_source(source).layout == "folders"


def test_tables_that_describe_the_images_of_class_folders_are_no_images(folders: Path) -> None:
    for split in ("train", "val"):
        table = pa.table({"file_name": ["a.jpeg"], "caption": ["a bird"]})
        pq.write_table(table, folders / split / "metadata.parquet")
    assert list_source(folders).layout == "folders"


def test_a_folder_that_cannot_be_read_is_one_line(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(path: Path, suffix: object) -> None:
        raise PermissionError(13, "Permission denied", str(path / "closed"))

    monkeypatch.setattr(photo_sources, "parquet_files", closed)
    with pytest.raises(InputError, match=r"closed: cannot be read \(Permission denied\)$"):
        list_source(folders)


def test_two_folders_of_a_split_are_not_both_read(folders: Path) -> None:
    shutil.copytree(folders / "val", folders / "validation")
    assert list_source(folders).notes == (
        "read: a folder per class; beside it and not read: validation/",
    )
