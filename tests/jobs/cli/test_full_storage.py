"""A storage that is full, read-only or away ends a command in one line, and nothing is half there.

Real small file systems, where this user may mount one.
"""

import errno
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

from jobs.requests.storage_failures import failures_in_one_line
from jobs.tracking import server_check
from jobs.tracking.other_publications import publish_stored
from pipeline.data.datasets import Dataset
from pipeline.data.stored import write_dataset
from pipeline.errors import InputError
from pipeline.recipe.metrics import TEST_ERR
from pipeline.runs.checkpoint import Checkpoint, save_checkpoint
from pipeline.runs.history import History
from pipeline.runs.run import start_run, write_result
from pipeline.storage import Storage
from tests.conftest import Cli
from tests.pipeline.training.small_runs import small_run

Disk = Callable[[str], Path]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Mounts a file system in memory with these options; `ro` makes what lies there read-only."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        commands = [["mount", "-t", "tmpfs", "-o", options, "none", str(place)]]
        if options == "ro":  # what lies there, through a mount that only reads
            commands = [["mount", "--bind", str(place), str(place)]]
            commands.append(["mount", "-o", "remount,bind,ro", str(place)])
        try:
            for command in commands:
                subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("this user may not mount file systems")
        return place

    yield mount
    subprocess.run(["umount", "--lazy", str(place)], capture_output=True, check=False)


def only_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line in which a command says why it failed."""
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    return lines[0]


@pytest.mark.parametrize("options", ["size=1m", "size=64m,nr_inodes=3"])
def test_a_dataset_that_has_no_room_leaves_nothing_behind(
    cli: Cli, disk: Disk, options: str
) -> None:
    place = disk(options)
    done = cli("data", "prepare", "digits", "--storage", place)
    assert done.returncode == 1 and "No space left on device; make room" in only_line(done)
    assert [path for path in place.rglob("*") if path.is_file()] == []


def test_reading_a_read_only_storage_is_enough_for_reports_and_exports(
    cli: Cli, disk: Disk, tmp_path: Path, digits_dataset: Dataset
) -> None:
    place, run = tmp_path / "disk", small_run(0)
    storage = Storage(str(place))
    write_dataset(storage, digits_dataset, {"kind": "embedded"})
    start_run(storage, run, 1)
    for iteration in (29, 30):
        history = History(iteration=iteration, attempts=[{"threads": 1, "world_size": 1}])
        history.record({TEST_ERR: 50.0}, time_ms=1)
        save_checkpoint(storage, run, Checkpoint(iteration, {"history.json": history.to_json()}))
    write_result(storage, run, "finished", {"iterations": 30, "final": {TEST_ERR: 50.0}})
    publish_stored(f"sqlite:///{place}/mlflow.db", storage, print)
    before = sorted(place.rglob("*"))
    disk("ro")

    exported = cli("results", "export", tmp_path / "mine.zip", "--storage", place)
    assert exported.returncode == 0, exported.stderr
    reported = cli("report", "--storage", place, "--out", tmp_path / "report")
    assert reported.returncode == 0 and (tmp_path / "report" / "index.html").exists()
    # What writes into it says in one line that it cannot.
    for words in (["clean", "--yes"], ["report"], ["data", "prepare", "digits"]):
        done = cli(*words, "--storage", place)
        assert done.returncode in (1, 2) and "ead-only file system" in only_line(done), words
    assert sorted(place.rglob("*")) == before


def test_an_export_that_has_no_room_leaves_nothing_behind(
    cli: Cli, disk: Disk, storage: Storage
) -> None:
    place = disk("size=4k")
    start_run(storage, small_run(0), 1)
    history = History(iteration=30, attempts=[{}])
    save_checkpoint(storage, small_run(0), Checkpoint(30, {"history.json": history.to_json()}))
    publish_stored(f"sqlite:///{storage.local}/mlflow.db", storage, print)
    done = cli("results", "export", place / "mine.zip", "--storage", storage.uri)
    assert done.returncode == 2 and "No space left on device" in only_line(done)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "df -i"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "writable"),
        (errno.EACCES, "right"),
        (errno.ESTALE, "reached"),
    ],
)
def test_each_failure_has_a_remedy(
    code: int, remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, failures_in_one_line("/somewhere"):
        raise OSError(code, os.strerror(code), "file")
    said = capsys.readouterr().err
    assert ended.value.code == 1 and remedy in said and said.count("\n") == 1
    with pytest.raises(BrokenPipeError), failures_in_one_line("/somewhere"):
        raise BrokenPipeError(errno.EPIPE, "nobody reads")


def test_a_database_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_check, "PATIENCE_SECONDS", 2.0)
    started = monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"postgresql://joe:pa55@127.0.0.1:{silent.getsockname()[1]}/db"
        with pytest.raises(InputError, match=r"does not let us in .*timeout") as error:
            server_check.check_database(address)
    assert monotonic() - started < 20 and "pa55" not in str(error.value)
    assert "\n" not in str(error.value)
    server_check.check_database("sqlite:////nowhere/at/all.db")
