"""Commands that are killed where they change files: given again they end as if nothing had been.

What was half written is taken for nothing, and of what a killed command left behind in the storage
`clean` finds all.
"""

import os
import re
import shutil
from collections.abc import Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path

import pytest

from jobs.tracking.other_publications import publish_stored
from pipeline.data.stored import write_dataset
from pipeline.runs.execution import Execution
from pipeline.runs.run import start_run
from pipeline.storage import Storage
from pipeline.training.loop import train
from pipeline.training.step.process_group import single_process
from tests.chaos.images import write_images
from tests.conftest import Cli
from tests.killed import watch
from tests.pipeline.training.small_runs import digits_once, small_run

Files = dict[str, str]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, cli: Cli) -> Path:
    """A folder whose storage has a finished run with all of its checkpoints; a bundle of it; a
    report; and images to prepare. Beside it lies a copy, from which it is made anew.
    """
    place = tmp_path_factory.mktemp("killed") / "place"
    storage = Storage(str(place / "s"))
    write_dataset(storage, digits_once(), {"kind": "embedded"})
    start_run(storage, small_run(), 1)
    train(small_run(), digits_once(), storage, single_process(), Execution(checkpoint_seconds=0))
    publish_stored(f"sqlite:///{place}/s/mlflow.db", storage, lambda _: None)
    write_images(place / "images")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(place)
        for words in (COMMANDS["export"].replace("mine", "theirs"), COMMANDS["report"]):
            made = cli(*words.split())
            assert made.returncode == 0, made.stderr
    (place / "report").rename(place / "audited")
    shutil.copytree(place, place.parent / "copy")
    return place


def anew(place: Path) -> None:
    """Bring the folder back to where it began."""
    for inside in place.iterdir():
        shutil.rmtree(inside) if inside.is_dir() else inside.unlink()
    shutil.copytree(place.parent / "copy", place, dirs_exist_ok=True)


COMMANDS = {
    "prepare": "data prepare mine --from images --storage s",
    "export": "results export mine.zip --storage s --weights",
    "import": "results import theirs.zip --storage s",
    "report": "report --storage s --out report",
    "clean": "clean --yes --storage s",
    "evaluate": "evaluate RUN --storage s --workers 1",
    "audit": "audit audited",
}


def files_of(place: Path) -> Files:
    """Every file below a folder with its content, as far as that is not the hour's."""
    files = {}
    for path in sorted(place.rglob("*")):
        name = re.sub("[0-9a-f]{32}(?!/images)", "ID", str(path.relative_to(place)))
        if path.is_file() and not re.search(r"mlflow\.db|meta\.yaml", name):
            files[name] = blake2b(path.read_bytes()).hexdigest()
    return files


def stale(files: Files) -> list[str]:
    """What only commands that still run may have."""
    return [name for name in files if "partial" in name or "/." in name or name.startswith(".")]


def assert_cleaned(cli: Cli, place: Path, before: Files) -> None:
    """A day later, `clean` deletes what a killed command left, and nothing else but checkpoints."""
    assert cli("clean", "--yes", "--storage", "s").returncode == 0
    assert stale(files_of(place)) == stale(before)  # one that still runs may write them
    for path in (place / "s").rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    cleaned = cli("clean", "--yes", "--storage", "s")
    assert cleaned.returncode == 0, cleaned.stderr
    left = files_of(place)
    assert not stale(left)
    gone = before.keys() - left.keys() - {*stale(before)}
    assert all("/checkpoints/" in name for name in gone), gone


def moments(count: int, thorough: bool) -> Sequence[int]:
    """At which changes a command is killed: one in the middle and the one before the last, or up to
    a dozen.
    """
    if thorough:
        return range(1, count + 1, 1 + count // 12)
    return sorted({count // 2, count - 1} & set(range(1, count + 1)))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "thorough", [False, pytest.param(True, marks=[pytest.mark.slow, pytest.mark.long])]
)
def test_a_killed_command_is_given_again(
    cli: Cli, kept: Path, monkeypatch: pytest.MonkeyPatch, command: str, thorough: bool
) -> None:
    anew(kept)
    monkeypatch.chdir(kept)
    (run,) = (kept / "s").glob("runs/*/*/seed-0")
    words = COMMANDS[command].replace("RUN", str(run.relative_to(kept))).split()
    counted = kept.parent / "counted"
    undisturbed = cli(*words, first=partial(watch, kept, 0, counted))
    assert undisturbed.returncode == 0, undisturbed.stderr
    whole, count = files_of(kept), int(counted.read_text() or 0)
    assert not stale(whole)
    # These two change nothing that is looked at.
    assert count > 1 or command in ("audit", "evaluate")
    for moment in moments(count, thorough):
        anew(kept)
        died = cli(*words, first=partial(watch, kept, moment, counted))
        assert died.returncode == -9, (moment, died.returncode, died.stderr)
        # Others find their way meanwhile.
        for others in ("status --storage s", "data list --storage s"):
            assert cli(*others.split()).returncode == 0
        again = cli(*words)
        assert again.returncode == 0, (moment, again.stderr)
        left = files_of(kept)
        assert {name: left.get(name) for name in whole} == whole, moment
        if stale(left):
            assert_cleaned(cli, kept, left)
