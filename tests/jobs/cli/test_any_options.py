"""Whatever options are given: a command ends with a code of ours, and a mistake in one line.

Commands that end before anything is started, in this process, with values that others have come to
grief over. More of them: `RESNET_REPRO_FUZZ=2000 pytest tests/jobs/cli/test_any_options.py`.
"""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from time import monotonic

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.cli.main import main
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
    "--workers": st.one_of(TEXTS, st.builds("{}:{}".format, NUMBERS, NUMBERS)),
    "--data": TEXTS,
    "--device": TEXTS,
    "--tracking": st.one_of(TEXTS, st.builds("{}://{}".format, TEXTS, TEXTS)),
    "--storage": st.sampled_from(["", "/dev/null", "~nouser", "s3://", "a" * 5000, "ftp://x", "."]),
    "--set": SETTINGS,
}
COMMANDS = {
    "train resnet20 --dry-run": (
        "--seed --iterations --threads --workers --data --device --tracking --set "
        "--checkpoint-seconds --storage --gpus"
    ),
    "grid resnet20 --dry-run": (
        "--seeds --iterations --workers --data --set --gpus --runs-per-gpu --tracking"
    ),
    "plan resnet20 --gpus 8xH100": (
        "--seeds --iterations --set --price --budget --workers --runs-per-gpu --gpus --data "
        "--probe-seconds"
    ),
    "experiments": "--json",
    "status": "--storage",
    "report": "--seeds --storage --tracking",
}


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with up to three options, of which some are wrong."""
    command = draw(st.sampled_from(list(COMMANDS)))
    words = command.split()
    for option in draw(st.lists(st.sampled_from(COMMANDS[command].split()), max_size=3)):
        words += [option, draw(VALUES.get(option, TEXTS))]
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


@settings(
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(words=command_lines())
def test_any_options_end_with_a_code_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    begun = monotonic()
    code, _, said = outcome(words)
    assert code in (0, 1, 2) and "Traceback" not in said
    assert code != 2 or (said.startswith("error: ") and len(said.splitlines()) == 1), said
    assert monotonic() - begun < 20
