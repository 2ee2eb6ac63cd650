"""A grid in sittings: stopped by its time, carried elsewhere, gone on with to the same bytes."""

import re
from pathlib import Path

import pytest

from jobs.console.termination import CONTINUE
from pipeline.runs.checkpoint import newest_checkpoint
from pipeline.runs.run import read_result, stored_runs
from pipeline.storage import Storage
from tests.conftest import Cli

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

ITERATIONS = 1500
GRID = (
    "grid", "plain20", "resnet20", "--data", "digits", "--iterations", str(ITERATIONS),
    "--set", "depth=8", "--set", "eval_every=500", "--threads", "1", "--device", "cpu",
)  # fmt: skip


def weights(place: Path) -> dict[str, bytes]:
    """The final weights and momentum of a storage's runs, all of which have finished."""
    storage = Storage(str(place))
    found = {}
    for run in stored_runs(storage):
        assert read_result(storage, run) is not None, run
        checkpoint = newest_checkpoint(storage, run)
        assert checkpoint is not None and checkpoint.iteration == ITERATIONS
        for name in ("weights.safetensors", "momentum.safetensors"):
            found[f"{run} {name}"] = checkpoint.files[name]
    return found


def test_two_sittings_end_with_the_bytes_of_one(cli: Cli, tmp_path: Path) -> None:
    first, second, whole = (tmp_path / name for name in ("first", "second", "whole"))
    stopped = cli(*GRID, "--storage", first, "--stop-after", "0.5", timeout=500)
    assert stopped.returncode == CONTINUE, stopped.stdout + stopped.stderr
    assert "ended by --stop-after: give the same command again" in stopped.stderr
    left = stopped.stderr.splitlines()[-2]
    assert "plain20 resnet20: 0 of 2 runs are done; left: 2, 2 of them saved on their way; " in left
    assert re.search(r"(about \d+ min|less than a minute) of this machine at the rates", left)
    assert not list(first.glob("runs/*/*/*/lease.json"))

    packed = cli("runs", "export", tmp_path / "runs.zip", "--storage", first)
    assert packed.returncode == 0 and "2 runs, 0 of them ended" in packed.stdout, packed.stderr
    taken = cli("runs", "import", tmp_path / "runs.zip", "--storage", second)
    assert taken.returncode == 0 and "2 runs taken into" in taken.stdout, taken.stderr
    begun = {
        run: newest_checkpoint(Storage(str(second)), run)
        for run in stored_runs(Storage(str(second)))
    }
    assert all(
        checkpoint and 0 < checkpoint.iteration < ITERATIONS for checkpoint in begun.values()
    )

    done = cli(*GRID, "--storage", second, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (second / "report" / "index.html").is_file()
    undisturbed = cli(*GRID, "--storage", whole, timeout=500)
    assert undisturbed.returncode == 0, undisturbed.stdout + undisturbed.stderr
    assert weights(second) == weights(whole)
    # And the finished runs go back, without their weights.
    back = cli("runs", "export", tmp_path / "back.zip", "--storage", second)
    assert "2 runs, 2 of them ended" in back.stdout
    home = cli("runs", "import", tmp_path / "back.zip", "--storage", first)
    assert "2 runs taken into" in home.stdout
    storage = Storage(str(first))
    assert all(read_result(storage, run) is not None for run in stored_runs(storage))
