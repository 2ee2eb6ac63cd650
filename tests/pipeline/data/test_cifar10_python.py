"""The official python archive: the same images as the binary one, and a pickle that can do nothing
but rebuild arrays.
"""

import os
import pickle
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.catalogue.cifar10 import ARCHIVES
from pipeline.data.download import md5_of
from pipeline.data.parquet import parquet_folder
from pipeline.data.preparation import verify_against
from pipeline.data.stored import read_manifest, require_stored, write_dataset
from pipeline.errors import InputError
from pipeline.storage import Storage
from tests.conftest import Cli
from tests.pipeline.data.test_cifar10_binary import EXPECTED, LABELS, PIXELS, archive, members
from tests.pipeline.data.test_parquet import records, write


def batches() -> dict[str, dict]:
    """Three images a batch as the official files have them: rows of planes, a list of labels."""
    planes = PIXELS.transpose(0, 3, 1, 2).reshape(len(PIXELS), -1)
    return {
        name: {b"data": planes[3 * i : 3 * i + 3], b"labels": LABELS[3 * i : 3 * i + 3].tolist()}
        for i, name in enumerate((*ARCHIVES.train, ARCHIVES.test))
    }


def pickled(contents: dict[str, Any]) -> bytes:
    return archive({name: pickle.dumps(content, protocol=3) for name, content in contents.items()})


def test_it_is_the_same_dataset_as_the_binary_archive() -> None:
    assert ARCHIVES.python_members(pickled(batches()), "here").id == EXPECTED.id


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes bytes as Python 2 wrote strings, in which the official archive was made."""

    def save_string(self, content: bytes) -> None:
        self.write(b"T" + len(content).to_bytes(4, "little") + content)

    dispatch = pickle._Pickler.dispatch | {bytes: save_string}  # type: ignore[attr-defined]


def by_python2(content: dict) -> bytes:
    buffer = BytesIO()
    Python2Pickler(buffer, protocol=2).dump(content)
    return buffer.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def test_pickles_of_python_2_and_of_numpys_old_names_are_read() -> None:
    files = {name: by_python2(content) for name, content in batches().items()}
    assert b"_codecs" not in files[ARCHIVES.test] and b"numpy.core" in files[ARCHIVES.test]
    assert ARCHIVES.python_members(archive(files), "here").id == EXPECTED.id


class Evil:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, action: Callable[..., object], *arguments: object) -> None:
        self.action, self.arguments = action, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.action, self.arguments


def test_a_pickle_that_names_anything_else_is_refused_and_not_run(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    for action, argument, name in ((os.system, f"touch {touched}", "system"), (eval, "1", "eval")):
        with pytest.raises(
            InputError, match=f"data_batch_2 is not a batch of images .its pickle names .*{name}"
        ):
            ARCHIVES.python_members(
                pickled(batches() | {"data_batch_2": Evil(action, argument)}), "here"
            )
    assert not touched.exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "holds no data_batch_2"),
        ({b"data": PIXELS[:3].reshape(3, -1)}, "data_batch_2 is not a batch of images"),
        ([1, 2], "data_batch_2 is not a batch of images"),
        ({b"data": PIXELS[:3].reshape(3, -1), b"labels": [1, 2]}, "holds uint8 .3, 3072., not"),
        ({b"data": PIXELS[:3].reshape(3, -1).astype(float), b"labels": [1, 2, 3]}, "holds float64"),
        ({b"data": PIXELS[:3].reshape(3, -1), b"labels": [1, 2, 10]}, "has label 10"),
        (
            {b"data": PIXELS[:3].reshape(3, -1), b"labels": [1, 2, -1]},
            "labels that are no class numbers",
        ),
    ],
)
def test_a_damaged_batch_is_one_line(content: object, says: str) -> None:
    contents: dict[str, Any] = batches() | {"data_batch_2": content}
    if content is None:
        del contents["data_batch_2"]
    with pytest.raises(InputError, match=says) as error:
        ARCHIVES.python_members(pickled(contents), "here")
    assert "\n" not in str(error.value)


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small archive in the official binary layout, taken for the official one."""
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(archive(members()))
    monkeypatch.setitem(ARCHIVES.checksums, ARCHIVES.binary, md5_of(path))
    return path


def copy_in(storage: Storage, folder: Path, last: int) -> str:
    """Prepare a parquet copy with the test images up to `last`; its id."""
    write(folder, "train.parquet", records(0, 15))
    write(folder, "test.parquet", records(15, last))
    dataset = parquet_folder(folder, "copy")
    write_dataset(storage, dataset, {"kind": "path"})
    return dataset.id


def test_a_parquet_copy_becomes_comparable_by_the_official_archive(
    official: Path, tmp_path: Path
) -> None:
    storage = Storage(str(tmp_path / "storage"))
    copy = copy_in(storage, tmp_path / "copy", 18)
    verify_against(storage, require_stored(storage, "copy"), official)
    manifest = read_manifest(storage, copy)
    assert (
        manifest is not None and manifest["row"]["comparable"] and manifest["row"]["name"] == "copy"
    )


def test_a_copy_that_differs_stays_as_it_is(official: Path, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "storage"))
    copy = copy_in(storage, tmp_path / "copy", 17)
    with pytest.raises(InputError, match="1 of its 18 images"):
        verify_against(storage, require_stored(storage, "copy"), official)
    manifest = read_manifest(storage, copy)
    assert manifest is not None and not manifest["row"]["comparable"]


def test_an_archive_that_is_not_official_verifies_nothing(cli: Cli, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "storage"))
    copy_in(storage, tmp_path / "copy", 18)
    (tmp_path / "other.tar.gz").write_bytes(archive(members()))
    done = cli(
        "data", "verify", "copy", "--against", tmp_path / "other.tar.gz", "--storage", storage.uri
    )
    assert done.returncode == 2 and "the official archives have" in done.stderr
