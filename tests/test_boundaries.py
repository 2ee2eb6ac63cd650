"""What may import what, who reads the environment, and how long a file may get (design, section 1)."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {
    str(file.relative_to(ROOT)): ast.parse(file.read_text())
    for folder in ("pipeline", "jobs", "analysis", "benchmarks", "deploy")
    for file in sorted((ROOT / folder).rglob("*.py"))
}
TORCH_FREE_ROOMS = (
    "pipeline/errors",
    "pipeline/storage",
    "pipeline/recipe",
    "pipeline/runs",
    "pipeline/data",
)
TORCH_FREE = [
    *(
        file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        for file in SOURCES
        if file.startswith(TORCH_FREE_ROOMS)
    ),
    *(f"jobs.execution.{name}" for name in ("drive", "tune", "launch", "worker")),
    "jobs.cli.main",
]


def imported(tree: ast.Module) -> Iterator[str]:
    """Dotted names a module imports anywhere, `from a import b` as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def users(package: str) -> set[str]:
    """Files that import a package or anything inside it."""
    return {
        file
        for file, tree in SOURCES.items()
        if any(name == package or name.startswith(f"{package}.") for name in imported(tree))
    }


def inside(folder: str, files: set[str]) -> set[str]:
    return {file for file in files if file.startswith(f"{folder}/")}


@pytest.mark.parametrize("package", ["jobs", "analysis", "ray", "mlflow"])
def test_pipeline_knows_no_cluster_no_tracking_and_no_table(package: str) -> None:
    assert not inside("pipeline", users(package))


@pytest.mark.parametrize("package", ["jobs", "torch", "torchvision", "ray"])
def test_analysis_never_trains(package: str) -> None:
    assert not inside("analysis", users(package))


def test_mlflow_is_read_in_one_file_and_written_in_jobs_alone() -> None:
    writers = inside("jobs/tracking", set(SOURCES))
    imports_alone = {"benchmarks/bare_job.py"}
    assert users("mlflow") <= {"analysis/measured/mlflow_export.py", *writers, *imports_alone}
    assert inside("analysis", users("mlflow")) == {"analysis/measured/mlflow_export.py"}


def test_ray_tune_is_in_one_file() -> None:
    assert users("ray.tune") == {"jobs/execution/tune.py"}


def test_only_jobs_read_the_command_line_or_the_environment() -> None:
    readers = {
        file
        for file, tree in SOURCES.items()
        for node in ast.walk(tree)
        if (
            isinstance(node, ast.Attribute)
            and node.attr in ("environ", "environb", "getenv", "argv")
        )
        or (
            isinstance(node, ast.ImportFrom)
            and {a.name for a in node.names} & {"environ", "getenv", "argv"}
        )
    }
    assert readers == inside("jobs", readers) | inside("benchmarks", readers)


def test_torch_free_modules_do_not_load_torch() -> None:
    lines = ["import importlib, sys"]
    for module in TORCH_FREE:
        lines.append(
            f"importlib.import_module('{module}'); assert 'torch' not in sys.modules, '{module} "
            "loads torch'"
        )
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_file_is_named_by_a_noun() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}
    assert not drawers & {Path(file).stem for file in SOURCES}


def code_lines(node: ast.AST, text: str) -> int:
    """Lines of a module or function that hold code: no blank lines, comments or docstrings."""
    lines = text.splitlines()
    start, end = getattr(node, "lineno", 1), getattr(node, "end_lineno", len(lines))
    prose = {
        line
        for inner in ast.walk(node)
        if isinstance(inner, ast.Expr)
        and isinstance(inner.value, ast.Constant)
        and isinstance(inner.value.value, str)
        for line in range(inner.lineno, (inner.end_lineno or inner.lineno) + 1)
    }
    return sum(
        number not in prose and not lines[number - 1].strip().startswith("#")
        for number in range(start, end + 1)
        if lines[number - 1].strip()
    )


@pytest.mark.parametrize("file", SOURCES)
def test_files_and_functions_stay_short_and_say_what_they_are(file: str) -> None:
    tree, text = SOURCES[file], (ROOT / file).read_text()
    lines = code_lines(tree, text)
    assert lines <= 300, f"{file} has {lines} lines of code"
    assert ast.get_docstring(tree) or file.endswith("__init__.py"), f"{file} has no docstring"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = code_lines(node, text)
            assert length <= 70, f"{file}: {node.name} has {length} lines of code"
