"""JSON in a storage gives a value of the type that was asked for, or an `InputError`."""

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.storage import Storage
from pipeline.stored_json import DEEPEST, MOST_BYTES, DamagedError, fits, parse, parse_as, read_json


class Inner(TypedDict):
    size: int
    note: NotRequired[str | None]


@dataclass
class Outer:
    name: str
    rate: float
    state: Literal["on", "off"]
    files: dict[str, Inner]
    sides: tuple[int, ...] = ()
    more: list[dict[str, Any]] = field(default_factory=list)


GOOD: dict[str, Any] = {"name": "a", "rate": 1, "state": "on", "files": {"x": {"size": 2}}}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rate": 0.5},
        {"sides": [1, 2], "more": [{"anything": [None]}]},
        {"files": {"x": {"size": 2, "note": None, "unknown": 1}}},
    ],
)
def test_what_a_type_says_fits(changes: dict[str, Any]) -> None:
    assert fits(GOOD | changes, Outer)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": 1},
        {"name": None},
        {"rate": True},
        {"rate": "1"},
        {"rate": 10**400},
        {"state": "maybe"},
        {"state": ["on"]},
        {"files": []},
        {"files": {"x": {}}},
        {"files": {"x": {"size": 1.5}}},
        {"files": {"x": {"size": 1, "note": 1}}},
        {"sides": [1, "2"]},
        {"more": [1]},
        {"unknown": 1},
    ],
)
def test_anything_else_does_not(changes: dict[str, Any]) -> None:
    assert not fits(GOOD | changes, Outer)
    for name in ("name", "rate", "state", "files"):
        assert not fits({key: value for key, value in GOOD.items() if key != name}, Outer)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"{", "is no JSON"),
        (b"\xff", "is no JSON"),
        (b'"\\ud800"', "is no JSON"),
        (b"1" * 5000, "is no JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "levels"),
        (b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1), "levels"),
        (b'{"a":' * (DEEPEST + 1) + b"1" + b"}" * (DEEPEST + 1), "levels"),
        (b" " * (MOST_BYTES + 1), "MB"),
    ],
)
def test_what_is_out_of_bounds_is_refused_in_one_line(content: bytes, why: str) -> None:
    with pytest.raises(DamagedError, match=f"^here: damaged .*{why}.*; move it away$") as error:
        parse_as(content, dict[str, Any], "here")
    assert "\n" not in str(error.value)
    deep = b"[" * DEEPEST + b"]" * DEEPEST
    assert parse(deep) is not None


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_a_value_or_refused(content: bytes) -> None:
    try:
        parse(content)
    except ValueError as error:
        assert str(error)


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """Opening the pipe, which nobody writes to, would wait for ever."""
    storage = Storage(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "null").symlink_to("/dev/zero")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "file").write_text("x")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    for name in ("pipe", "folder", "null", "socket"):
        with pytest.raises(InputError, match=f"{name}: is a .*, and not a file of ours") as error:
            read_json(storage, name, dict[str, Any])
        assert "\n" not in str(error.value)
    # What lies behind a file is not there, and neither is what a link names in vain.
    for name in ("nowhere", "file/x", "never/there"):
        assert read_json(storage, name, dict[str, Any]) is None
    assert storage.names("file") == [] == storage.names("pipe")
    assert storage.folders("") == ["folder"]


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    with open(tmp_path / "large", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match=r"large: has 1,099,511,627,776 bytes"):
        read_json(storage, "large", dict[str, Any])
