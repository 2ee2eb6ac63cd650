"""Inside a package, rooms and root modules stand in an order, and imports go down it alone.

`tests/test_boundaries.py` holds the arrows between packages; here are those between the rooms of
one package. An entry may import what stands before it and itself; nothing may import what comes
after it, at the top of a module or inside a function.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ROOMS = {
    "pipeline": ["errors", "storage", "recipe", "runs", "data", "training"],
    "analysis": [
        "stats",
        "measured",
        "paper",
        "studies",
        "verdicts",
        "tables",
        "figures",
        "report",
    ],
}
"""By package, its root modules and rooms (folders), from the bottom up."""


def modules(package: str) -> Iterator[tuple[str, Path]]:
    """Every module of a package with the room it lies in; its own `__init__` lies in none."""
    for file in sorted((ROOT / package).rglob("*.py")):
        room = file.relative_to(ROOT / package).parts[0].removesuffix(".py")
        if room != "__init__":
            yield room, file


def imported_rooms(package: str, file: Path) -> Iterator[str]:
    """The rooms of the package that a module names in any import, wherever it stands."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: a relative import hides where it leads"
            # `from analysis import stats` and `from analysis.stats import LEVEL` lead to one room.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == package and len(parts) > 1:
                yield parts[1]


@pytest.mark.parametrize("package", ROOMS)
def test_the_list_names_every_room_and_no_other(package: str) -> None:
    assert {room for room, _ in modules(package)} == set(ROOMS[package])


@pytest.mark.parametrize("package", ROOMS)
def test_imports_between_rooms_go_down_the_list(package: str) -> None:
    order = ROOMS[package]
    upward = [
        f"{file.relative_to(ROOT)} ({room}) imports from {imported}"
        for room, file in modules(package)
        for imported in imported_rooms(package, file)
        if order.index(imported) > order.index(room)
    ]
    assert not upward, "\n".join(upward)


@pytest.mark.parametrize("package", ROOMS)
def test_every_room_says_what_lives_in_it(package: str) -> None:
    for file in sorted((ROOT / package).rglob("__init__.py")):
        if package == "analysis" or file.parent.name in ("pipeline", "recipe", "runs"):
            assert ast.get_docstring(ast.parse(file.read_text())), f"{file} has no docstring"
