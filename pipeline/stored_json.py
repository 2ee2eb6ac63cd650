"""JSON that lies in a storage: parsed within bounds, and checked against a type, or refused.

What lies there may be cut, foreign or hostile. All of it is read here, so that its reader gets a
value of the type that it named, or an error that names the file, and never another exception.
Pydantic parses and checks; the bounds are ours.
"""

from collections.abc import Callable
from dataclasses import is_dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, TypeVar, cast

from pipeline.errors import InputError
from pipeline.storage import Storage

MOST_BYTES = 64 << 20
"""No file of ours comes near: the history of the longest row of the paper has a few MB."""
DEEPEST = 32
"""Objects and lists within each other where no type counts them; ours have five or six."""
LARGEST = 1 << 63
"""No integer of ours is as large; arithmetic with floats fails on much larger ones."""

T = TypeVar("T")

_CONTAINERS = (dict, list)


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
    """JSON as `kind` describes it; `where` names it in messages.

    `kind` is made of scalars, literals, unions with None, lists, tuples (lists in JSON),
    dictionaries, `Any`, `TypedDict`s of `typing_extensions`, which may hold more than they say, and
    dataclasses, which may not. A `kind` that is a dataclass comes as one; all else is what JSON
    says, in its order. A whole number stands for a float too, and stays whole.

    Raises:
        DamagedError: it is something else.
    """
    from pydantic_core import from_json

    checked = check_as(content, kind, where)
    return cast(T, checked if is_dataclass(kind) else from_json(content))


def check_as(content: bytes, kind: Any, where: str) -> Any:
    """Refuse JSON that is not what a type says; returns it in a form that pydantic chooses.

    Raises:
        DamagedError: says so.
    """
    try:
        if len(content) <= MOST_BYTES:
            return _checker(kind)(content)
    except (ValueError, OverflowError):  # pydantic's say more than a line holds
        pass
    why = "damaged, or of another version (it lacks fields, or has others)"
    try:
        parse(content)
    except ValueError as error:
        why = f"damaged ({error})"
    raise DamagedError(f"{where}: {why}; move it away")


def parse(content: bytes | str) -> Any:
    """JSON, whatever it holds, within bounds of size and depth.

    Raises:
        ValueError: it is none, or out of bounds (says which in a few words).
    """
    from pydantic_core import from_json

    if len(content) > MOST_BYTES:
        raise ValueError(f"has more than {MOST_BYTES >> 20} MB")
    try:
        value = from_json(content)
    except ValueError as error:
        if "recursion limit" in str(error):
            raise ValueError(f"has more than {DEEPEST} levels") from None
        raise ValueError("is no JSON" if content else "is empty") from None
    return _within_depth(value)


def _within_depth(value: Any) -> Any:
    level = [value] if isinstance(value, dict | list) else []
    # Level by level and not by recursion, which is what such a file would exhaust.
    for _ in range(DEEPEST):
        below = chain.from_iterable(o.values() if type(o) is dict else o for o in level)
        level = [inner for inner in below if type(inner) in _CONTAINERS]
        if not level:
            return value
    raise ValueError(f"has more than {DEEPEST} levels")


def _within_range(number: int) -> int:
    if not -LARGEST < number < LARGEST:
        # No ValueError: pydantic would take that for "not whole", and the number for a float.
        raise OverflowError
    return number


@lru_cache
def _checker(kind: Any) -> Callable[[bytes], Any]:
    """What parses and checks a file of a kind at once; made once in a process."""
    # Here, as they take a tenth of a second, which commands that read no JSON need not wait for.
    from pydantic import TypeAdapter
    from pydantic_core import SchemaValidator

    validator = SchemaValidator(_bounded(TypeAdapter(kind).core_schema))
    return lambda content: validator.validate_json(content, strict=True)


def _bounded(schema: Any) -> Any:
    """Pydantic's schema of a type, with our bounds in it."""
    from pydantic_core import core_schema

    if isinstance(schema, list | tuple):
        return [_bounded(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    integers = core_schema.no_info_after_validator_function(_within_range, core_schema.int_schema())
    anything = core_schema.no_info_after_validator_function(_within_depth, core_schema.any_schema())
    match schema.get("type"):
        case "int":
            return core_schema.int_schema(gt=-LARGEST, lt=LARGEST)
        case "float":
            # Both, so that whole numbers stay whole.
            return core_schema.union_schema([core_schema.float_schema(), integers])
        case "any":
            return anything
    inner = {name: _bounded(value) for name, value in schema.items()}
    match schema.get("type"):
        case "typed-dict":
            return inner | {"extra_behavior": "allow", "extras_schema": anything}
        case "dataclass-args":
            return inner | {"extra_behavior": "forbid"}
        case "dataclass":
            # Types alone: what else a value must be is asked by whoever makes it.
            return inner | {"post_init": False}
    return inner
