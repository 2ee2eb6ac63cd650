"""Files appear whole or not at all, and a place that cannot be used says so in one line."""

import os
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.storage import Storage


def test_written_read_named_and_deleted(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    for name, content in [("a/2", b"two"), ("a/1", b""), ("a/b/c", bytes(range(256)))]:
        storage.write(name, content)
        assert storage.read(name) == content
    assert storage.names("a") == ["1", "2", "b"]
    storage.delete("a/b")
    storage.delete("a/1")
    storage.delete("never/there")
    assert storage.names("a") == ["2"]
    assert storage.names("nowhere") == []
    assert (storage.exists("a"), storage.exists("a/1"), storage.read_if_there("a/1")) == (
        True,
        False,
        None,
    )


def test_a_path_and_its_uri_are_one_place(tmp_path: Path) -> None:
    Storage(str(tmp_path)).write("x", b"1")
    assert Storage(tmp_path.as_uri()).read("x") == b"1"


def test_a_write_that_dies_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(str(tmp_path))
    storage.write("x", b"old")

    def die(_: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(OSError, match="No space left"):
        storage.write("x", b"new and longer")
    assert storage.read("x") == b"old"
    assert storage.names("") == ["x"]


def test_a_probe_leaves_nothing_behind(tmp_path: Path) -> None:
    Storage(str(tmp_path / "new")).check_writable()
    assert Storage(str(tmp_path)).names("new") == []


@pytest.mark.parametrize("place", ["/proc/nowhere", "FILE/below"])
def test_an_unwritable_place_is_refused(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written") as error:
        Storage(place.replace("FILE", str(tmp_path / "file"))).check_writable()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("uri", ["gopher://somewhere/x", "://", "s3:///"])
def test_an_unknown_scheme_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match="--storage") as error:
        Storage(uri)
    assert "\n" not in str(error.value)
