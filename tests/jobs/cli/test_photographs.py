"""Photographs as a user meets them: read by Ray tasks, trained by two workers, killed, continued,
and tested.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from jobs.execution.ingest import ingest
from pipeline.data.photo_ingest import Reading
from pipeline.data.progress import silent
from pipeline.errors import InputError
from pipeline.runs.checkpoint import newest_checkpoint
from pipeline.runs.run import read_result, stored_runs
from pipeline.storage import Storage
from pipeline.training.step.networks import build_network
from pipeline.training.step.weights import weights_bytes
from tests.conftest import Cli
from tests.jobs.conftest import kill_all
from tests.pipeline.data.photographs import as_parquet, as_tars, photograph, pictures

pytestmark = pytest.mark.ray

SETTINGS = (
    "crop=32",
    "scale=32,40",
    "test_side=36",
    "test_sides=32,40",
    "global_batch_size=8",
    "bn_group=4",
    "statistics_images=16",
    "eval_every=4",
)
TRAIN = (
    "train",
    "resnet18",
    "--data",
    "imagenet",
    "--iterations",
    "12",
    *(w for s in SETTINGS for w in ("--set", s)),
    "--workers",
    "2",
    "--threads",
    "1",
    "--device",
    "cpu",
    "--checkpoint-seconds",
    "0",
)


@pytest.fixture(scope="module")
def place(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with a few photographs as `imagenet` and a finished run on them."""
    folder = tmp_path_factory.mktemp("photographs")
    source = as_parquet(folder / "source", pictures())
    done = cli("data", "prepare", "imagenet", "--from", source, "--storage", folder / "results")
    assert done.returncode == 0, done.stderr
    assert "12 training photographs of 3 classes and 6 for testing of 3" in done.stdout
    assert "not the official ILSVRC-2012 archives" in done.stdout
    trained = cli(*TRAIN, "--storage", folder / "results")
    assert trained.returncode == 0, trained.stderr
    return folder / "results"


def test_prepared_photographs_are_listed_verified_and_read_once(cli: Cli, place: Path) -> None:
    assert "any size" in cli("data", "list", "--storage", place).stdout
    assert (
        "every shard, image and label is right"
        in cli("data", "verify", "imagenet", "--storage", place).stdout
    )
    before = {path: path.stat().st_mtime_ns for path in (place / "photographs").rglob("*")}
    again = cli(
        "data", "prepare", "imagenet", "--from", place.parent / "source", "--storage", place
    )
    assert again.returncode == 0 and "12 training photographs" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in (place / "photographs").rglob("*")} == before


