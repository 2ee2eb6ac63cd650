"""Whatever options are given: a command ends with a code of ours, and a mistake in one line.

Commands that end before anything is started, in this process, with values that others have come to
grief over.
"""

import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from time import process_time
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from jobs.cli.main import app, main
from pipeline.runs.provenance import source_commit
from tests.conftest import examples

NUMBERS = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["0", "-1", "1e999", "nan", "2**3", "1_0", "٣", "4294967296", "9" * 5000]),
)
GRIEVOUS = """~nouser/x /dev/null /dev/null/x s3:// :// file:// http://[ [bold]x[/red] %s {x} = =,;
.. none \\ digits"""
TEXTS = st.one_of(
    NUMBERS,
    st.text(max_size=20),
    st.sampled_from([*GRIEVOUS.split(), "", " ", "a" * 5000, "x\udcff"]),
    # And what is right in some place, so that the next mistake is reached.
    st.sampled_from(["digits", "cpu", "resnet20", "demo", "depth=8", "all", "sqlite:///x", "/tmp"]),
)
FIELDS = st.sampled_from(
    [
        "lr",
        "depth",
        "iterations",
        "lr_drops",
        "eval_every",
        "bn_group",
        "global_batch_size",
        "scale",
        "holdout",
        "test_sides",
        "precision",
        "shortcut",
        "warmup_lr",
        "block",
        "crop",
        "statistics_images",
        "protocols",
        "momentum",
    ]
)
SETTINGS = st.one_of(TEXTS, st.builds("{}={}".format, FIELDS, TEXTS))
VALUES = {
    "--seeds": NUMBERS,
    "--seed": NUMBERS,
    "--iterations": NUMBERS,
    "--threads": NUMBERS,
    # A number alone would ask `plan` to measure.
    "--gpus": st.builds("{}x{}".format, NUMBERS, TEXTS),
    "--runs-per-gpu": NUMBERS,
    "--price": NUMBERS,
    "--budget": NUMBERS,
    "--checkpoint-seconds": NUMBERS,
    "--probe-seconds": NUMBERS,
    "--keep": st.sampled_from(["name", "=1+1", "<b>", "a" * 5000]),
    "--workers": st.one_of(TEXTS, st.builds("{}:{}".format, NUMBERS, NUMBERS)),
    "--data": TEXTS,
    "--device": TEXTS,
    "--tracking": st.one_of(TEXTS, st.builds("{}://{}".format, TEXTS, TEXTS)),
    "--storage": st.sampled_from(
        ["s", "", "/dev/null", "~nouser", "s3://", "a" * 5000, "ftp://x", "."]
    ),
    "--set": SETTINGS,
}
WORDS = {
    "train": "resnet20",
    "grid": "resnet20",
    # What it measures starts Ray; by another GPU's rates it only computes.
    "plan": "demo --gpus 8xH100",
    "audit": "report",
    "evaluate": "weights.safetensors",
    "predict": "a.png --model weights.safetensors",
    "verify": "runs/1",
    "submit": "train resnet20",
    "manifests": "train resnet20",
    "jobs logs": "id",
    "jobs stop": "id",
    "data prepare": "mine",
    "data verify": "digits",
    "results export": "mine.zip",
    "results import": "theirs.zip",
    "results weights": "resnet20",
}
"""What a command is told before its options."""


def options_of(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, bool]]]:
    """Every command with its options, and whether they are flags; benchmarks measure, and more."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from options_of(command, (*path, name)) if name != "bench" else ()
            continue
        options = {each.opts[0]: each for each in command.params if each.opts[0].startswith("-")}
        flags = {name: bool(each.is_flag) for name, each in options.items()}
        yield " ".join((*path, name)), flags


COMMANDS = dict(options_of(typer.main.get_command(app)))


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with up to three options, of which some are wrong."""
    command = draw(st.sampled_from(list(COMMANDS)))
    words = f"{command} {WORDS.get(command, '')}".split()
    for option in draw(st.lists(st.sampled_from(list(COMMANDS[command]) or [""]), max_size=4)):
        flag = COMMANDS[command].get(option, True)
        words += [option] * bool(option) + ([] if flag else [draw(VALUES.get(option, TEXTS))])
    return words


def outcome(words: list[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command in this process."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["resnet-repro", *words]
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = before
    return int(ended.value.code or 0), out.getvalue(), err.getvalue()


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Ray, no server, no network and no editor: whatever needs one is refused."""

    def refuse(*_: object, **__: object) -> Any:
        raise ConnectionError("nothing is started here")

    source_commit()  # kept by the process: asked before git is out of reach
    for place in ("ray.init", "socket.create_connection", "socket.getaddrinfo"):
        monkeypatch.setattr(place, refuse)
    ended = subprocess.CompletedProcess([], 1, "", "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)


@settings(
    max_examples=examples(12),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(words=command_lines())
def test_any_options_end_with_a_code_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_starts: None, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    begun = process_time()
    code, _, said = outcome(words)
    event(f"{words[0]}: {code}")
    assert code in (0, 1, 2) and "Traceback" not in said
    assert code != 2 or (said.startswith("error: ") and len(said.splitlines()) == 1), said
    assert process_time() - begun < 20
