"""The rules of the house: which room imports which, who may use what, and how long code may get.

Imports count wherever they stand: one within a function is an arrow like any other.
"""

import ast
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("pipeline", "jobs", "analysis", "benchmarks", "deploy")
FILES = {
    str(file.relative_to(ROOT)): file
    for folder in FOLDERS
    for file in sorted((ROOT / folder).rglob("*.py"))
}
SOURCES = {name: ast.parse(file.read_text()) for name, file in FILES.items()}

ROOMS = {
    "pipeline": [
        "errors",
        "memory",
        "storage",
        "stored_json",
        "recipe",
        "runs",
        "data",
        "training",
    ],
    "pipeline/training": [
        "step",
        "feeding",
        "measuring",
        "exported_weights",
        "attempts",
        "run_writer",
        "loop",
        "packs",
        "verify",
    ],
    "jobs": [
        "console",
        "grids",
        "tracking",
        "execution",
        "requests",
        "planning",
        "doctor",
        "cli",
    ],
    "analysis": [
        "stats",
        "power",
        "measured",
        "paper",
        "studies",
        "verdicts",
        "tables",
        "figures",
        "report",
    ],
}
"""By folder, its rooms and the modules that lie in none, from the ground floor up."""

TORCH_FREE = ("pipeline/errors", "pipeline/memory", "pipeline/storage", "pipeline/stored_json",
              "pipeline/recipe", "pipeline/runs", "pipeline/data")  # fmt: skip


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names that a module imports anywhere, `from a import b` as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import hides where it leads"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def users(package: str, among: str = "") -> set[str]:
    """Files below `among` that import a package or anything inside it."""
    return {
        file
        for file, tree in SOURCES.items()
        if file.startswith(among)
        and any(name == package or name.startswith(f"{package}.") for name in imported(tree))
    }


def room_of(path: str, folder: str) -> str | None:
    """The room of a folder in which a file or a dotted name lies; None for another folder's."""
    path = path.removesuffix(".py").replace(".", "/")
    if not path.startswith(f"{folder}/"):
        return None
    return path.removeprefix(f"{folder}/").partition("/")[0]


# Which way imports go.


@pytest.mark.parametrize("folder", ROOMS)
def test_rooms_are_those_of_the_list_and_import_downwards(folder: str) -> None:
    order, upward, seen = ROOMS[folder], [], set()
    for file, tree in SOURCES.items():
        room = room_of(file, folder)
        if room is None or room == "__init__":
            continue
        seen.add(room)
        lower = order[: order.index(room) + 1]
        targets = {room_of(name, folder) for name in imported(tree)} - {None}
        upward += [f"{file} imports {target}" for target in targets if target not in lower]
    assert not upward and seen == set(order)


@pytest.mark.parametrize("package", ["jobs", "analysis", "benchmarks", "ray", "mlflow"])
def test_pipeline_knows_no_cluster_no_tracking_and_no_table(package: str) -> None:
    assert not users(package, "pipeline/")


@pytest.mark.parametrize("package", ["jobs", "benchmarks", "torch", "torchvision", "ray"])
def test_analysis_never_trains(package: str) -> None:
    assert not users(package, "analysis/")


def test_commands_do_not_import_each_other() -> None:
    assert users("jobs.cli") <= {"jobs/cli/main.py", "jobs/cli/__main__.py"}


def test_benchmarks_are_a_command_and_no_part_of_jobs() -> None:
    assert users("benchmarks", "jobs/") == {"jobs/cli/main.py"}


# Who may use what.


@pytest.mark.parametrize(
    ("package", "place"),
    [
        ("torch", "pipeline/training/"),
        ("ray", "jobs/execution/"),
        ("torch", "jobs/execution/"),
        ("mlflow", "jobs/tracking/"),
        ("mlflow", "analysis/measured/mlflow_export.py"),
        ("ray.tune", "jobs/execution/tune.py"),
    ],
)
def test_one_room_of_each_folder_uses(package: str, place: str) -> None:
    everywhere = users(package, f"{place.partition('/')[0]}/")
    assert everywhere and all(file.startswith(place) for file in everywhere)


