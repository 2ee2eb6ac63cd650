"""Photographs in storage: one dataset whatever the layout, any image by its id, and every way to be
wrong in one line.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data import photo_sources
from pipeline.data.photo_decoding import centre, decode
from pipeline.data.photo_ingest import Reading, read_record, record_path
from pipeline.data.photo_parts import tar_members
from pipeline.data.photo_shards import check_files, open_photos, pixel_digest, verify_photos
from pipeline.data.photo_sources import list_source
from pipeline.data.progress import silent
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
    tar_bytes,
)

LAYOUTS = {"parquet": as_parquet, "folders": as_folders, "tar": as_tars}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "storage"))


def test_every_layout_gives_the_same_dataset(tmp_path: Path) -> None:
    images, found = pictures(), {}
    for name, write in LAYOUTS.items():
        storage = Storage(str(tmp_path / "storage" / name))
        manifest = ingested(storage, write(tmp_path / name, images))
        photos = open_photos(storage, manifest["id"], None)
        found[name] = (
            manifest["id"],
            photos.mean_sums.tobytes(),
            [photos.train.encoded(i) for i in range(12)],
        )
        assert (len(photos.train), len(photos.test)) == (12, 6)
        assert not manifest["row"]["comparable"]
        verify_photos(storage, manifest, silent)
    assert found["parquet"] == found["folders"] == found["tar"]


def test_an_image_is_found_by_its_id_with_its_label(tmp_path: Path, storage: Storage) -> None:
    images = pictures()
    photos = open_photos(storage, ingested(storage, as_tars(tmp_path / "t", images))["id"], None)
    for split, name in ((photos.train, "train"), (photos.test, "test")):
        known = {content: label for _, label, content in images[name]}
        stored = [split.encoded(i) for i in range(len(split))]
        assert {
            content: int(label) for content, label in zip(stored, split.labels, strict=True)
        } == known
        digests = [pixel_digest(np.asarray(decode(content))) for content in stored]
        assert digests == sorted(digests)


def test_the_mean_image_is_that_of_the_training_images_centres(
    tmp_path: Path, storage: Storage
) -> None:
    images = pictures()
    photos = open_photos(storage, ingested(storage, as_parquet(tmp_path / "p", images))["id"], None)
    views = [
        centre(image.size, 256, 224).of(image)
        for _, _, content in images["train"]
        for image in [decode(content)]
    ]
    assert np.allclose(photos.mean(224), np.mean(views, axis=0), atol=1e-4)
    assert photos.mean(96).shape == (96, 96, 3)
    assert np.allclose(photos.mean(96), np.mean(views, axis=(0, 1, 2)), atol=1e-3)


def test_grey_and_cmyk_become_rgb() -> None:
    grey = np.asarray(decode(photograph(1, (40, 30), "L")))
    assert grey.shape == (30, 40, 3) and (grey == grey[..., :1]).all()
    assert np.asarray(decode(photograph(1, (40, 30), "CMYK"))).shape == (30, 40, 3)


def test_what_was_interrupted_goes_on_with_the_parts_that_have_no_record(
    tmp_path: Path, storage: Storage
) -> None:
    source = as_parquet(tmp_path / "p", pictures())
    first = ingested(storage, source)
    listing = list_source(source)
    key = Reading().key(listing, str(source))
    storage.write(record_path(key, 0), b"half a rec")
    assert [read_record(storage, key, n, Reading()) is None for n in range(len(listing.parts))] == [
        True,
        False,
    ]
    assert ingested(storage, source) == first


def test_scaling_down_makes_another_dataset_and_never_enlarges(
    tmp_path: Path, storage: Storage
) -> None:
    source = as_parquet(tmp_path / "p", pictures())
    whole, smaller = (
        ingested(storage, source),
        ingested(storage, source, Reading(longest_short_side=224)),
    )
    assert whole["id"] != smaller["id"] and smaller["longest_short_side"] == 224
    photos = open_photos(storage, smaller["id"], None)
    sides = sorted({min(decode(photos.train.encoded(i)).size) for i in range(12)})
    assert sides == [64, 70, 75, 224]  # 260 became 224, the others stayed
    assert not smaller["row"]["comparable"]


def test_a_damaged_shard_is_named(tmp_path: Path, storage: Storage) -> None:
    manifest = ingested(storage, as_parquet(tmp_path / "p", pictures()))
    shard = Path(storage.path(manifest["shards"][0]["path"]))
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    with pytest.raises(InputError, match=rf"{shard.name}: damaged or missing"):
        verify_photos(storage, manifest, silent)


def test_the_labels_of_a_png_named_jpeg_and_a_note(tmp_path: Path, storage: Storage) -> None:
    images = pictures()
    name, label, _ = images["train"][0]
    images["train"][0] = (name, label, photograph(3, (80, 60), form="PNG"))
    manifest = ingested(storage, as_tars(tmp_path / "t", images))
    assert [note.rpartition(": ")[2] for note in manifest["notes"]] == [f"{name} is a PNG"]


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (cut(photograph(1, (90, 70))), "not an image that can be decoded"),
        (b"", r"not an image that can be decoded \(empty\)"),
        (b"GIF89a" + bytes(40), r"neither a JPEG nor a PNG"),
        (photograph(1, (1, 1)), r"1x1 pixels"),
    ],
    ids=["broken", "empty", "foreign", "one-pixel"],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_bad_image_is_named_and_can_be_left_out(
    tmp_path: Path, storage: Storage, layout: str, content: bytes, says: str
) -> None:
    images = pictures()
    name, label, _ = images["train"][5]
    images["train"][5] = (name, label, content)
    source = LAYOUTS[layout](tmp_path / "source", images)
    with pytest.raises(InputError, match=says) as raised:
        ingested(storage, source)
    assert "\n" not in str(raised.value) and not storage.names("datasets")
    where = name if layout != "parquet" else "row 6"  # rows are written in reverse
    assert f"{where}: not" in str(raised.value)
    manifest = ingested(storage, source, Reading(excluded=(where,)))
    assert manifest["train_images"] == 11 and len(manifest["left_out"]) == 1
    assert ingested(storage, source, Reading(excluded=(where,))) == manifest
    with pytest.raises(InputError, match=r"--exclude nothing\.JPEG: no image"):
        ingested(storage, source, Reading(excluded=(where, "nothing.JPEG")))


def without(files: dict[str, bytes], name: str) -> dict[str, bytes]:
    return {other: content for other, content in files.items() if other != name}


def test_what_is_wrong_with_a_tar_is_said(tmp_path: Path) -> None:
    path = as_tars(tmp_path / "t", pictures())
    train, val, devkit = (
        path / n
        for n in (photo_sources.TRAIN_TAR, photo_sources.VALIDATION_TAR, photo_sources.DEVKIT)
    )
    whole = {file: file.read_bytes() for file in (train, val, devkit)}
    classes = {f"{wnid}.tar": tar_bytes({"a.JPEG": photograph(1, (50, 50))}) for wnid in WNIDS}
    named = list(pictures()["test"])
    for file, content, says in (
        (
            train,
            tar_bytes(without(classes, f"{WNIDS[1]}.tar")),
            f"{train}: class {WNIDS[1]} is missing",
        ),
        (train, whole[train][:3000], f"{train}: not a whole tar file|cut off"),
        (
            train,
            tar_bytes({"../../etc/passwd": b"x", **classes}),
            "has a file named '../../etc/passwd', which leads out",
        ),
        (
            val,
            tar_bytes({name: content for name, _, content in named[1:]}),
            "holds 5 images, .* has labels of 6",
        ),
        (val, whole[val][:-11_000], "not a whole tar file|cut off within"),
        (devkit, tar_bytes({"d/readme": b"x"}, "w:gz"), "not ILSVRC-2012's development kit"),
        (devkit, whole[devkit][:200], "not ILSVRC-2012's development kit"),
    ):
        file.write_bytes(content)
        with pytest.raises(InputError, match=says) as raised:
            list_source(path)
        assert "\n" not in str(raised.value)
        file.write_bytes(whole[file])
    val.unlink()
    with pytest.raises(InputError, match=f"holds no {photo_sources.VALIDATION_TAR}"):
        list_source(path)


def test_an_inner_tar_that_is_cut_or_leads_out_is_refused(tmp_path: Path, storage: Storage) -> None:
    path = as_tars(tmp_path / "t", pictures())
    for inner, says in (
        (tar_bytes({"a.JPEG": photograph(1, (50, 50))})[:700], "not a whole tar file|cut off"),
        (tar_bytes({"/tmp/a.JPEG": photograph(1, (50, 50))}), "leads out of it"),
    ):
        classes = {f"{wnid}.tar": inner for wnid in WNIDS}
        (path / photo_sources.TRAIN_TAR).write_bytes(tar_bytes(classes))
        with pytest.raises(InputError, match=says):
            ingested(storage, path)


def test_labels_out_of_range_and_missing_columns_are_named(
    tmp_path: Path, storage: Storage
) -> None:
    images = pictures()
    name, _, content = images["train"][0]
    images["train"][0] = (name, 1000, content)
    with pytest.raises(InputError, match=r"row 11: label 1000, labels go from 0 to 999"):
        ingested(storage, as_parquet(tmp_path / "p", images))
    table = pq.read_table(tmp_path / "p" / "train-0.parquet").drop_columns("label")
    pq.write_table(table, tmp_path / "p" / "train-0.parquet")
    with pytest.raises(InputError, match="columns are image; expected image, and label"):
        list_source(tmp_path / "p")


def test_folders_say_which_class_is_missing(tmp_path: Path) -> None:
    path = as_folders(tmp_path / "f", pictures())
    for file in (path / "train" / WNIDS[2]).iterdir():
        file.unlink()
    with pytest.raises(InputError, match=f"{WNIDS[2]}: holds no images, so a class is missing"):
        list_source(path)
    (path / "train" / WNIDS[2]).rmdir()
    with pytest.raises(InputError, match=f"is no class, as .* has no {WNIDS[2]}"):
        list_source(path)
    with pytest.raises(InputError, match="holds neither"):
        list_source(tmp_path)


def test_leaving_out_more_or_less_never_touches_a_dataset_that_is_there(
    tmp_path: Path, storage: Storage
) -> None:
    source, known = as_tars(tmp_path / "t", pictures()), {}
    for excluded in ((), ("n01440764_0.JPEG",), ("n01443537_1.JPEG",), ()):
        manifest = ingested(storage, source, Reading(excluded=excluded))
        assert (manifest["train_images"], len(manifest["left_out"])) == (
            12 - len(excluded),
            len(excluded),
        )
        known[manifest["id"]] = manifest
    assert len(known) == 3
    for manifest in known.values():
        verify_photos(storage, manifest, silent)


def test_a_shard_that_is_gone_or_damaged_is_made_again(tmp_path: Path, storage: Storage) -> None:
    source = as_parquet(tmp_path / "p", pictures())
    manifest = ingested(storage, source)
    shard = Path(storage.path(manifest["shards"][0]["path"]))
    content = shard.read_bytes()
    shard.unlink()
    with pytest.raises(InputError, match="damaged or missing"):
        check_files(storage, manifest, silent)
    assert ingested(storage, source) == manifest and shard.read_bytes() == content
    check_files(storage, manifest, silent)


def test_the_same_photographs_in_another_layout_leave_one_set_of_shards(
    tmp_path: Path, storage: Storage
) -> None:
    first = ingested(storage, as_parquet(tmp_path / "p", pictures()))
    second = ingested(storage, as_folders(tmp_path / "f", pictures()))
    assert second["id"] == first["id"] and [source["kind"] for source in second["sources"]] == [
        "parquet",
        "folders",
    ]
    shards = {name for name in storage.names("photographs") if name.endswith(".arrow")}
    assert shards == {Path(shard["path"]).name for shard in second["shards"]}
    verify_photos(storage, second, silent)


def test_a_tar_that_is_cut_where_a_file_ends_is_not_taken_for_whole(tmp_path: Path) -> None:
    path = as_tars(tmp_path / "t", pictures())
    val = path / photo_sources.VALIDATION_TAR
    whole, members = val.read_bytes(), tar_members(val)
    border = members[3].offset - 512
    for content in (
        whole[:border],
        whole[: border + 200],
        whole[:border] + b"x" * 512 + whole[border + 512 :],
    ):
        val.write_bytes(content)
        with pytest.raises(InputError, match=rf"cut off or damaged after {members[2].name}"):
            list_source(path)


def test_layouts_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    folders = as_folders(tmp_path / "f", pictures())
    for file in (folders / "val").rglob("*.JPEG"):
        file.rename(folders / "val" / file.name)
    for folder in (folders / "val").iterdir():
        if folder.is_dir():
            folder.rmdir()
    with pytest.raises(InputError, match=rf"has no folder {WNIDS[0]}; expected one per class"):
        list_source(folders)
    parquet = as_parquet(tmp_path / "p", pictures())
    (parquet / "train-0.parquet").rename(parquet / "train-00000-of-00002.parquet")
    with pytest.raises(InputError, match="holds 1 of 2 files named like train-00000-of-00002"):
        list_source(parquet)
    plain = pa.table({"image": [b"x"], "label": [0]})
    pq.write_table(plain, parquet / "train-00000-of-00002.parquet")
    pq.write_table(plain, parquet / "train-00001-of-00002.parquet")
    with pytest.raises(
        InputError,
        match="expected an image with `bytes` and an integer label, not binary, int64",
    ):
        list_source(parquet)