@pytest.mark.slow
def test_killed_and_continued_a_run_ends_with_the_same_bytes(
    cli: Cli, place: Path, tmp_path: Path
) -> None:
    for name in ("datasets", "photographs"):
        shutil.copytree(place / name, tmp_path / name)
    line = [sys.executable, "-m", "jobs.cli", *TRAIN, "--storage", str(tmp_path)]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while (
        not list(tmp_path.glob("runs/*/*/*/checkpoints/*3/manifest.json"))
        and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    kill_all(process)
    reached = [
        int(path.parent.name) for path in tmp_path.glob("runs/*/*/*/checkpoints/*/manifest.json")
    ]
    assert reached and 0 < max(reached) < 12
    storage, whole = Storage(str(tmp_path)), Storage(str(place))
    (run,) = stored_runs(storage)
    assert read_result(storage, run) is None
    done = cli(*TRAIN, "--storage", tmp_path)
    assert done.returncode == 0, done.stderr
    result = read_result(storage, run)
    assert result is not None and result["attempts"][-1]["from_iteration"] >= max(reached) - 1
    ended, wanted = newest_checkpoint(storage, run), newest_checkpoint(whole, run)
    assert ended is not None and wanted is not None and ended.iteration == 12
    for name in ("weights.safetensors", "momentum.safetensors"):
        assert ended.files[name] == wanted.files[name]


@pytest.mark.slow
def test_protocols_give_on_two_workers_what_the_run_measured(cli: Cli, place: Path) -> None:
    (run,) = stored_runs(Storage(str(place)))
    result = read_result(Storage(str(place)), run)
    assert result is not None
    here = cli("evaluate", "resnet18", "--protocol", "all", "--json", "--storage", place)
    shared = cli(
        "evaluate",
        "resnet18",
        "--protocol",
        "multi_scale",
        "--workers",
        "2",
        "--json",
        "--storage",
        place,
    )
    assert (here.returncode, shared.returncode) == (0, 0), here.stderr + shared.stderr
    rows = json.loads(here.stdout) + json.loads(shared.stdout)
    assert [row["protocol"] for row in rows] == [
        "center_crop",
        "ten_crop",
        "multi_scale",
        "multi_scale",
    ]
    for row in rows:
        assert row["count"] == 6
        for first in (1, 5):
            assert (
                row[f"top{first}_err"] == result["final"][f"test_{row['protocol']}/top{first}_err"]
            )


def test_the_report_has_imagenets_tables_not_comparable(cli: Cli, place: Path) -> None:
    (run,) = stored_runs(Storage(str(place)))
    pair = (
        "evaluate",
        "--ensemble",
        "resnet18",
        place / run.folder,
        "--protocol",
        "ten_crop",
        "--keep",
        "twice itself",
    )
    both = cli(*pair, "--storage", place)
    assert both.returncode == 0 and "ensemble of 2, ten_crop" in both.stdout, both.stderr
    network = build_network(run.experiment, seed=9)
    (place / "theirs.safetensors").write_bytes(
        weights_bytes(network.state_dict(), run.experiment, 1000)
    )
    theirs = (
        "evaluate",
        place / "theirs.safetensors",
        "--as",
        "resnet18",
        "--set",
        "crop=32",
        "--set",
        "scale=32,40",
        "--protocol",
        "all",
        "--data",
        "imagenet",
        "--keep",
        "a peer",
    )
    assert cli(*theirs, "--storage", place).returncode == 0
    done = cli("report", "--storage", place)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(place / "report" / "table_2.csv").set_index("experiment")
    assert (
        table.n["resnet18"] == 1 and table.n["plain34"] == 0 and set(table.verdict) == {"not run"}
    )
    assert (place / "report" / "figure_4.svg").exists()
    assert "not comparable" in (place / "report" / "table_2.md").read_text()
    assert "| a peer |" in (place / "report" / "table_4.md").read_text()
    assert "| twice itself |" in (place / "report" / "table_5.md").read_text()
    assert cli("audit", place / "report").returncode == 0


def test_what_does_not_fit_is_one_line(cli: Cli, place: Path, tmp_path: Path) -> None:
    broken = pictures()
    name, label, content = broken["train"][3]
    broken["train"][3] = (name, label, content[:200])
    source = as_tars(tmp_path / "broken", broken)
    for arguments, says in (
        (
            ("data", "prepare", "imagenet", "--from", source, "--photographs"),
            f"{name}: not an image that can be decoded",
        ),
        (("data", "prepare", "imagenet"), "name their folder with --from"),
        (("data", "prepare", "imagenet", "--from", tmp_path / "nowhere"), "no such folder"),
        (
            ("data", "prepare", "imagenet", "--from", source, "--shorter-side", "100"),
            "at least the 224 pixels",
        ),
        (
            ("train", "resnet20", "--data", "imagenet"),
            "resnet20 does not suit --data imagenet, which is of photographs",
        ),
        (
            ("train", "resnet18", "--data", "digits"),
            "resnet18 does not suit --data digits, which is of small images",
        ),
        (("evaluate", "resnet18", "--keep", "itself"), "was measured when it ended"),
        (
            ("evaluate", "resnet18", "--protocol", "one_crop"),
            "--protocol one_crop: expected one of center_crop",
        ),
    ):
        done = cli(*arguments, "--storage", place)
        assert done.returncode == 2, (arguments, done.stdout, done.stderr)
        assert says in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert len(os.listdir(place / "datasets")) == 2  # ours, and digits


def test_too_little_room_is_said_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = as_parquet(tmp_path / "source", pictures())
    storage = Storage(str(tmp_path / "storage"))
    (tmp_path / "storage").mkdir()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match=r"GB are needed and 0\.0 GB are free; make room"):
        ingest(storage, "imagenet", source, Reading(), silent)
    assert list((tmp_path / "storage").iterdir()) == []


@pytest.mark.slow
def test_an_ingest_that_is_killed_goes_on(cli: Cli, tmp_path: Path) -> None:
    many = pictures()
    many["train"] = [(f"{n}.JPEG", n % 3, photograph(n, (400, 300))) for n in range(300)]
    source = as_tars(tmp_path / "source", many)
    line = [sys.executable, "-m", "jobs.cli", "data", "prepare", "imagenet", "--from", str(source)]
    process = subprocess.Popen(
        [*line, "--storage", str(tmp_path / "s")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while (
        not list(tmp_path.glob("s/photographs/records/*/*.safetensors"))
        and time.monotonic() < deadline
    ):
        time.sleep(0.01)
    kill_all(process)
    kept = {
        path: path.stat().st_mtime_ns
        for path in tmp_path.glob("s/photographs/records/*/*.safetensors")
    }
    assert kept and not (tmp_path / "s" / "datasets").exists()
    done = cli(*line[3:], "--storage", tmp_path / "s")
    assert done.returncode == 0 and "300 training photographs" in done.stdout, done.stderr
    assert {
        path: path.stat().st_mtime_ns for path in kept
    } == kept  # what was read is not read again
