"""JSON that lies in a storage: parsed within bounds, and checked against a type, or refused.

What lies there may be cut, foreign or hostile. All of it is read here, so that its reader gets a
value of the type that it named, or an error that names the file, and never another exception.
"""

from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from itertools import chain
from json import dumps, loads
from operator import itemgetter
from types import NoneType, UnionType
from typing import (
    Any,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from pipeline.errors import InputError
from pipeline.storage import Storage

MOST_BYTES = 64 << 20
"""No file of ours comes near: the history of the longest row of the paper has a few MB."""
DEEPEST = 32
"""Objects and lists within each other; ours have five or six."""
LARGEST = 1 << 63
"""No integer of ours is as large; arithmetic with floats fails on much larger ones."""

T = TypeVar("T")

_CONTAINERS = (dict, list)

_SCALARS: dict[Any, set[type]] = {
    # By what JSON becomes: a whole number stands for a float too, a truth value for neither.
    int: {int},
    float: {int, float},
    str: {str},
    bool: {bool},
    NoneType: {NoneType},
}


class DamagedError(InputError):
    """A file of ours that cannot be read any more, or a foreign one in its place."""


def read_json(storage: Storage, path: str, kind: type[T]) -> T | None:
    """The JSON file at a path, as `kind` describes it; None where there is none.

    Raises:
        DamagedError: it is something else (says where it lies).
        OSError: storage cannot be read now.
    """
    content = storage.read_if_there(path, MOST_BYTES)
    return None if content is None else parse_as(content, kind, storage.path(path))


def parse_as(content: bytes, kind: type[T], where: str) -> T:
    """JSON as `kind` describes it: `fits` says how; `where` names it in messages.

    Raises:
        DamagedError: it is something else.
    """
    try:
        value = _loaded(content)
        good = fits(value, kind)
        if not good:
            _check_depth(value)
    except ValueError as error:
        raise DamagedError(f"{where}: damaged ({error}); move it away") from None
    if not good:
        check_fits(value, kind, where)
    checked: T = value
    return checked


def check_fits(value: Any, kind: Any, where: str) -> None:
    """Refuse a parsed value that is not what a type says (`fits`).

    Raises:
        DamagedError: says so.
    """
    if not fits(value, kind):
        raise DamagedError(
            f"{where}: damaged, or of another version (it lacks fields, or has others); move it "
            "away"
        )


def parse(content: bytes) -> Any:
    """JSON, whatever it holds, within bounds of size and depth.

    Raises:
        ValueError: it is none, or out of bounds (says which in a few words).
    """
    value = _loaded(content)
    _check_depth(value)
    return value


def _loaded(content: bytes) -> Any:
    if len(content) > MOST_BYTES:
        raise ValueError(f"has more than {MOST_BYTES >> 20} MB")
    try:
        value = loads(content)
        # Half of a surrogate pair can be neither printed nor stored.
        if b"\\u" in content:
            dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError(f"has more than {DEEPEST} levels") from None
    except ValueError:
        raise ValueError("is no JSON" if content else "is empty") from None
    return value


def _check_depth(value: Any) -> None:
    if _is_deeper(value, DEEPEST):
        raise ValueError(f"has more than {DEEPEST} levels")


def _is_deeper(value: Any, levels: int) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    # Level by level and not by recursion, which is what such a file would exhaust.
    for _ in range(levels):
        below = chain.from_iterable(o.values() if type(o) is dict else o for o in level)
        level = [inner for inner in below if type(inner) in _CONTAINERS]
        if not level:
            return False
    return bool(level)


def fits(value: Any, kind: Any) -> bool:
    """Whether a parsed value is what a type says.

    `kind` is made of scalars, `Any`, literals, unions with None, lists, tuples (lists in JSON),
    dictionaries, `TypedDict`s, which may hold more than they say, and dataclasses, which may not.
    """
    return _all_fit([value], kind)


def _all_fit(values: list[Any], kind: Any) -> bool:
    """Whether all of them fit: a column at a time, as histories have thousands of points."""
    if kind is Any:  # the types around it bound all other depths
        return not _is_deeper(values, DEEPEST)
    if type(kind) is type and kind in _SCALARS:  # to hash a generic type is slow
        types = set(map(type, values))
        if not types <= _SCALARS[kind]:
            return False
        whole = values if types == {int} else [v for v in values if type(v) is int]
        return not whole or (min(whole) > -LARGEST and max(whole) < LARGEST)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        assert NoneType in arguments and len(arguments) == 2, kind
        (other,) = set(arguments) - {NoneType}
        return _all_fit([value for value in values if value is not None], other)
    if origin is Literal:
        return all(type(value) is str and value in arguments for value in values)
    if origin in (list, tuple):
        return set(map(type, values)) <= {list} and _all_fit(
            [inner for value in values for inner in value], arguments[0]
        )
    if not set(map(type, values)) <= {dict}:
        return False
    if origin is dict:
        return _all_fit([inner for value in values for inner in value.values()], arguments[1])
    kinds, required, closed = _fields(kind)
    if closed and not set().union(*values) <= kinds.keys():
        return False
    for name, inner in kinds.items():
        try:
            column = list(map(itemgetter(name), values))
        except KeyError:
            if name in required:
                return False
            column = [value[name] for value in values if name in value]
        if not _all_fit(column, inner):
            return False
    return True


@lru_cache
def _fields(kind: Any) -> tuple[dict[str, Any], frozenset[str], bool]:
    """A record's fields and their types, those that it must have, and whether it has no others."""
    hints = get_type_hints(kind)
    if is_typeddict(kind):
        return hints, kind.__required_keys__, False
    assert is_dataclass(kind), kind
    own = {field.name: field for field in fields(kind)}
    required = frozenset(
        name
        for name, field in own.items()
        if field.default is MISSING and field.default_factory is MISSING
    )
    return {name: hints[name] for name in own}, required, True
