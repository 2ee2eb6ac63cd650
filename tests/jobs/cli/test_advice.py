"""Messages advise only what can be given: an option of the command that prints them.

Which command may print a message is read from the source: the functions, classes and constants that
its function refers to, and those that they refer to.
"""

import ast
import re
from collections.abc import Iterator

import pytest
import typer

from jobs.cli.main import TAKE_A_COMMAND
from jobs.requests.submitted_commands import SENT
from tests.jobs.cli.test_help import LEAVES
from tests.test_boundaries import SOURCES

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
ELSEWHERE = "|".join(sorted({path[-1] for path in LEAVES}))
QUOTED = re.compile(
    rf"`[^`]*`|resnet-repro [^`]*$|\b(?:{ELSEWHERE}|docker run|git config) --[a-z-]+"
)
"""What names the program or the command that the options are of."""

OTHERS = {
    "--num-gpus",
    "--shm-size",
    "--constraint",
    "--editable",
    "--allowed-hosts",
    "--add",
    "--qos",
}
"""Of `ray start`, containers, pip, MLflow's server, git and sbatch, as the messages say."""

UNREACHED = {
    "jobs.cli.submit._living": "asks a storage and keeps what it is refused",
    "pipeline.storage.Storage": "the same, for `jobs status`",
    "jobs.execution.processors.compiler_missing": "where --compile was given",
    "pipeline.recipe.overrides.experiment_named": "where --iterations was given",
    "pipeline.training.attempts.record_attempt": "where a stored run is continued",
    "pipeline.data.preparation.prepare_path": "--data was looked for before",
    "pipeline.data.preparation._read": "where a name was given beside --from",
    "pipeline.runs.model_card.model_card": "is a page about a network, not a message",
    "pipeline.runs.model_card.settings_of": "the same",
    "pipeline.training.step.foreign_weights._fitted": "where --padding was given",
    "pipeline.training.step.foreign_weights._unsaid": "of files that do not say what they are",
    "jobs.cli.verify._unprovable": "says how the run was made",
}
"""Functions with an option that some of the commands lack, and why those do not get there."""
ARRIVES = re.compile(
    r"pipeline\.data\.(catalogue|download|preparation\.(resolve_dataset|how_to_bring))"
)
"""How a dataset comes: said beside `resnet-repro data prepare`, whose options they are."""

Definitions = dict[str, tuple[str, ast.AST]]


def definitions() -> tuple[Definitions, dict[str, dict[str, str]]]:
    """By full name, the module and the tree of each function, class and constant; and imports."""
    found: Definitions = {}
    imports: dict[str, dict[str, str]] = {}
    for file, tree in SOURCES.items():
        module = file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        imports[module] = {
            alias.asname or alias.name: f"{node.module}.{alias.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        for node in tree.body:
            names = [target for target in getattr(node, "targets", [getattr(node, "target", None)])]
            names = [getattr(node, "name", ""), *(getattr(name, "id", "") for name in names)]
            found |= {f"{module}.{name}": (module, node) for name in names if name}
    return found, imports


FOUND, IMPORTS = definitions()


def referred(module: str, node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield IMPORTS[module].get(inner.id, f"{module}.{inner.id}")
        elif isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name):
            yield f"{IMPORTS[module].get(inner.value.id, '')}.{inner.attr}"


def reached(start: str) -> set[str]:
    seen: set[str] = set()
    left = [start]
    while left:
        name = left.pop()
        if name in FOUND and name not in seen:
            seen.add(name)
            left += referred(*FOUND[name])
    return seen


def messages(node: ast.AST) -> Iterator[str]:
    """Texts in the code that are no docstrings, with those that are joined as one."""
    skipped = {
        id(inner.value)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Constant)
    }
    for inner in ast.walk(node):
        if isinstance(inner, ast.JoinedStr):
            skipped |= {id(value) for value in inner.values}
            yield "".join(str(getattr(value, "value", "")) if isinstance(value, ast.Constant)
                          else "X" for value in inner.values)  # fmt: skip
        elif id(inner) not in skipped and isinstance(getattr(inner, "value", None), str):
            yield inner.value


def advised(name: str) -> Iterator[str]:
    """The options that a definition's messages name as those of the command that is running."""
    if name.startswith("jobs.requests.options.") and name.endswith("Option"):
        return  # an option itself, with its help
    for text in messages(FOUND[name][1]):
        # An option alone is part of a command line, not of a message.
        if not re.fullmatch(r"--[\w-]+(=\S*)?", text):
            yield from set(OPTION.findall(QUOTED.sub("", text))) - OTHERS


@pytest.mark.parametrize("path", [path for path in LEAVES if path[0] != "bench"], ids=" ".join)
def test_options_in_messages_are_the_commands_own(path: tuple[str, ...]) -> None:
    def options(command: typer.main.TyperCommand) -> set[str]:
        return {option for each in command.params for option in (*each.opts, *each.secondary_opts)}

    known = options(LEAVES[path])
    if path[0] in TAKE_A_COMMAND:
        known = known.union(*(options(LEAVES[each]) for each in LEAVES if each[0] in SENT))
        known.add("--need")
    callback = LEAVES[path].callback
    names = reached(f"{callback.__module__}.{callback.__name__}")
    assert len(names) > 1
    wrong = {
        f"{name}: {option}"
        for name in names
        if name not in UNREACHED and not ARRIVES.match(name)
        for option in advised(name)
        if option not in known
    }
    assert not wrong, wrong


def test_the_source_is_read_as_it_is_meant() -> None:
    reach = reached("jobs.cli.evaluate.evaluate")
    assert {"jobs.requests.stored_runs.stored_run_named", "pipeline.storage.Storage"} <= reach
    tree = ast.parse('raise InputError(f"{x}: say --seed or `resnet-repro a --b`; " "--cc")')
    (text,) = messages(tree)
    assert text == "X: say --seed or `resnet-repro a --b`; --cc"
    assert OPTION.findall(QUOTED.sub("", text)) == ["--seed", "--cc"]
    assert not set(UNREACHED) - set(FOUND)
