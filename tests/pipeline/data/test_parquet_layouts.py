"""Parquet as it is downloaded: Hugging Face's folders, columns and labels; nothing is twice."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.requests.options import manifest_named
from pipeline.data.parquet import parquet_folder
from pipeline.data.photo_sources import list_source
from pipeline.data.preparation import prepare, source_notes
from pipeline.data.progress import silent
from pipeline.data.sources.parquet_layout import parquet_files
from pipeline.errors import InputError
from pipeline.storage import Storage
from tests.pipeline.data.photographs import as_parquet, ingested, pictures
from tests.pipeline.data.test_cifar10_binary import EXPECTED, LABELS, PIXELS
from tests.pipeline.data.test_parquet import png, records, write

SPLITS = {"train": ("train",), "test": ("validation", "val")}
ANIMALS = ("frog", "cat", "dog")
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def small(folder: Path) -> Path:
    """CIFAR-10's eighteen images of the tests, as Hugging Face has the dataset."""
    write(folder, "train-00000-of-00001.parquet", records(0, 15))
    write(folder, "test-00000-of-00001.parquet", records(15, 18))
    return folder


def snapshot(folder: Path, source: Path) -> Path:
    """A source's files as `huggingface_hub` keeps them: blobs, and two versions' links to them."""
    repository = folder / "datasets--uoft-cs--cifar10"
    for commit in ("0b2714987fa478483af9968de7c934580d0bb9a2", "f" * 40):
        for number, file in enumerate(sorted(source.glob("*.parquet"))):
            blob = repository / "blobs" / f"{number:064x}"
            blob.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(file.read_bytes())
            link = repository / "snapshots" / commit / "data" / file.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(f"../../../blobs/{blob.name}")
        (repository / "snapshots" / commit / "README.md").write_text("card")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("f" * 40)
    return repository


def test_a_snapshots_links_into_blobs_are_read_once(tmp_path: Path) -> None:
    repository = snapshot(tmp_path / "hub", small(tmp_path / "plain"))
    dataset = parquet_folder(repository, "mine")
    assert dataset.id == EXPECTED.id
    assert len(dataset.notes) == 1 and "of 4 parquet files 2 are read" in dataset.notes[0]
    assert "2 read under another name (snapshots/ffff" in dataset.notes[0]
    (one,) = (repository / "snapshots").glob("ffff*")
    assert parquet_folder(one, "mine").id == EXPECTED.id
    photos = snapshot(tmp_path / "hub2", as_parquet(tmp_path / "photos", pictures()))
    found = ingested(Storage(str(tmp_path / "1")), photos)
    assert found["id"] == ingested(Storage(str(tmp_path / "2")), tmp_path / "photos")["id"]


def test_a_download_into_a_folder_with_its_cache_is_read_once(tmp_path: Path) -> None:
    """`hf download --local-dir` leaves `.cache/huggingface` beside the files."""
    small(tmp_path / "data")
    small(tmp_path / ".cache")
    write(tmp_path / "data", "val-00000-of-00001.parquet", records(0, 3))
    dataset = parquet_folder(tmp_path, "mine")
    assert dataset.id == EXPECTED.id
    assert dataset.notes == (
        "of 5 parquet files 2 are read; left out: 2 of an operating system or a tool (.cache/); "
        "1 of no split that is read (data/val-00000-of-00001.parquet)",
    )


def test_splits_may_be_folders(tmp_path: Path) -> None:
    """Hugging Face's own conversion (`refs/convert/parquet`) has them so."""
    (tmp_path / "plain_text").mkdir()
    write(tmp_path / "plain_text" / "train", "0000.parquet", records(0, 15))
    write(tmp_path / "plain_text" / "test", "0000.parquet", records(15, 18))
    assert parquet_folder(tmp_path, "mine").id == EXPECTED.id


