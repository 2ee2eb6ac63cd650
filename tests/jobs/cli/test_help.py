"""Help teaches by examples that work, shells complete names, NO_COLOR is kept, and scripts get
JSON.
"""

import json
import os
import pty
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import typer
from typer.testing import CliRunner

from jobs.cli.main import app
from pipeline.data.stored import write_dataset
from pipeline.storage import Storage
from tests.conftest import Cli
from tests.pipeline.training.small_runs import digits_once

PROGRAM = Path(sys.executable).with_name("resnet-repro")
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3|4|9|10)\d(?:;\d+)*m")
ROOT = Path(__file__).parents[3]


def commands(group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


LEAVES = dict(commands(typer.main.get_command(app)))


def examples(text: str) -> list[str]:
    return re.findall(r"`resnet-repro ([^`]+)`", text)


def parse(arguments: str) -> None:
    """Parse a command line as the program would, without carrying it out."""
    command, words = typer.main.get_command(app), shlex.split(arguments, comments=True)
    context = typer.Context(command)
    while hasattr(command, "commands"):
        name, *words = words
        command = command.get_command(context, name)
        assert command is not None, f"no command {name} in: {arguments}"
    command.make_context("example", words)
    if arguments.startswith(("submit ", "manifests ")):
        first = next(n for n, word in enumerate(words) if (word,) in LEAVES or word == "data")
        parse(shlex.join(words[first:]))


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_has_examples_that_parse(path: tuple[str, ...]) -> None:
    found = [
        example for example in examples(LEAVES[path].help) if example.startswith(" ".join(path))
    ]
    assert found
    for example in found:
        parse(example)


DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "analysis/results/README.md"]
DOCUMENTS += sorted(str(file.relative_to(ROOT)) for file in (ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^```\w*\n(.*?)^```$|((?:^ {4}.*\n)+)", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("file", DOCUMENTS)
def test_every_command_of_the_documents_parses(file: str) -> None:
    text = (ROOT / file).read_text().replace("\\\n", "")
    shown = "\n".join(fenced or indented for fenced, indented in BLOCK.findall(text))
    lines = re.findall(r"^ *(?:\S*/)?resnet-repro +(.*)$", shown, re.MULTILINE)
    named = [
        line for line in examples(text) if not re.search(r"[A-Z]{3}|^--", line)
    ]  # no placeholder in it
    for line in lines + named:
        parse(line)
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    made = re.findall(r"^make ([\w-]+)", shown, re.MULTILINE)
    made += re.findall(r"`make ([\w-]+)[^`]*`", text)
    assert set(made) <= set(targets)
    assert not re.search(r"\b(TABLE|TODO|FIXME|XXX)\b", text)


def test_commands_are_found_in_the_documents() -> None:
    """The README shows a cluster's commands in a fenced block, as the guide does."""
    shown = [block[0] for block in BLOCK.findall((ROOT / "README.md").read_text())]
    assert sum(block.count("\nresnet-repro submit") for block in shown) == 4


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("train resnet110", ["resnet110", "resnet110-nowarmup"]),
        ("grid figure", ["figure1", "figure6", "figure7", "figure4"]),
        ("grid ledg", ["ledger"]),
        ("grid figure1 --data fash", ["fashion-mnist"]),
        ("train resnet20 --data cifar", ["cifar10", "cifar100"]),
        ("data prepare cifar", ["cifar10", "cifar100"]),
        ("train resnet20 --set warmup_l", ["warmup_lr="]),
        ("experiments resnet15", ["resnet152"]),
        ("evaluate x --protocol m", ["multi_scale"]),
        ("plan table6 --gpus 8xH", ["8xH100", "8xH200"]),
        ("submit gr", ["grid"]),
        ("submit grid table6 --data fash", ["fashion-mnist"]),
        ("manifests slurm --nodes 2 data pre", ["prepare"]),
        # Of a storage, what is in it.
        ("verify --storage STORAGE resn", ["resnet20"]),
        ("evaluate --storage STORAGE resn", ["resnet20"]),
        ("verify --storage STORAGE runs/", ["runs/resnet20-0123abcd/digits-186de2c6/seed-0"]),
        ("data verify --storage STORAGE d", ["digits"]),
        ("train resnet20 --storage STORAGE --data mi", ["mine"]),
    ],
)
def test_shells_complete_names(words: str, completed: list[str], storage: Storage) -> None:
    (Path(storage.uri) / "runs/resnet20-0123abcd/digits-186de2c6/seed-0").mkdir(parents=True)
    mine = replace(digits_once(), id="0123456789abcdef")
    mine = replace(mine, spec=replace(mine.spec, name="mine"))
    write_dataset(storage, mine, {"kind": "path"})
    done = complete(words.replace("STORAGE", storage.uri))
    assert done.stdout.split() == completed, done.stderr