def test_jobs_load_torch_only_within_functions() -> None:
    """Commands and drivers import these modules; torch would cost each of them seconds."""
    for file, tree in SOURCES.items():
        at_import = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = [name for node in at_import for name in imported(node)]
        assert not (
            file.startswith("jobs/") and any(name.split(".")[0] == "torch" for name in names)
        ), file


def test_what_has_to_be_light_does_not_load_torch() -> None:
    light = [
        file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        for file in SOURCES
        if file.startswith((*TORCH_FREE, "jobs/", "analysis/")) and not file.endswith("__main__.py")
    ]
    lines = ["import importlib, sys"]
    lines += [
        f"importlib.import_module('{module}'); assert 'torch' not in sys.modules, '{module}'"
        for module in light
    ]
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_only_jobs_read_the_command_line_or_the_environment() -> None:
    words = ("environ", "environb", "getenv", "argv")
    readers = {
        file
        for file, tree in SOURCES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in words)
        or (isinstance(node, ast.ImportFrom) and {a.name for a in node.names} & set(words))
    }
    assert {file.partition("/")[0] for file in readers} <= {"jobs", "benchmarks"}


OPENS_FILES = {
    "pipeline/storage.py": "a storage's files, and all others that are read whole",
    "pipeline/data/download.py": "an archive, block by block",
    "pipeline/data/photo_parts.py": "tar files, image by image",
    "pipeline/data/sources/validation_labels.py": "a development kit, after a look at its sizes",
    "pipeline/data/sources/parquet_rows.py": "parquet that a user names",
    "pipeline/data/sources/tar_archives.py": "tar archives that a user names, within bounds",
    "pipeline/data/catalogue/fashion_mnist.py": "unpacks bytes, within bounds",
    "pipeline/data/decoders.py": "a node's copy of a shard, whose checksum was right",
    "pipeline/data/photo_shards.py": "Arrow files, whose checksum was right",
    "pipeline/data/photo_decoding.py": "bytes of an image",
    "pipeline/training/step/weights_files.py": "weights that a user names, mapped into memory",
    "pipeline/runs/provenance.py": "the code itself, and Linux",
    "pipeline/runs/lease.py": "Linux",
    "jobs/execution/processors.py": "Linux",
    "jobs/execution/cluster.py": "Ray's files on its head node",
    "jobs/planning/gpu_rates.py": "a table that is packed with the code",
    "jobs/tracking/store.py": "makes a database, and reads none",
    "jobs/console/redaction.py": "/dev/null, for what nobody reads any more",
    "analysis/measured/frame_files.py": "parquet within bounds, of bytes",
    "analysis/report/artifact_provenance.py": "the code itself",
    "analysis/report/report_folder.py": "a report's own files, no link on the way",
}
"""Who opens files in any way, and which; the others ask `pipeline.storage`."""
DELETES_FILES = {
    "pipeline/storage.py": "what a storage's user names, and its own partial files",
    "pipeline/data/download.py": "its own partial file",
    "analysis/report/report_folder.py": "what is provably a report's own",
}


def called(names: set[str]) -> set[str]:
    """Our files outside benchmarks and deployment that call something of these names."""
    return {
        file
        for file, tree in SOURCES.items()
        if file.startswith(("pipeline/", "jobs/", "analysis/"))
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", getattr(node.func, "id", "")) in names
    }


def is_dotted(node: ast.AST) -> bool:
    """Whether it is a name with a dot, such as `json.loads`."""
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)


def test_json_has_one_reader() -> None:
    """`pipeline.stored_json` bounds its size and depth, whoever wrote it."""
    names = {"json.loads", "json.load", "json.JSONDecoder"}
    parsing = {
        file
        for file, tree in SOURCES.items()
        if names & {*imported(tree), *(ast.unparse(n) for n in ast.walk(tree) if is_dotted(n))}
    }
    assert {file.partition("/")[0] for file in parsing} <= {"benchmarks", "deploy"}
    pydantic = {f for f, tree in SOURCES.items() if any("pydantic" in n for n in imported(tree))}
    assert pydantic == {"pipeline/stored_json.py"}