def test_a_copy_in_the_same_folder_is_read_once(tmp_path: Path) -> None:
    folder = small(tmp_path)
    for name in ("train-00000-of-00001 (1).parquet", "train-00000-of-00001-copy.parquet"):
        (folder / name).write_bytes((folder / "train-00000-of-00001.parquet").read_bytes())
    dataset = parquet_folder(folder, "mine")
    assert len(dataset.train) == 15 and dataset.id == EXPECTED.id
    assert "2 with the same content as another" in dataset.notes[0]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["a/train.parquet", "b/train.parquet"], "train lie in 2 folders: .*a .1., .*b .1."),
        (["train-00000-of-00001.parquet", "train.parquet"], "same split train.parquet; leave one"),
        (["train-00000-of-00002.parquet"], "holds 1 of 2 files named like train-00000-of-00002"),
        (["train-0-of-1.parquet", "train-0-of-2.parquet", "train-1-of-2.parquet"],
         "holds 2 of 2 .*same split train-0-of-1.parquet"),
    ],
)  # fmt: skip
def test_what_may_be_there_twice_or_in_part_is_refused(
    names: list[str], says: str, tmp_path: Path
) -> None:
    write(tmp_path / "data", "test.parquet", records(15, 18))
    for number, name in enumerate(names):
        file = tmp_path / "data" / name
        write(file.parent, file.name, records(number, number + 3))
    with pytest.raises(InputError, match=says) as error:
        parquet_folder(tmp_path, "mine")
    assert "\n" not in str(error.value)


def columns_as(images: str, labels: str, first: int, last: int) -> pa.Table:
    """The tests' images in columns of other types."""
    content = [png(PIXELS[i]) for i in range(first, last)]
    numbers = [int(LABELS[i]) for i in range(first, last)]
    texts = pa.array([ANIMALS[i % 3] for i in range(first, last)])
    arrays = {
        "struct": lambda: pa.array([{"bytes": c, "path": "x.png"} for c in content]),
        "binary": lambda: pa.array(content, pa.binary()),
        "large": lambda: pa.array(content, pa.large_binary()),
        "int8": lambda: pa.array(numbers, pa.int8()),
        "int64": lambda: pa.array(numbers, pa.int64()),
        "text": lambda: texts,
        "dictionary": lambda: texts.dictionary_encode(),
    }
    return pa.table({"image": arrays[images](), "label": arrays[labels]()})


@pytest.mark.parametrize("images", ["struct", "binary", "large"])
@pytest.mark.parametrize("labels", ["int8", "int64", "text", "dictionary"])
def test_columns_of_any_usual_type_are_the_same_dataset(
    images: str, labels: str, tmp_path: Path
) -> None:
    pq.write_table(columns_as(images, labels, 0, 15), tmp_path / "train.parquet")
    pq.write_table(columns_as(images, labels, 15, 18), tmp_path / "test.parquet")
    dataset = parquet_folder(tmp_path, "mine")
    if labels in ("text", "dictionary"):
        # Texts are numbered in their order: cat, dog, frog.
        by_content = {image.tobytes(): (2, 0, 1)[i % 3] for i, image in enumerate(PIXELS)}
        found = zip(dataset.train.pixels, dataset.train.labels, strict=True)
        assert all(by_content[image.tobytes()] == label for image, label in found)
        assert dataset.spec.classes == 3
    else:
        assert (dataset.id, dataset.spec.classes) == (EXPECTED.id, 10)


@pytest.mark.parametrize("column", ["image", "img"])
@pytest.mark.parametrize("kind", ["text", "number"])
def test_photographs_too(column: str, kind: str, tmp_path: Path) -> None:
    expected = ingested(Storage(str(tmp_path / "1")), as_parquet(tmp_path / "p", pictures()))
    (tmp_path / "q").mkdir()
    for file in (tmp_path / "p").iterdir():
        rows = pq.read_table(file).to_pylist()
        plain: list[dict[str, Any]] = [
            {
                column: row["image"]["bytes"],
                "label": f"class {row['label']}" if kind == "text" else row["label"],
            }
            for row in rows
        ]
        pq.write_table(pa.Table.from_pylist(plain), tmp_path / "q" / file.name)
    listing = list_source(tmp_path / "q")
    assert listing.classes == (3 if kind == "text" else 1000)
    assert ingested(Storage(str(tmp_path / "2")), tmp_path / "q")["id"] == expected["id"]


def labelled(names: list[str], first: int, last: int) -> pa.Table:
    """With Hugging Face's `ClassLabel` in the file's metadata."""
    about = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    table = columns_as("struct", "int64", first, last)
    return table.replace_schema_metadata({"huggingface": json.dumps(about)})


