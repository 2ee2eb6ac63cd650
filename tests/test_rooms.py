"""Which way imports go between rooms (sub-packages), and that one name means one class.

Imports count wherever they stand, also inside functions: an arrow that runs back up is one, lazy
or not.
"""

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("pipeline", "jobs", "analysis", "benchmarks")
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
        file.read_text()
    )
    for folder in FOLDERS
    for file in sorted((ROOT / folder).rglob("*.py"))
}
ORDER = (
    "jobs.console",
    "jobs.grids",
    "jobs.tracking",
    "jobs.execution",
    "jobs.requests",
    "jobs.planning",
    "jobs.doctor",
    "jobs.cli",
)
"""The rooms of jobs: each imports only from those before it."""


def imports(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Dotted names that imports among the nodes name, `from a import b` as a.b."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def room(name: str) -> str:
    """A module's or name's room: its folder below the top one, or the top one itself."""
    return ".".join(name.split(".")[:2])


def users(package: str, among: str) -> set[str]:
    """Modules of `among` that import a package, anywhere in them."""
    return {
        module
        for module, tree in MODULES.items()
        if within(module, among) and any(within(name, package) for name in imports(ast.walk(tree)))
    }


def arrows() -> dict[str, set[str]]:
    """Which rooms of jobs each room of jobs imports."""
    found = defaultdict(set)
    for module, tree in MODULES.items():
        if within(module, "jobs"):
            for name in imports(ast.walk(tree)):
                if within(name, "jobs") and room(name) != room(module):
                    found[room(module)].add(room(name))
    return dict(found)


def test_rooms_of_jobs_import_one_way() -> None:
    wrong = {
        f"{one} imports {other}"
        for one, others in arrows().items()
        for other in others
        if ORDER.index(other) > ORDER.index(one)
    }
    assert not wrong
    assert {room(module) for module in MODULES if module.startswith("jobs.")} == set(ORDER)


def test_commands_do_not_import_each_other() -> None:
    assembling = {"jobs.cli.main", "jobs.cli.__main__"}
    assert users("jobs.cli", among="jobs") <= assembling
    assert not users("jobs.cli", among="benchmarks")


@pytest.mark.parametrize(
    ("package", "only"),
    [("ray", "jobs.execution"), ("mlflow", "jobs.tracking"), ("torch", "jobs.execution")],
)
def test_one_room_of_jobs_speaks_to(package: str, only: str) -> None:
    assert {room(module) for module in users(package, among="jobs")} == {only}


def test_jobs_load_torch_where_they_use_it() -> None:
    """Commands and drivers import these modules; torch would cost each of them seconds."""
    eager = {
        module
        for module, tree in MODULES.items()
        if within(module, "jobs")
        and any(within(name, "torch") for name in imports(iter(tree.body)))
    }
    assert not eager


def test_jobs_know_benchmarks_as_a_command_alone() -> None:
    assert users("benchmarks", among="jobs") == {"jobs.cli.main"}


def test_a_folder_is_one_idea() -> None:
    sizes = Counter(
        str(file.parent.relative_to(ROOT))
        for folder in FOLDERS
        for file in (ROOT / folder).rglob("*.py")
        if file.name != "__init__.py"
    )
    assert not {folder: size for folder, size in sizes.items() if size > 15}


def test_every_room_says_what_lives_in_it() -> None:
    packages = [
        file.parent
        for folder in ("jobs", "benchmarks", "deploy")
        for file in (ROOT / folder).rglob("__init__.py")
    ]
    silent = [
        str(package.relative_to(ROOT))
        for package in packages
        if not ast.get_docstring(ast.parse((package / "__init__.py").read_text()))
    ]
    assert not silent


def test_a_class_name_means_one_class() -> None:
    where = defaultdict(list)
    for module, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                where[node.name].append(module)
    assert not {name: modules for name, modules in where.items() if len(modules) > 1}
