"""Whatever lies in a storage: commands that list it name what is damaged, and show the rest."""

import contextlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.cli.data import data_list
from jobs.cli.status import clean, status
from jobs.planning.rates import earlier
from pipeline.data.datasets import Dataset
from pipeline.data.stored import find_stored, write_dataset
from pipeline.errors import InputError
from pipeline.recipe.metrics import TEST_ERR
from pipeline.runs.checkpoint import Checkpoint, folder, newest_checkpoint, save_checkpoint
from pipeline.runs.execution import Execution
from pipeline.runs.history import History
from pipeline.runs.lease import Lease, is_alive
from pipeline.runs.run import (
    Run,
    check_run,
    read_heartbeat,
    read_result,
    start_run,
    stored_runs,
    write_heartbeat,
    write_result,
)
from pipeline.storage import Storage
from tests.conftest import examples
from tests.pipeline.training.small_runs import small_run

RUN, OTHER = small_run(0), small_run(1)
LAST = RUN.experiment.iterations
FILES = {
    name: f"{RUN.folder}/{name}"
    for name in ("run.json", "result.json", "progress.json", "lease.json", "asked.json")
} | {
    "history.json": f"{folder(RUN, LAST)}/history.json",
    "checkpoint": f"{folder(RUN, LAST)}/manifest.json",
    "dataset": f"datasets/{RUN.dataset_id}/manifest.json",
}
DEEP = b"[" * 100_000 + b"]" * 100_000


def fill(storage: Storage, dataset: Dataset) -> None:
    """Two finished runs, one checkpoint of each spare, and the dataset."""
    write_dataset(storage, dataset, {"kind": "embedded"})
    for run in (RUN, OTHER):
        start_run(storage, run, 1)
        write_heartbeat(storage, run, LAST, 100.0, 1)
        storage.write(f"{run.folder}/asked.json", b"{}")
        storage.write(
            f"{run.folder}/lease.json", json.dumps(Lease(storage, run)._lease | {"pid": 1}).encode()
        )
        for iteration in (LAST - 1, LAST):
            history = History(iteration=iteration)
            history.record({TEST_ERR: 50.0}, time_ms=1)
            save_checkpoint(
                storage, run, Checkpoint(iteration, {"history.json": history.to_json()})
            )
        write_result(storage, run, "finished", {"iterations": LAST, "final": {TEST_ERR: 50.0}})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, digits_dataset: Dataset) -> Storage:
    """A storage for many tests, each of which copies it, or puts back what it changes."""
    storage = Storage(str(tmp_path_factory.mktemp("storage")))
    fill(storage, digits_dataset)
    return storage


@pytest.fixture
def filled(place: Storage, tmp_path: Path) -> Storage:
    """A copy of it."""
    shutil.copytree(place.path(""), tmp_path / "copy")
    return Storage(str(tmp_path / "copy"))


STRAY = ["", "runs", "runs/x", "runs/x/y", "datasets", "verify", "ray", "plans",
         RUN.folder, f"{RUN.folder}/checkpoints", f"datasets/{RUN.dataset_id}"]  # fmt: skip


