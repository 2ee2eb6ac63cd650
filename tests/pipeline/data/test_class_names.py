"""What files call their classes stays with the dataset, in every layout, and changes no id."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data.preparation import prepare
from pipeline.data.progress import silent
from pipeline.data.stored import class_names, read_manifest
from pipeline.storage import Storage
from tests.pipeline.data.photographs import (
    WNIDS,
    as_folders,
    as_parquet,
    as_tars,
    ingested,
    pictures,
)
from tests.pipeline.data.test_parquet_layouts import labelled


@pytest.mark.parametrize("write", [as_folders, as_tars])
def test_folders_and_archives_name_them(write: Callable[..., Path], tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "s"))
    plain = ingested(storage, as_parquet(tmp_path / "parquet", pictures()))
    assert class_names(plain) == () and "class_names" not in plain
    # The same photographs from a source that names them: the dataset learns it.
    named = ingested(storage, write(tmp_path / "named", pictures()))
    assert named["id"] == plain["id"] and named["class_names"] == list(WNIDS)
    assert read_manifest(storage, plain["id"]) == named
    again = ingested(storage, as_parquet(tmp_path / "parquet", pictures()))
    assert again["class_names"] == list(WNIDS)


def test_labels_of_parquet_name_them(tmp_path: Path) -> None:
    names = ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "lorry"]
    for split, first, last in (("train", 0, 12), ("test", 12, 18)):
        file = tmp_path / "p" / f"{split}.parquet"
        file.parent.mkdir(exist_ok=True)
        pq.write_table(labelled(names, first, last), file)
    manifest = prepare(Storage(str(tmp_path / "s")), "mine", tmp_path / "p", False, silent)
    assert class_names(manifest) == tuple(names)

    for split, first, last in (("train", 0, 12), ("test", 12, 18)):
        table: pa.Table = labelled(names, first, last).replace_schema_metadata(None)
        pq.write_table(table, tmp_path / "p" / f"{split}.parquet")
    unnamed = prepare(Storage(str(tmp_path / "other")), "mine", tmp_path / "p", False, silent)
    assert unnamed["id"] == manifest["id"] and class_names(unnamed) == ()
