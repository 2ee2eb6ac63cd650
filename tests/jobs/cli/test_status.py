"""What a storage holds, as `status` tells it; what `clean` deletes and what never; what `--dry-run`
writes: nothing.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from time import time

import pytest

from jobs.cli import submit
from pipeline.data.datasets import Dataset
from pipeline.recipe.overrides import experiment_named
from pipeline.runs.checkpoint import iterations
from pipeline.runs.execution import Execution
from pipeline.runs.lease import Lease
from pipeline.runs.run import Run, start_run, stored_runs, write_heartbeat
from pipeline.storage import Storage
from pipeline.training.loop import train
from pipeline.training.step.process_group import single_process
from tests.conftest import Cli
from tests.pipeline.training.small_runs import small_run

SEEDS = {"finished": 0, "running": 1, "stopped": 2, "not started": 3}


@pytest.fixture
def four_runs(storage: Storage, digits_dataset: Dataset) -> Iterator[dict[str, Run]]:
    """A finished run with all its checkpoints, one that is held, one that is not in spite of its
    heartbeat, and none.
    """
    runs = {state: small_run(seed) for state, seed in SEEDS.items()}
    now = int(1000 * time())
    train(
        runs["finished"], digits_dataset, storage, single_process(), Execution(checkpoint_seconds=0)
    )
    for run in runs.values():
        start_run(storage, run, 1)
    write_heartbeat(storage, runs["running"], 12, 100.0, now)
    write_heartbeat(storage, runs["stopped"], 9, 100.0, now)
    storage.write("runs/not-ours/digits/seed-0/run.json", b"nonsense")
    with Lease(storage, runs["running"]):
        yield runs


def test_status_says_what_the_folders_say(
    cli: Cli, storage: Storage, four_runs: dict[str, Run]
) -> None:
    done = cli("status", "--storage", storage.uri, "--json")
    facts = {fact["seed"]: fact for fact in json.loads(done.stdout)}
    assert {fact["state"]: seed for seed, fact in facts.items()} == SEEDS
    assert [facts[seed]["iteration"] for seed in range(4)] == [30, 12, 9, 0]
    assert facts[1]["seconds_left"] == pytest.approx(18 * 16 / 100)
    assert all(facts[seed]["seconds_left"] is None for seed in (0, 2, 3))
    assert facts[0]["test_err"] is not None and facts[0]["overrides"]["depth"] == 8
    shown = cli("status", "--storage", storage.uri).stdout
    assert "30/30" in shown and "stopped runs continue when their command is given again" in shown


def test_jobs_say_how_far_their_living_runs_are(
    storage: Storage, four_runs: dict[str, Run]
) -> None:
    grid = {"command": f"grid table6 --storage {storage.uri}", "state": "RUNNING"}
    silent, runs = submit._living(grid)
    assert silent is not None and silent < 60
    # Its heartbeat is at iteration 12 of 30: 18 x 16 images are left, 100 a second.
    assert [(run["seed"], run["iteration"], round(run["seconds_left"])) for run in runs] == [
        (SEEDS["running"], 12, 3)
    ]
    assert submit._progress(runs) == "40% done, 0m 03s left"
    assert submit._progress(runs * 2) == "2 running, 40% done, 0m 03s left"
    for seed, found in ((SEEDS["running"], 1), (SEEDS["stopped"], 0)):
        train = f"train resnet20 --seed {seed} --storage {storage.uri}"
        assert len(submit._living({"command": train, "state": "RUNNING"})[1]) == found
    assert submit._living({"command": "train resnet20 --storage s3://", "state": "RUNNING"}) == (
        None,
        [],
    )


def test_stored_runs_are_the_runs(storage: Storage, four_runs: dict[str, Run]) -> None:
    assert stored_runs(storage) == sorted(four_runs.values(), key=lambda run: run.seed)


def test_clean_lists_first_and_keeps_what_counts(
    cli: Cli, storage: Storage, four_runs: dict[str, Run]
) -> None:
    run = four_runs["finished"]
    storage.write("ray/left-behind/state", b"x")
    before = iterations(storage, run)
    asked = cli("clean", "--storage", storage.uri)
    assert asked.returncode == 2 and "say --yes" in asked.stderr
    assert "left-behind" not in asked.stdout  # a run is alive, and Ray's folder may be its own
    assert iterations(storage, run) == before and len(before) > 3
    assert cli("clean", "--storage", storage.uri, "--yes").returncode == 0
    assert iterations(storage, run) == [15, 23, 30]
    storage.delete(four_runs["running"].folder)
    assert "left-behind" in cli("clean", "--storage", storage.uri, "--yes").stdout
    assert storage.names("ray") == []
    assert "nothing to clean" in cli("clean", "--storage", storage.uri, "--yes").stdout


def test_a_storage_that_is_not_there_is_told_from_an_empty_one(cli: Cli, tmp_path: Path) -> None:
    for words in (("status",), ("status", "--json"), ("clean", "--yes"), ("verify", "resnet20")):
        missing = cli(*words, "--storage", tmp_path / "misspelt")
        assert missing.returncode == 2 and "misspelt: does not exist" in missing.stderr
        assert len(missing.stderr.splitlines()) == 1 and not (tmp_path / "misspelt").exists()
    empty = cli("status", "--storage", tmp_path)
    assert empty.returncode == 0 and empty.stdout == f"0 runs in {tmp_path}\n"
    # As after `make demo`, to whoever leaves --storage out.
    (tmp_path / "demo" / "runs").mkdir(parents=True)
    says = cli("status", "--storage", tmp_path).stdout.splitlines()
    assert says[1:] == [f"--storage {tmp_path}/demo has runs"]
    (tmp_path / "imports").mkdir()
    (tmp_path / "imports" / f"{'0' * 32}.zip").write_bytes(b"")
    says = cli("status", "--storage", tmp_path).stdout.splitlines()
    assert says[-1] == "1 bundle of `results import`: reports are about the runs in there too"


def test_a_dry_run_shows_the_resolved_row_and_writes_nothing(
    cli: Cli, tmp_path: Path, digits_dataset: Dataset
) -> None:
    options = ("--iterations", "400", "--set", "precision=bf16", "--storage", tmp_path / "new")
    done = cli("train", "resnet20", "--data", "digits", "--dry-run", *options)
    assert done.returncode == 0, done.stderr
    experiment = experiment_named("resnet20", ["precision=bf16"], 400)
    run = Run(experiment, digits_dataset.id, digits_dataset.key, 0)
    assert (
        "iterations          400 (paper: 64,000)" in done.stdout
        and experiment.fingerprint in done.stdout
    )
    assert str(tmp_path / "new" / run.folder) in done.stdout
    # Fields of photographs, and of a warmup that there is not, say nothing about it.
    assert not {"crop", "scale", "warmup_lr"} & {*done.stdout.split()}
    assert not (tmp_path / "new").exists()


def test_a_dry_run_of_a_grid_shows_where_its_rows_differ(cli: Cli, tmp_path: Path) -> None:
    done = cli("grid", "plain20", "resnet56", "--seeds", "2", "--dry-run", "--storage", tmp_path)
    assert done.returncode == 0 and done.stdout.count("seed-") == 4
    rows = [
        line.split()
        for line in done.stdout.splitlines()
        if line.strip().startswith(("plain20", "resnet56"))
    ]
    assert [(row[0], row[2:]) for row in rows] == [
        ("plain20", ["depth=20,", "shortcut=none"]), ("resnet56", ["depth=56,", "shortcut=A"]),
    ]  # fmt: skip


def test_a_dry_run_refuses_what_the_run_would(cli: Cli, tmp_path: Path) -> None:
    done = cli("train", "resnet20", "--workers", "4", "--dry-run", "--storage", tmp_path)
    assert done.returncode == 2 and "at most 2" in done.stderr
