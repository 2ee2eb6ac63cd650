"""Data as people have it, by the commands: what is left out is printed, what is not known is one
line.
"""

import json
from pathlib import Path

import pytest

from jobs.execution.ingest import came_of
from pipeline.data.photo_sources import list_source
from pipeline.storage import Storage
from tests.conftest import Cli
from tests.pipeline.data.photographs import WNIDS, as_folders, ingested, photograph, pictures
from tests.pipeline.data.test_class_folders import kaggle
from tests.pipeline.data.test_parquet import records, write


@pytest.mark.ray
def test_kaggles_folders_with_what_others_left_there(cli: Cli, tmp_path: Path) -> None:
    source, storage = kaggle(tmp_path / "source"), tmp_path / "results"
    root = source / "ILSVRC/Data/CLS-LOC"
    for split in ("train", "val"):
        (root / split / ".ipynb_checkpoints").mkdir()
        (root / split / ".ipynb_checkpoints" / "a.JPEG").write_bytes(photograph(1, (40, 30)))
    (root / "train" / WNIDS[0] / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (root / "train" / WNIDS[0] / "b").write_bytes(photograph(2, (40, 30), "RGBA", "WEBP"))
    done = cli("data", "prepare", "imagenet", "--from", source, "--storage", storage)
    assert done.returncode == 0, done.stderr
    assert "13 training photographs of 3 classes and 6 for testing of 3" in done.stdout
    note = (
        "note: of 22 files below train/ and val/ 19 are read; left out: 2 of an operating system "
        f"or a tool (train/.ipynb_checkpoints/, val/.ipynb_checkpoints/); 1 no images that can be "
        f"read (train/{WNIDS[0]}/Thumbs.db)"
    )
    assert note in done.stdout.splitlines()
    (manifest,) = storage.glob("datasets/*/manifest.json")
    (of_source,) = json.loads(manifest.read_text())["sources"]
    assert [f"note: {text}" for text in of_source["notes"]] == [note]


def test_what_an_earlier_version_made_of_a_source_is_not_taken_for_it(tmp_path: Path) -> None:
    """It read foreign folders as classes, and passed over images by their suffix."""
    source, storage = as_folders(tmp_path / "source", pictures()), Storage(str(tmp_path / "s"))
    manifest = ingested(storage, source)
    (of_then,) = manifest["sources"]
    assert came_of(storage, of_then, list_source(source)) == manifest
    (source / "train" / WNIDS[0] / "one more.webp").write_bytes(photograph(1, (40, 30)))
    assert came_of(storage, of_then, list_source(source)) is None
    (source / "train" / WNIDS[0] / "one more.webp").rename(source / "train" / "loose")
    listing = list_source(source)
    assert came_of(storage, of_then | {"notes": list(listing.notes)}, listing) is None
    Path(storage.path(manifest["shards"][0]["path"])).unlink()
    assert came_of(storage, of_then, listing) is None


def test_small_images_say_what_is_left_out_each_time(cli: Cli, tmp_path: Path) -> None:
    source = tmp_path / "source"
    write(source, "train.parquet", records(0, 15))
    write(source, "test.parquet", records(15, 18))
    write(source, "more.parquet", records(0, 1))
    note = (
        "note: of 3 parquet files 2 are read; left out: 1 of no split that is read (more.parquet)"
    )
    for _ in range(2):
        done = cli("data", "prepare", "mine", "--from", source, "--storage", tmp_path / "s")
        assert done.returncode == 0 and note in done.stdout.splitlines(), done.stderr
    dry = cli("train", "resnet20", "--data", source, "--dry-run", "--storage", tmp_path / "s")
    assert dry.returncode == 0, dry.stderr


@pytest.mark.parametrize("photographs", [True, False])
def test_a_kind_that_is_not_known_is_one_line_of_what_was_looked_for_and_found(
    cli: Cli, tmp_path: Path, photographs: bool
) -> None:
    (tmp_path / "source").mkdir()
    for name in ("images.npz", "images.h5", "meta.csv"):
        (tmp_path / "source" / name).write_bytes(b"x")
    line = ["data", "prepare", "mine", "--from", tmp_path / "source", "--storage", tmp_path / "s"]
    done = cli(*line, *["--photographs"] * photographs)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "it holds images.h5, images.npz, meta.csv" in done.stderr
    assert "train*.parquet" in done.stderr
