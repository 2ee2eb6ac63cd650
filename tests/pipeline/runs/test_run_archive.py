"""Runs that travel: what is further goes on, what is not stays, and no archive can hurt."""

from dataclasses import replace
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pytest

from pipeline.errors import InputError
from pipeline.runs import lease
from pipeline.runs.checkpoint import Checkpoint, folder, newest_checkpoint, save_checkpoint
from pipeline.runs.history import History
from pipeline.runs.lease import Lease
from pipeline.runs.run import Run, check_run, read_result, start_run, write_result
from pipeline.runs.run_archive import take_in, write_archive
from pipeline.storage import Storage
from tests.pipeline.training.small_runs import small_run

RUN = small_run()


@pytest.fixture
def here(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "here"))


@pytest.fixture
def there(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "there"))


def reached(storage: Storage, iteration: int, run: Run = RUN, text: bytes = b"") -> None:
    """A run that has got so far."""
    start_run(storage, run, 1)
    files = {
        "weights.safetensors": b"w%d" % iteration + text,
        "momentum.safetensors": b"m",
        "history.json": History(iteration=iteration).to_json(),
    }
    save_checkpoint(storage, run, Checkpoint(iteration, files))


def moved(first: Storage, second: Storage, tmp_path: Path, weights: bool = False) -> str:
    """Carry all runs over; why RUN was left as it is, empty if it was taken."""
    write_archive(first, tmp_path / "runs.zip", weights)
    return take_in(second, tmp_path / "runs.zip", print).passed_over.get(RUN, "")


def test_a_run_goes_on_elsewhere_from_its_newest_checkpoint(
    here: Storage, there: Storage, tmp_path: Path
) -> None:
    for iteration in (5, 10, 15):
        reached(here, iteration)
    assert moved(here, there, tmp_path) == ""
    assert newest_checkpoint(there, RUN) == newest_checkpoint(here, RUN)
    assert check_run(there, RUN) == check_run(here, RUN)
    # And back, where it has got further; not where it has not.
    reached(there, 20)
    assert "at iteration 20 here" in moved(here, there, tmp_path)
    assert moved(there, here, tmp_path) == ""
    assert newest_checkpoint(here, RUN) == newest_checkpoint(there, RUN)


def test_a_run_that_has_ended_carries_what_it_measured_and_weights_if_asked(
    here: Storage, there: Storage, tmp_path: Path
) -> None:
    end = RUN.experiment.iterations
    reached(here, end)
    write_result(here, RUN, "finished", {"iterations": end, "final": {"test/top1_err": 8.5}})
    reached(there, 5)
    assert moved(here, there, tmp_path) == ""
    assert read_result(there, RUN) == read_result(here, RUN)
    weights = f"{folder(RUN, end)}/weights.safetensors"
    assert there.exists(f"{folder(RUN, end)}/history.json") and not there.exists(weights)
    assert moved(here, there, tmp_path) == "it has ended here"
    elsewhere = Storage(str(tmp_path / "elsewhere"))
    assert moved(here, elsewhere, tmp_path, weights=True) == ""
    assert elsewhere.read(weights) == here.read(weights)


def test_the_same_runs_are_the_same_bytes_and_what_has_not_begun_stays(
    here: Storage, tmp_path: Path
) -> None:
    start_run(here, replace(RUN, seed=7), 1)
    reached(here, 5)
    for name in ("a.zip", "b.zip"):
        assert write_archive(here, tmp_path / name) == [RUN]
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_a_run_that_is_being_trained_is_neither_packed_nor_replaced(
    here: Storage, there: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.05)
    reached(here, 5)
    reached(there, 3)
    write_archive(here, tmp_path / "runs.zip")
    with Lease(there, RUN), pytest.raises(InputError, match="is being trained here"):
        take_in(there, tmp_path / "runs.zip", print)
    before = (tmp_path / "runs.zip").read_bytes()
    with Lease(here, RUN), pytest.raises(InputError, match="would go on in two places"):
        write_archive(here, tmp_path / "runs.zip")
    assert (tmp_path / "runs.zip").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("../outside", b"x"),
        ("runs/a/b/seed-0/../../../../x", b"x"),
        ("/etc/x", b"x"),
        ("runs/a/b/seed-0/lease.json", b"{}"),
        ("runs/a/b/seed-0/checkpoints/00000001/../x", b"x"),
        ("datasets/x/manifest.json", b"{}"),
        (f"{RUN.folder}/run.json", b"{}"),
        (f"{RUN.folder}/result.json", b"[" * 100_000),
        (f"{folder(RUN, 5)}/weights.safetensors", b"other"),
        (f"{folder(RUN, 5)}/manifest.json", b'{"format": "another"}'),
    ],
)
def test_an_archive_with_anything_else_in_it_writes_nothing(
    here: Storage, there: Storage, tmp_path: Path, name: str, content: bytes
) -> None:
    reached(here, 5)
    write_archive(here, tmp_path / "runs.zip")
    with ZipFile(tmp_path / "runs.zip") as archive:
        files = {entry: archive.read(entry) for entry in archive.namelist()}
    with ZipFile(tmp_path / "bad.zip", "w") as archive:
        for entry, inside in (files | {name: content}).items():
            archive.writestr(entry, inside)
    with pytest.raises(InputError) as refused:
        take_in(there, tmp_path / "bad.zip", print)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "there").exists()
    assert not (tmp_path / "outside").exists()


def test_what_is_no_archive_or_compressed_is_one_line(tmp_path: Path, there: Storage) -> None:
    (tmp_path / "text").write_bytes(b"no archive")
    (tmp_path / "cut").write_bytes(b"PK\3\4" + bytes(100))
    with ZipFile(tmp_path / "compressed", "w", ZIP_DEFLATED) as archive:
        archive.writestr(f"{RUN.folder}/run.json", bytes(10**6))
    with ZipFile(tmp_path / "empty", "w"):
        pass
    for name in ("text", "cut", "compressed", "empty"):
        with pytest.raises(InputError) as refused:
            take_in(there, tmp_path / name, print)
        assert "\n" not in str(refused.value)
