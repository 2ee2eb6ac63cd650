"""Parquet of anyone's: images and labels, or one line, before memory is taken."""

import os
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data import parquet_images
from pipeline.data.parquet import parquet_folder
from pipeline.data.parquet_images import ImagesFile
from pipeline.data.photo_sources import list_source
from pipeline.errors import InputError
from tests.conftest import examples
from tests.pipeline.data.test_cifar10_binary import PIXELS
from tests.pipeline.data.test_parquet import png, records


def rows(table: pa.Table, **how: Any) -> bytes:
    sink = BytesIO()
    pq.write_table(table, sink, **how)
    return sink.getvalue()


@cache
def good(column: str = "image") -> bytes:
    return rows(pa.Table.from_pylist(records(0, 6, column)), row_group_size=2)


def read_all(folder: Path, content: bytes) -> list[str]:
    """What both readers say of a folder with this file for each split; empty if they read it."""
    for split in ("train", "test", "val"):
        (folder / f"{split}-0.parquet").write_bytes(content)
    said = []
    for read in (
        lambda: parquet_folder(folder, "mine"),
        lambda: [found for part in list_source(folder).parts for found in part.read()],
    ):
        try:
            read()
        except InputError as error:
            said.append(str(error))
            assert "\n" not in str(error)
    return said


def test_what_is_good_is_read(tmp_path: Path) -> None:
    assert read_all(tmp_path, good()) == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for many examples, each of which writes over the one before."""
    return tmp_path_factory.mktemp("parquet")


@given(st.data())
@settings(max_examples=examples(100))
def test_damaged_bytes_are_images_or_refused(folder: Path, data: st.DataObject) -> None:
    content = bytearray(good())
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    read_all(folder, bytes(content[: data.draw(st.integers(0, len(content)))]))
    read_all(folder, bytes(content))


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(folder: Path, content: bytes) -> None:
    assert len(read_all(folder, b"PAR1" + content + b"PAR1")) == len(read_all(folder, content)) == 2


TYPES = st.sampled_from([
    pa.int8(), pa.uint64(), pa.float32(), pa.bool_(), pa.string(), pa.binary(), pa.large_binary(),
    pa.binary(3), pa.date32(), pa.timestamp("ns"), pa.duration("us"), pa.decimal128(5, 2),
    pa.null(), pa.list_(pa.int32()), pa.dictionary(pa.int32(), pa.string()),
])  # fmt: skip
FIELDS = st.dictionaries(st.sampled_from(["bytes", "path", "x"]), TYPES, min_size=1)


@given(st.data())
@settings(max_examples=examples(100))
def test_any_columns_are_images_or_refused(folder: Path, data: st.DataObject) -> None:
    structs = FIELDS.map(lambda fields: pa.struct(list(fields.items())))
    names = data.draw(st.lists(st.sampled_from(["img", "image", "label", "x"]), max_size=4))
    schema = pa.schema([(name, data.draw(TYPES | structs)) for name in names])
    count = data.draw(st.integers(0, 3))
    arrays = [pa.nulls(count, field.type) for field in schema]
    said = read_all(folder, rows(pa.Table.from_arrays(arrays, schema=schema)))
    assert said or count == 0


def test_a_label_that_is_no_number_and_a_file_without_rows_are_named(tmp_path: Path) -> None:
    image = {"bytes": png(PIXELS[0])}
    dates = pa.array([10**18], pa.timestamp("ms"))
    table = pa.table({"image": [image], "label": dates})
    assert all("an integer label" in line for line in read_all(tmp_path, rows(table)))
    empty = pa.Table.from_pylist(records(0, 1, "image")).slice(0, 0)
    assert "its train*.parquet have no images" in read_all(tmp_path, rows(empty))[0]


def test_a_small_file_that_holds_gigabytes_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = {"bytes": png(PIXELS[0])}
    many = pa.table({"image": pa.array([image] * 50_000), "label": pa.array([0] * 50_000)})
    zeros = pa.table({"image": [{"bytes": bytes(80 << 20)}], "label": [0]})
    monkeypatch.setattr(
        pq.ParquetFile, "iter_batches", lambda *_, **__: pytest.fail("was decompressed")
    )
    for table, what in ((many, "50,000 rows"), (zeros, "bytes")):
        content = rows(table, compression="zstd", use_dictionary=True)
        assert len(content) < 100_000
        said = read_all(tmp_path, content)
        assert len(said) == 2 and all(what in line and "of its size" in line for line in said)


def test_large_images_are_read_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty rows of one megabyte that the file holds once are never in memory together."""
    large = {"bytes": os.urandom(1 << 20)}
    table = pa.table({"image": pa.array([large] * 40), "label": pa.array(range(40))})
    (tmp_path / "x.parquet").write_bytes(rows(table))
    monkeypatch.setattr(parquet_images, "BATCH_BYTES", 4 << 20)
    before = pa.total_allocated_bytes()
    most = 0
    file = ImagesFile(tmp_path / "x.parquet", ("image",))
    for number, (content, label) in enumerate(file.images()):
        assert (content, label) == (large["bytes"], number)
        most = max(most, pa.total_allocated_bytes() - before)
    assert number == 39 and most < 16 << 20


def test_pipes_and_links_to_nowhere_are_refused(tmp_path: Path) -> None:
    """Opening a pipe would wait for ever."""
    os.mkfifo(tmp_path / "train-0.parquet")
    (tmp_path / "test-0.parquet").symlink_to(tmp_path / "gone")
    (tmp_path / "val-0.parquet").write_bytes(good())
    with pytest.raises(InputError, match=r"train-0\.parquet: is a pipe"):
        parquet_folder(tmp_path, "mine")
    with pytest.raises(InputError, match=r"train-0\.parquet: is a pipe"):
        list_source(tmp_path)
    (tmp_path / "train-0.parquet").unlink()
    (tmp_path / "train-0.parquet").write_bytes(good())
    with pytest.raises(InputError, match=r"test-0\.parquet: not a readable parquet file"):
        parquet_folder(tmp_path, "mine")