def test_stray_files_are_passed_over_and_stay(
    filled: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    stray = [f"{place}/.DS_Store" for place in STRAY]
    stray += [f"{place}/x.txt" for place in STRAY if not place.endswith("checkpoints")]
    for name in stray:
        filled.write(name, b"")
    # Whoever opened one of these would wait for ever.
    pipes = [f"{place}/{name}" for place in STRAY[1:8] for name in ("pipe", "seed-7", "run.json")]
    for name in pipes:
        os.mkfifo(filled.path(name))
    stray += pipes
    status(filled.uri)
    clean(filled.uri, yes=True)
    data_list(filled.uri)
    assert capsys.readouterr().err == ""
    assert all(filled.exists(name) for name in stray)
    assert stored_runs(filled) == [RUN, OTHER]


def put(storage: Storage, path: str, what: bytes | str) -> None:
    """Replace a file by others bytes, a pipe, a folder, or a folder above it by a file."""
    full = Path(storage.path(path))
    if what == "file above":
        shutil.rmtree(full.parent)
        full.parent.write_bytes(b"")
        return
    full.unlink()
    if what == "pipe":
        os.mkfifo(full)
    elif what == "folder":
        full.mkdir()
    elif isinstance(what, bytes):
        full.write_bytes(what)


@pytest.mark.parametrize("what", [b"", b"3", b"NaN", b"{}", DEEP, "pipe", "folder", "file above"])
@pytest.mark.parametrize("name", FILES)
def test_one_damaged_file_does_not_hide_the_others(
    filled: Storage, name: str, what: bytes | str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(filled, FILES[name], what)
    status(filled.uri)
    shown = capsys.readouterr()
    assert "  seed 1    finished" in shown.out
    # Without these nothing can be said of a run; the others are signs of life, or spare.
    named = name in ("run.json", "result.json", "history.json") and what != "file above"
    lines = shown.err.splitlines()
    assert len(lines) == named and all(line.startswith("damaged: ") for line in lines)
    assert not named or FILES[name].removesuffix("/run.json") in lines[0] or str(RUN) in lines[0]
    # What cannot be said of a dataset hides none, and a run that cannot be read loses nothing.
    clean(filled.uri, yes=True)
    data_list(filled.uri)
    if named and name != "history.json":
        assert FILES[name] in capsys.readouterr().err
        assert filled.names(f"{RUN.folder}/checkpoints") == ["00000029", "00000030"]
    assert filled.names(f"{OTHER.folder}/checkpoints") == ["00000030"]
    earlier(filled, stored_runs(filled), Execution(), "")


def test_a_dataset_whose_manifest_has_no_id_is_named(
    filled: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads(filled.read(FILES["dataset"]))
    for changed in (
        {key: value for key, value in manifest.items() if key != "id"},
        manifest | {"id": "../../elsewhere"},
        manifest | {"row": manifest["row"] | {"side": "large"}},
        manifest | {"row": manifest["row"] | {"unknown": 1}},
    ):
        filled.write(FILES["dataset"], json.dumps(changed).encode())
        data_list(filled.uri)
        assert "damaged: " in capsys.readouterr().err
        assert find_stored(filled, "digits") is None


# Arbitrary values in the place of any that a file of ours has.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    | st.sampled_from([-1, 0, 10**400, 2**63, 1e308, "\ud800", "../x", "\x1b[2J"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """Bytes, JSON, or good JSON in which one value somewhere is another, or is missing."""
    if draw(st.integers(0, 5)) == 0:
        return draw(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
    whole = inner = json.loads(good)
    while True:
        keys = list(inner if isinstance(inner, dict) else range(len(inner)))
        if not keys:
            return json.dumps(whole).encode()
        key = draw(st.sampled_from(keys))
        if isinstance(inner[key], dict | list) and draw(st.booleans()):
            inner = inner[key]
        else:
            break
    if draw(st.integers(0, 3)) == 0:
        del inner[key]
    else:
        inner[key] = draw(JSON)
    return json.dumps(whole).encode()


def read_all(storage: Storage, run: Run) -> None:
    """Every reader of a run's folder; what it refuses is refused in one line."""
    readers: list[Any] = [check_run, read_result, read_heartbeat, is_alive, newest_checkpoint]
    for reader in readers:
        try:
            reader(storage, run)
        except InputError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("name", FILES)
@settings(
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_any_content_is_a_value_or_refused(place: Storage, name: str, data: st.DataObject) -> None:
    full = Path(place.path(FILES[name]))
    good = full.read_bytes()
    full.write_bytes(data.draw(damaged(good)))
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            status(place.uri)
            status(place.uri, as_json=True)
            data_list(place.uri)
        read_all(place, RUN)
        for run in stored_runs(place):
            read_all(place, run)
        earlier(place, stored_runs(place), Execution(), "")
        assert OTHER in stored_runs(place)
    finally:
        full.write_bytes(good)