def test_splits_whose_classes_differ_are_refused(tmp_path: Path) -> None:
    pq.write_table(labelled(NAMES, 0, 15), tmp_path / "train.parquet")
    pq.write_table(labelled(NAMES, 15, 18), tmp_path / "test.parquet")
    assert parquet_folder(tmp_path, "mine").id == EXPECTED.id
    pq.write_table(labelled(NAMES[::-1], 15, 18), tmp_path / "test.parquet")
    with pytest.raises(InputError, match=r"test\.parquet: has other columns, classes or kinds"):
        parquet_folder(tmp_path, "mine")
    pq.write_table(columns_as("struct", "text", 15, 18), tmp_path / "test.parquet")
    with pytest.raises(InputError, match=r"test\.parquet: has other columns, classes or kinds"):
        parquet_folder(tmp_path, "mine")
    pq.write_table(columns_as("struct", "text", 0, 15), tmp_path / "train.parquet")
    other = columns_as("struct", "text", 15, 18).to_pylist()
    other[1]["label"] = "zebra"
    pq.write_table(pa.Table.from_pylist(other), tmp_path / "test.parquet")
    with pytest.raises(InputError, match="test has the class 'zebra', which train has not"):
        parquet_folder(tmp_path, "mine")
    # A file that pandas wrote has no names, and is compared by its columns alone.
    pq.write_table(labelled(NAMES, 0, 15), tmp_path / "train.parquet")
    pq.write_table(columns_as("struct", "int64", 15, 18), tmp_path / "test.parquet")
    assert parquet_folder(tmp_path, "mine").id == EXPECTED.id


@pytest.mark.parametrize("about", [b"", b"{", b"[]", b'{"info": 1}', b"\xff", b"[" * 9_000])
def test_damaged_metadata_names_no_classes(about: bytes, tmp_path: Path) -> None:
    for name, part in (("train", (0, 15)), ("test", (15, 18))):
        table = columns_as("struct", "int64", *part)
        pq.write_table(
            table.replace_schema_metadata({"huggingface": about}), tmp_path / f"{name}.parquet"
        )
    assert parquet_folder(tmp_path, "mine").id == EXPECTED.id


def test_cifar_100_has_its_fine_labels(tmp_path: Path) -> None:
    fine = np.arange(18) * 5
    for name, first, last in (("train", 0, 15), ("test", 15, 18)):
        rows = [
            {"img": {"bytes": png(PIXELS[i])}, "fine_label": int(fine[i]), "coarse_label": 3}
            for i in range(first, last)
        ]
        write(tmp_path / "cifar100", f"{name}-00000-of-00001.parquet", rows)
    dataset = parquet_folder(tmp_path, "mine")
    assert dataset.spec.classes == 100 and sorted(dataset.train.labels.tolist()) == sorted(
        fine[:15]
    )


def test_what_was_left_out_stays_with_the_dataset(tmp_path: Path) -> None:
    storage, source = Storage(str(tmp_path / "s")), small(tmp_path / "data")
    write(source, "extra.parquet", records(0, 1))
    first = prepare(storage, "mine", source, False, silent)
    assert source_notes(first, source) == [
        "of 3 parquet files 2 are read; left out: 1 of no split that is read (extra.parquet)"
    ]
    assert prepare(storage, "mine", source, False, silent) == first


def test_what_was_read_by_other_rules_is_read_again(tmp_path: Path) -> None:
    storage, source = Storage(str(tmp_path / "s")), small(tmp_path / "data")
    path = f"datasets/{EXPECTED.id}/manifest.json"
    prepare(storage, "mine", source, False, silent)
    manifest = json.loads(storage.read(path))
    (of_today,) = manifest["sources"]
    earlier = {key: value for key, value in of_today.items() if key != "rules"}
    storage.write(path, json.dumps(manifest | {"sources": [earlier]}).encode())
    again = prepare(storage, "mine", source, False, silent)
    assert again["id"] == EXPECTED.id and again["sources"] == [earlier, of_today]


def test_a_path_that_is_trained_on_says_what_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage, source = Storage(str(tmp_path / "s")), small(tmp_path / "data")
    write(source, "extra.parquet", records(0, 1))
    for _ in range(2):
        assert manifest_named(storage, str(source))["id"] == EXPECTED.id
        assert "note: of 3 parquet files 2 are read" in capsys.readouterr().err
    assert manifest_named(storage, "data")["id"] == EXPECTED.id
    assert "note" not in capsys.readouterr().err


def test_photographs_splits_keep_their_order_and_test_images_without_labels_stay_out(
    tmp_path: Path,
) -> None:
    for number, name in enumerate(("train-1", "train-0", "validation-0", "test-0")):
        write(tmp_path, f"{name}.parquet", records(number, number + 1))
    files, notes = parquet_files(tmp_path, SPLITS)
    assert [file.name for file in files["train"]] == ["train-0.parquet", "train-1.parquet"]
    assert "test-0.parquet" in notes[0]
