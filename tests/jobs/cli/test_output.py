"""What commands print is whole on a terminal and in a pipe, in any locale, while somebody reads."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from jobs.cli import main
from jobs.console.redaction import READER_GONE
from pipeline.runs.run import stored_runs
from pipeline.storage import Storage
from tests.conftest import Cli

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Pipe(io.StringIO):
    pass


def printed(words: list[str], onto: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a command prints in this process."""
    monkeypatch.setattr(sys, "argv", ["resnet-repro", *words])
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    with redirect_stdout(onto), pytest.raises(SystemExit) as ended:
        main.main()
    assert not ended.value.code
    return onto.getvalue()


def values_of_experiments(facts: list[dict[str, object]]) -> set[str]:
    return {str(row["name"]) for row in facts} | {f"{row['iterations']:,}" for row in facts}


def values_of_grids(facts: list[dict[str, object]]) -> set[str]:
    return {str(row["name"]) for row in facts} | {"resnet1202", "resnet34-a"}


def values_of_data(facts: list[dict[str, object]]) -> set[str]:
    return {str(row["id"]) for row in facts if row["prepared"]} | {"fashion-mnist", "1,437"}


def values_of_plan(facts: list[dict[str, object]]) -> set[str]:
    (made,) = facts
    order = made["order"]
    assert isinstance(order, list)
    return {trial["known_by"] for trial in order} | {"resnet1202", "A100-hours"}


TABLES: dict[str, Callable[[list[dict[str, object]]], set[str]]] = {
    "experiments": values_of_experiments,
    "grids": values_of_grids,
    "data list": values_of_data,
    "plan table6 --data cifar10 --seeds 5 --gpus 8xA100 --price 2": values_of_plan,
}


@pytest.mark.parametrize("line", TABLES)
def test_tables_have_every_value_whole(
    line: str, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = line.split()
    if words[0] in ("data", "plan"):
        words += ["--storage", storage.uri]
    values = TABLES[line](json.loads(printed([*words, "--json"], Pipe(), monkeypatch)))
    for onto in (Terminal(), Pipe()):
        text = printed(words, onto, monkeypatch)
        assert "…" not in text
        assert not [value for value in values if value not in text]
        if isinstance(onto, Terminal) and words[0] != "plan":
            table, _, _ = text.partition("not prepared:")
            assert max(map(len, table.splitlines())) <= 80


def test_dry_runs_have_fingerprints_and_changes_whole(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "grid",
        "paper",
        "--dry-run",
        "--set",
        "lr=0.05,0.1",
        "--set",
        "weight_decay_scope=all",
    ]
    for onto in (Terminal(), Pipe()):
        text = printed([*words, "--storage", storage.uri], onto, monkeypatch)
        assert "…" not in text and "resnet110-nowarmup" in text
        assert "lr=0.05" in " ".join(text.split()) and not stored_runs(storage)


def begun(words: str, stdout: int, **environment: str) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "jobs.cli", *words.split()]
    return subprocess.Popen(
        line, stdout=stdout, stderr=subprocess.PIPE, env=os.environ | environment
    )


def test_a_locale_without_our_letters_gets_others(tmp_path: Path) -> None:
    lines = ("experiments", "train --help", "status --storage .", "data prepare x --from no→where")
    processes = [begun(line, subprocess.PIPE, **ASCII) for line in lines]
    table, usage, _, refused = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 2]
    assert b"+---" in table[0] and b"resnet110-nowarmup" in table[0] and b"--seed" in usage[0]
    assert refused[1].startswith(b"error: ") and len(refused[1].splitlines()) == 1
    assert not [said for out, said in (table, usage, refused) if b"Traceback" in out + said]


def test_who_stops_reading_ends_any_command_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    lines = ("experiments", "grids --json", "--help", "jobs", "plan demo --gpus 1xA100")
    processes = [begun(line, writing) for line in lines]
    os.close(writing)
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [READER_GONE] * len(lines), said
    assert said == [b""] * len(lines)


@pytest.mark.slow
@pytest.mark.ray
def test_a_run_that_nobody_watches_any_more_is_given_back(cli: Cli, tmp_path: Path) -> None:
    words = "train resnet20 --data digits --set depth=8 --set eval_every=8 --threads 1 --iterations"
    reading, writing = os.pipe()
    process = begun(f"{words} 3000 --checkpoint-seconds 1 --storage {tmp_path}", writing)
    os.close(writing)
    with open(reading, "rb") as output:
        assert output.readline().startswith(b"training resnet20")
    _, said = process.communicate(timeout=120)
    assert process.returncode == READER_GONE and b"Traceback" not in said, said
    assert not list(tmp_path.rglob("lease.json"))


def test_a_tilde_is_the_users_home_wherever_an_option_has_it(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    home = f"{tmp_path}/x"
    line = ["report", "--from=~/x", "--storage=~/x", "--data", "~/x", "lr=~/x", "--set=a=~/x"]
    expanded = ["report", f"--from={home}", f"--storage={home}", "--data", home]
    assert main._at_home(line) == [*expanded, "lr=~/x", "--set=a=~/x"]
    # There it is another's home.
    assert main._at_home(there := ["submit", "train", "--storage=~/x"]) == there
    refused = cli("data", "prepare", "mine", "--from=~/nothing", "--storage=~/s")
    assert refused.returncode == 2 and f"{tmp_path}/nothing" in refused.stderr
    assert (tmp_path / "s").is_dir()
