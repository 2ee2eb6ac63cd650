"""Photographs and development kits of anyone's: one line, before memory is taken."""

import tracemalloc
import warnings
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from pipeline.data import photo_sources
from pipeline.data.parquet import parquet_folder
from pipeline.data.photo_decoding import MOST_PIXELS, UndecodableError, decode
from pipeline.errors import InputError
from tests.conftest import examples
from tests.pipeline.data.photographs import photograph, tar_bytes


@cache
def enormous(width: int, height: int, form: str = "PNG") -> bytes:
    """A photograph of few bytes and many pixels."""
    sink = BytesIO()
    Image.new("1" if form == "PNG" else "L", (width, height)).save(sink, form)
    return sink.getvalue()


def peak_megabytes(call) -> float:
    tracemalloc.start()
    try:
        call()
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak / 1e6


@pytest.mark.parametrize(("width", "height"), [(12_000, 12_000), (60_000, 2_000), (20_000, 20_000)])
@pytest.mark.parametrize("filters", ["default", "error", "ignore"])
def test_an_enormous_photograph_is_refused_by_its_header(
    width: int, height: int, filters: str
) -> None:
    content = enormous(width, height)
    with pytest.MonkeyPatch.context() as patched:
        # Decoding would take these bytes; the header is enough.
        patched.setattr(Image.Image, "load", lambda self: pytest.fail("was decoded"))
        with warnings.catch_warnings():
            if filters != "default":
                warnings.simplefilter(filters)  # type: ignore[arg-type]
            with pytest.raises(UndecodableError, match=f"{MOST_PIXELS:,}") as error:
                decode(content)
            with pytest.raises(UndecodableError):
                decode(content, (256, 256))
    assert "\n" not in str(error.value)


def test_a_large_photograph_within_the_limit_is_decoded() -> None:
    image = decode(enormous(9_400, 9_400, "JPEG"), (200, 200))
    assert image.mode == "RGB" and 9_400**2 < MOST_PIXELS < 9_500**2


@given(st.data())
@settings(max_examples=examples(60), deadline=None)
def test_damaged_photographs_are_decoded_or_refused(data: st.DataObject) -> None:
    content = bytearray(photograph(1, (40, 30), form=data.draw(st.sampled_from(["JPEG", "PNG"]))))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert decode(bytes(content)).mode == "RGB"
    except UndecodableError as error:
        assert "\n" not in str(error)


def small_images(folder: Path, content: object) -> Path:
    folder.mkdir()
    kind = pa.struct([("bytes", pa.binary())])
    for split in ("train", "test"):
        table = pa.table({"img": pa.array([content], kind), "label": [0]})
        pq.write_table(table, folder / f"{split}.parquet")
    return folder


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"bytes": enormous(12_000, 12_000)}, "of at most 89,478,485"),
        ({"bytes": enormous(5_000, 5_000)}, r"an image of shape \(5000, 5000, 1\)"),
        ({"bytes": b"\x89PNG\r\n\x1a\n" + b"x" * 30}, "not a PNG or JPEG image"),
        ({"bytes": None}, "empty"),
        (None, "empty"),
    ],
)
def test_small_images_are_looked_at_before_they_are_decoded(
    tmp_path: Path, content: object, says: str
) -> None:
    folder = small_images(tmp_path / "d", content)

    def read() -> None:
        with pytest.raises(InputError, match=f"train.parquet, row 0: .*{says}") as error:
            parquet_folder(folder, "mine")
        assert "\n" not in str(error.value)

    assert peak_megabytes(read) < 60


def devkit(tmp_path: Path, meta: bytes, truth: bytes = b"1\n") -> Path:
    files = {f"d/{photo_sources.META}": meta, f"d/{photo_sources.TRUTH}": truth}
    path = tmp_path / "devkit.tar.gz"
    path.write_bytes(tar_bytes(files, "w:gz"))
    return path


def matlab(**variables: object) -> bytes:
    sink = BytesIO()
    savemat(sink, variables)
    return sink.getvalue()


SYNSETS = np.array(
    [(1, "n1", "w", "g", 0)],
    dtype=[(name, "O") for name in ("ID", "WNID", "words", "gloss", "num_children")],
)


@pytest.mark.parametrize(
    "meta",
    [
        b"",
        b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + b" " * 86 + b"\x00\x02IM" + b"\x89HDF" * 100,
        matlab(others=[1]),
        matlab(synsets=3),
        matlab(synsets="text"),
        matlab(synsets={"ID": 1}),
        matlab(synsets=np.array([("a", "n1", "w", "g", "b")], dtype=SYNSETS.dtype)),
        matlab(synsets=np.array([(1, "n1", "w", "g", np.inf)], dtype=SYNSETS.dtype)),
        matlab(synsets=SYNSETS)[:-20],
        matlab(synsets=SYNSETS)[:150] + b"\xff" * 40,
    ],
)
def test_a_development_kit_of_another_version_is_one_line(tmp_path: Path, meta: bytes) -> None:
    with pytest.raises(InputError, match="not ILSVRC-2012's development kit") as error:
        photo_sources.read_devkit(devkit(tmp_path, meta))
    assert "\n" not in str(error.value)


def test_a_development_kit_of_a_single_class_is_read(tmp_path: Path) -> None:
    assert photo_sources.read_devkit(devkit(tmp_path, matlab(synsets=SYNSETS))) == ({1: "n1"}, [1])


def test_a_development_kit_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    path = devkit(tmp_path, b"\0" * (photo_sources.DEVKIT_FILE_BYTES + 1))
    with pytest.raises(InputError, match=r"meta\.mat has 67,108,865 bytes"):
        photo_sources.read_devkit(path)