def complete(words: str, *program: str) -> "subprocess.CompletedProcess[str]":
    """What a shell that completes these words is told by the program, or another one.

    It is in a folder of no files, which would be completed too where an argument can be a path.
    """
    asked = {"COMP_WORDS": f"resnet-repro {words}", "COMP_CWORD": str(len(words.split()))}
    environment = os.environ | asked | {"_RESNET_REPRO_COMPLETE": "complete_bash"}
    line = program or (str(PROGRAM),)
    with tempfile.TemporaryDirectory() as nothing:
        return subprocess.run(
            line, env=environment, cwd=nothing, capture_output=True, text=True, check=False
        )


def test_shells_complete_jobs_by_asking_the_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [("grid-table6-1a2b3c4d.1", {"command": "grid table6"}), ("raysubmit_of_others", {})]
    jobs = [{"submission_id": name, "metadata": about} for name, about in known]

    class Dashboard(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            let_in = self.path == "/api/jobs/" and self.headers["Authorization"] == "Bearer word"
            self.send_response(200 if let_in else 401)
            self.end_headers()
            self.wfile.write(json.dumps(jobs).encode() if let_in else b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Dashboard) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        line = f"jobs logs --dashboard http://127.0.0.1:{server.server_port} g"
        assert complete(line).stdout.split() == []  # without the token
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN", "word")
        assert complete(line).stdout.split() == ["grid-table6-1a2b3c4d.1"]
        server.shutdown()
    assert complete(line).stdout.split() == []  # nobody is there


HEAVY = {"ray", "torch", "mlflow", "pandas", "scipy", "sklearn", "matplotlib", "jinja2"}
LOADED = """
import sys
sys.argv[0] = "resnet-repro"
try:
    from jobs.cli.main import main
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("page", [(), ("grid",), ("plan",), ("verify",), ("jobs",), ("bench",)])
def test_help_waits_for_nothing_that_is_slow_to_load(page: tuple[str, ...]) -> None:
    line = [sys.executable, "-c", LOADED, *page, "--help"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert "--help" in done.stdout
    assert {*done.stderr.split()} & (HEAVY | {"numpy", "pyarrow"}) == set()


@pytest.mark.parametrize("words", ["gr", "grid figure1 --da", "grid ta", "train x --data cif"])
def test_completion_waits_for_nothing_that_is_slow_to_load(words: str) -> None:
    done = complete(words, sys.executable, "-c", LOADED)
    assert done.stdout.split()[0].startswith(words.split()[-1])
    assert {*done.stderr.split()} & HEAVY == set()


def pages() -> dict[str, str]:
    """The page of help of every command and group, as it is shown."""
    runner = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1"})
    paths = {(), *LEAVES, *(path[:end] for path in LEAVES for end in range(1, len(path)))}
    return {
        " ".join(path): runner.invoke(app, [*path, "--help"], prog_name="resnet-repro").output
        for path in sorted(paths)
    }


def test_pages_of_help_show_what_is_typed_and_group_it() -> None:
    shown = pages()
    assert len(shown) > 40 and all("Usage: resnet-repro" in page for page in shown.values())
    # No names of Python's types, and no bounds that only bound memory.
    types = r"<(bool|int|float|str|path|list|int range|float range)\b|<=x|x<=|x>="
    assert {name for name, page in shown.items() if re.search(types, page)} == set()
    # No command stands without its purpose.
    assert "─ Commands ─" not in shown[""]
    for purpose in ("What there is to train", "Train", "Results", "Runs and storage", "Clusters"):
        assert f"─ {purpose} ─" in shown[""]
    # What most are given without stands below what is needed.
    grid = shown["grid"]
    assert grid.index("--dry-run") < grid.index("Workers and hardware") < grid.index("--workers")
    assert "sweeps" in grid and "sweeps" not in shown["train"] + shown["evaluate"]


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """What the program writes to a terminal."""
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    process = subprocess.Popen(
        [PROGRAM, *arguments], stdout=theirs, env=kept | {"TERM": "xterm-256color"} | environment
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
    os.close(ours)
    process.wait()
    return seen.decode()


def test_no_color_is_kept() -> None:
    assert COLOUR.search(on_a_terminal("--help"))
    assert not COLOUR.search(on_a_terminal("--help", NO_COLOR="1"))


@pytest.mark.parametrize(
    "command", [("experiments",), ("grids",), ("status",), ("data", "list")], ids=" ".join
)
def test_scripts_get_json(command: tuple[str, ...], cli: Cli, tmp_path: Path) -> None:
    storage = () if command[0] in ("experiments", "grids") else ("--storage", tmp_path)
    done = cli(*command, "--json", *storage)
    assert isinstance(json.loads(done.stdout), list) and done.returncode == 0


def test_the_version_tells_builds_apart(cli: Cli) -> None:
    done = cli("--version")
    build = r"resnet-repro \d+\.\d+\.\d+ \(commit ([0-9a-f]{12}|unknown)(, with changes)?\)\n"
    assert done.returncode == 0 and re.fullmatch(build, done.stdout)
