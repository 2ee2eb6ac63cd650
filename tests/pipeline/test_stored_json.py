"""JSON in a storage gives a value of the type that was asked for, or an `InputError`."""

import json
import os
import socket
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NotRequired

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import TypedDict

from pipeline.errors import InputError
from pipeline.storage import Storage
from pipeline.stored_json import (
    DEEPEST,
    LARGEST,
    MOST_BYTES,
    DamagedError,
    parse,
    parse_as,
    read_json,
)


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
    sure: bool = False


class Holder(TypedDict):
    outer: Outer


GOOD: dict[str, Any] = {"name": "a", "rate": 1, "state": "on", "files": {"x": {"size": 2}}}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rate": 0.5},
        {"rate": -(10**18)},
        {"rate": float("nan")},
        {"sides": [1, 2], "more": [{"anything": [None]}]},
        {"files": {"x": {"unknown": 1, "size": 2, "note": None}}},
    ],
)
def test_what_a_type_says_comes_as_json_says_it(changes: dict[str, Any]) -> None:
    good = {"unknown": [1], "outer": GOOD | changes}
    assert repr(parse_as(json.dumps(good).encode(), Holder, "here")) == repr(good)
    outer = parse_as(json.dumps(good["outer"]).encode(), Outer, "here")
    for name, value in good["outer"].items():
        is_list = isinstance(value, list) and name == "sides"
        found = getattr(outer, name)
        assert repr(found) == repr(tuple(value) if is_list else value) or name == "files"
    assert outer.files == good["outer"]["files"]


@pytest.mark.parametrize(
    "changes",
    [
        {"name": 1},
        {"name": None},
        {"rate": True},
        {"rate": "1"},
        {"rate": 10**400},
        {"rate": LARGEST},
        {"rate": -LARGEST},
        {"state": "maybe"},
        {"state": ["on"]},
        {"files": []},
        {"files": {"x": {}}},
        {"files": {"x": {"size": 1.5}}},
        {"files": {"x": {"size": LARGEST}}},
        {"files": {"x": {"size": 1, "note": 1}}},
        {"files": {"x": {"size": 1, "unknown": json.loads("[" * 40 + "]" * 40)}}},
        {"sides": [1, "2"]},
        {"more": [1]},
        {"sure": 1},
        {"unknown": 1},
        *(dict.fromkeys([name]) for name in ("name", "rate", "state", "files")),
    ],
)
def test_anything_else_is_refused(changes: dict[str, Any]) -> None:
    bad = {name: value for name, value in (GOOD | changes).items() if value is not None}
    for content, kind in ((bad, Outer), ({"outer": bad}, Holder)):
        with pytest.raises(DamagedError, match=r"^here: damaged.*; move it away$") as error:
            parse_as(json.dumps(content).encode(), kind, "here")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"{", "is no JSON"),
        (b"\xff", "is no JSON"),
        (b'"\\ud800"', "is no JSON"),
        (b'"\xed\xa0\x80"', "is no JSON"),
        (b"1" * 5000, "is no JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "levels"),
        (b'{"a":' * 100_000, "levels"),
        (b"[" * (DEEPEST + 3) + b"]" * (DEEPEST + 3), "levels"),
        (b'{"a":' * (DEEPEST + 3) + b"1" + b"}" * (DEEPEST + 3), "levels"),
        (b" " * (MOST_BYTES + 1), "MB"),
    ],
)
def test_what_is_out_of_bounds_is_refused_in_one_line(content: bytes, why: str) -> None:
    for kind in (Outer, Holder, dict[str, Any], dict[str, list[Any]]):
        with pytest.raises(DamagedError, match=f"^here: damaged .*{why}.*; move it away$") as error:
            parse_as(content, kind, "here")
        assert "\n" not in str(error.value)
    deep = b"[" * DEEPEST + b"]" * DEEPEST
    assert parse(deep) is not None


# The reference is the standard library's reader: the same values, or none.

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
TOKENS = st.lists(
    st.sampled_from(["{", "}", "[", "]", ",", ":", " ", '"a"', '"b"', '"', "\\", "\\ud800", "null"])
    | st.sampled_from(["true", "NaN", "-Infinity", "1e999", "-0", "1", "0.1", "\x00", "\ufeff"])
).map("".join)
NUMBERS = st.from_regex(r"\A-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?\Z")


@given(VALUES, st.sampled_from([None, 1]), st.booleans())
def test_every_value_is_read_as_it_was_written(value: Any, indent: int | None, ours: bool) -> None:
    try:
        content = json.dumps(value, indent=indent, ensure_ascii=ours).encode()
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return
    assert repr(parse(content)) == repr(value)
    assert repr(parse_as(b'{"x":%s}' % content, dict[str, Any], "here")) == repr({"x": value})


@given(st.binary() | st.text().map(str.encode) | TOKENS.map(lambda t: t.encode(errors="replace")))
def test_any_bytes_are_what_the_standard_reader_finds_or_refused(content: bytes) -> None:
    try:
        value = parse(content)
    except ValueError as error:
        assert str(error) in ("is no JSON", "is empty", f"has more than {DEEPEST} levels")
    else:
        assert repr(value) == repr(json.loads(content))


@given(NUMBERS, NUMBERS)
def test_numbers_are_the_standard_readers_to_the_last_bit(first: str, second: str) -> None:
    content = f'{{"x": [{first}, {second}]}}'.encode()
    expected = json.loads(content)
    assert repr(parse(content)) == repr(expected)
    large = [value for value in expected["x"] if type(value) is int and abs(value) >= LARGEST]
    try:
        found = parse_as(content, dict[str, list[float]], "here")
    except DamagedError:
        assert large
    else:
        assert repr(found) == repr(expected) and not large


# Every field that is there once or twice, of a right type or a wrong one.

ENTRIES = st.lists(
    st.tuples(st.just("name"), st.text() | st.integers())
    | st.tuples(st.just("rate"), st.floats() | st.integers() | st.booleans())
    | st.tuples(st.just("state"), st.sampled_from(["on", "off", "other", 1]))
    | st.tuples(st.just("files"), st.dictionaries(st.text(), st.just({"size": 1})) | st.none())
    | st.tuples(st.just("sides"), st.lists(st.integers() | st.floats(), max_size=2))
    | st.tuples(st.just("more"), st.lists(st.dictionaries(st.text(), VALUES, max_size=2)))
)
FIRST = [("name", "a"), ("rate", 1), ("state", "on"), ("files", {})]


@given(ENTRIES)
def test_of_entries_that_are_there_twice_the_last_counts(entries: list[tuple[str, Any]]) -> None:
    text = ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in FIRST + entries)
    content = b"{%s}" % text.encode()
    expected = json.loads(content)
    try:
        outer = parse_as(content, Outer, "here")
        held = parse_as(b'{"outer": %s}' % content, Holder, "here")
    except DamagedError:
        return
    assert repr(held["outer"]) == repr(expected)
    fields = asdict(outer)
    fields["sides"] = list(fields["sides"])
    assert repr({name: fields[name] for name in expected}) == repr(expected)


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
        with pytest.raises(InputError, match=f"{name}: is a .*, where a file is expected") as error:
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
    with pytest.raises(InputError, match=r"large: has 1,099,511,627,776 bytes, of at most"):
        read_json(storage, "large", dict[str, Any])