def test_files_are_opened_and_deleted_in_few_places() -> None:
    opening = {
        "open",
        "fdopen",
        "read_text",
        "read_bytes",
        "open_file",
        "memory_map",
        "ParquetFile",
    }
    assert called(opening | {"read_table", "open_input_file"}) == set(OPENS_FILES)
    deleting = {"unlink", "rmtree", "rmdir", "delete_dir", "delete_file"}
    assert called(deleting) == set(DELETES_FILES)


def test_nothing_is_shown_or_logged_past_the_one_place_that_hides_passwords() -> None:
    """`jobs.console.redaction` stands between what we print or log and whoever reads it."""
    past = {"__stdout__", "__stderr__", "buffer", "echo", "secho"}
    past |= {"StreamHandler", "FileHandler", "basicConfig", "setLogRecordFactory", "excepthook"}
    found, printing = set(), set()
    for file, tree in SOURCES.items():
        for node in ast.walk(tree):
            called = node.func if isinstance(node, ast.Call) else None
            name = getattr(called, "attr", getattr(called, "id", ""))
            system = isinstance(called, ast.Attribute) and ast.unparse(called.value) == "os"
            if getattr(node, "attr", "") in past or (name == "write" and system):
                found.add(file)
            if name in ("Console", "RedactedConsole"):
                found.add(file)
            if name == "print":
                printing.add(file.partition("/")[0])
    assert found == {"jobs/console/redaction.py", "jobs/console/console.py"}
    # Others return what there is to say, or log it.
    assert printing <= {"jobs", "benchmarks"}


def test_every_process_hides_passwords_from_its_beginning() -> None:
    beginnings = {"jobs/cli/main.py": "main", "benchmarks/bare_job.py": "main"}
    for file, function in beginnings.items():
        (body,) = (
            ast.unparse(node)
            for node in SOURCES[file].body
            if isinstance(node, ast.FunctionDef) and node.name == function
        )
        assert "hide_secrets()" in body, f"{file}: {function}"
    # Ray is given tasks and actors, Ray Train's functions and Tune's trials by these alone.
    given = {
        "jobs/execution/cluster.py": "ray.remote(**options)(hiding_secrets(begins))",
        "jobs/execution/trainer.py": "super().__init__(hiding_secrets(train_loop_per_worker)",
        "jobs/execution/tune.py": "tune.with_parameters(hiding_secrets(_trial)",
    }
    for file, how in given.items():
        assert how in ast.unparse(SOURCES[file]), file
    assert users("jobs.console.redaction") == {*beginnings, *given}
    elsewhere = {
        file
        for file, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "ray.remote"
    }
    # Ray Train's controller hides them by its callback; the bare job knows none.
    own = {"jobs/execution/cluster.py", "jobs/execution/trainer.py", "benchmarks/bare_job.py"}
    assert elsewhere == own
    trainers = users("ray.train.v2.api.data_parallel_trainer") - {"benchmarks/bare_job.py"}
    assert trainers == {"jobs/execution/trainer.py"}


# What things are called, and how long they get.


def test_every_file_is_named_by_a_noun() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc", "shared"}
    assert not drawers & {part for file in SOURCES for part in Path(file).with_suffix("").parts}


def test_a_folder_is_one_idea_of_at_most_fifteen_modules() -> None:
    modules = (Path(file) for file in SOURCES if not file.endswith("__init__.py"))
    sizes = Counter(str(file.parent) for file in modules)
    assert not {folder: size for folder, size in sizes.items() if size > 15}


def test_a_class_name_means_one_class() -> None:
    where = defaultdict(list)
    for file, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                where[node.name].append(file)
    assert not {name: files for name, files in where.items() if len(files) > 1}


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
    tree, text = SOURCES[file], FILES[file].read_text()
    lines = code_lines(tree, text)
    assert lines <= 300, f"{file} has {lines} lines of code"
    assert ast.get_docstring(tree), f"{file} does not say what it is"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = code_lines(node, text)
            assert length <= 70, f"{file}: {node.name} has {length} lines of code"
