"""`resnet-repro plan` as a user calls it."""

import json
from pathlib import Path

import pytest

from jobs.execution.cluster import connected
from jobs.execution.probe import TimingRequest, time_experiments
from jobs.planning.estimate import Cluster, Estimate, Plan
from jobs.planning.rates import Rate, probed, rates
from jobs.planning.saved_plans import compare, keep
from jobs.planning.workload import iteration_flops
from pipeline.errors import InputError
from pipeline.recipe.overrides import experiment_named
from pipeline.runs.execution import Execution
from pipeline.storage import Storage
from tests.conftest import Cli
from tests.pipeline.training.small_runs import small_run


@pytest.mark.parametrize("gpus", [8, 64, 256])
def test_the_whole_paper_on_a_described_cluster(cli: Cli, tmp_path: Path, gpus: int) -> None:
    line = (
        "plan",
        "paper",
        "imagenet",
        "--data",
        "cifar10",
        "--seeds",
        "5",
        "--gpus",
        f"{gpus}xA100",
        "--price",
        "2.5",
    )
    done = cli(*line, "--storage", tmp_path / "none", "--json")
    assert done.returncode == 0, done.stderr
    (made,) = json.loads(done.stdout)
    assert made["left"] == made["runs"] == 105 and made["units"] == gpus
    assert made["lower_bound"] <= made["seconds"] <= 1.35 * made["lower_bound"]
    assert made["seconds"] <= 1.005 * made["lower_bound"] or made["gap"]
    assert made["cost"] == pytest.approx(2.5 * gpus * made["seconds"] / 3600)
    starts = [one["start"] for one in made["order"]]
    assert starts == sorted(starts) and len(starts) == 105
    assert not (tmp_path / "none").exists()


def test_runs_at_once_on_a_described_gpu_are_tried_or_told(cli: Cli, tmp_path: Path) -> None:
    line = ("plan", "resnet20", "--data", "cifar10", "--seeds", "8", "--gpus", "1xH200")
    line += ("--set", "precision=bf16", "--storage", str(tmp_path / "none"), "--json")
    (best,) = json.loads(cli(*line).stdout)
    by_pack = best["by_runs_per_gpu"]
    # No more at once than there are runs; four at once were measured, at 1.8 times one's rate.
    assert list(by_pack) == ["1", "2", "4", "8"]
    assert best["how"] == "--runs-per-gpu 8 for CIFAR's rows"
    assert by_pack["1"] / by_pack["4"] == pytest.approx(122_480 / 66_619, rel=0.1)
    (two,) = json.loads(cli(*line, "--runs-per-gpu", "2").stdout)
    assert two["seconds"] == pytest.approx(by_pack["2"])


def test_a_budget_is_kept(cli: Cli, tmp_path: Path) -> None:
    line = (
        "plan",
        "paper",
        "--data",
        "cifar10",
        "--seeds",
        "3",
        "--gpus",
        "1xH100",
        "--budget",
        "6",
    )
    done = cli(*line, "--storage", tmp_path / "none")
    assert done.returncode == 0, done.stderr
    (says,) = [text for text in done.stdout.splitlines() if text.startswith("budget")]
    assert (
        "cells, figures and claims: " in says and "--seeds 3" in says and "resnet1202" not in says
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("table6", "--gpus", "8xVoodoo"), "known are V100"),
        (("table6", "--gpus", "many"), "or a cluster such as 8xA100"),
        (
            ("table6", "--gpus", "8xA100", "--compile"),
            "measured of compiled kernels on such a card",
        ),
        (("table6", "--gpus", "0"), "or a cluster such as 8xA100"),
        (("table6", "--gpus", "nan"), "or a cluster such as 8xA100"),
        (("table6", "--data", "cifra10"), "no dataset and no path of that name"),
        (
            ("table6", "--data", "digits", "--set", "holdout=5000"),
            "leaves nothing of 1,437 training images",
        ),
        (("table2", "--data", "digits", "--gpus", "8"), "does not suit --data digits"),
        (("tabel6",), "unknown grid or experiment tabel6"),
    ],
)
def test_what_cannot_be_planned_is_one_line(
    cli: Cli, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    done = cli("plan", *words, "--storage", tmp_path / "s")
    assert (
        done.returncode == 2 and says in done.stderr and len(done.stderr.strip().splitlines()) == 1
    )


def test_what_a_grid_took_stands_beside_its_plan(storage: Storage) -> None:
    runs = [small_run(seed) for seed in range(3)]
    made = Plan(
        Cluster(1, "CPU"),
        [Estimate(run, 10.0, 1.0, Rate(1.0, 0.1, "probed")) for run in runs],
        fixed=20.0,
    )
    assert compare(storage, runs, 60.0) == ""
    path = keep(storage, made, {"probe": {}})
    assert compare(storage, runs[:2], 60.0) == ""  # another grid
    assert compare(storage, reversed(runs), 60.0) == "took 60 s; planned were 50 s (42 to 60): +20%"
    kept = json.loads(Path(path).read_text())
    assert kept["took"] == 60.0 and kept["seconds"] == 50.0 and kept["commit"]


@pytest.mark.ray
def test_a_probe_goes_on_until_each_kind_is_timed_where_nobody_bounds_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With no time at all, in which an experiment of neither precision can be timed."""
    settings = ["depth=8", "global_batch_size=16", "bn_group=8"]
    rows = [experiment_named("resnet20", [*settings, f"precision={p}"]) for p in ("fp32", "bf16")]
    requests = [TimingRequest(row, 1, 0.5, iteration_flops(row)) for row in rows]
    execution = Execution(storage="/nowhere", workers=1, threads=1)
    with connected(None):
        bounded = time_experiments(requests, 16, execution, 1, limit=0.0, complete=False)
        complete = time_experiments(requests, 16, execution, 1, limit=0.0, complete=True)
    with pytest.raises(InputError, match="--probe-seconds: too few"):
        rates(rows, probed(bounded, 1))
    assert {row.fingerprint for row in rows} == complete.keys()
    assert {rate.source for rate in rates(rows, probed(complete, 1)).values()} == {"probed"}
    assert "measuring on, until this is timed: resnet20 (" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.ray
def test_a_grid_is_planned_carried_out_and_planned_again(cli: Cli, tmp_path: Path) -> None:
    rows = (
        "plain20",
        "resnet20",
        "--data",
        "digits",
        "--iterations",
        "30",
        "--set",
        "depth=8",
        "--storage",
        tmp_path / "s",
    )
    line = ("plan", *rows, "--probe-seconds", "40")
    first = cli(*line, "--json")
    assert first.returncode == 0, first.stderr
    (made,) = json.loads(first.stdout)
    assert (
        made["left"] == 2
        and 0 < made["low"] < made["seconds"] < made["high"]
        and Path(made["kept"]).exists()
    )
    assert [path.name for path in (tmp_path / "s").iterdir()] == [
        "plans"
    ]  # the probe leaves nothing behind
    done = cli("grid", *rows)
    assert done.returncode == 0 and "planned were" in done.stdout, done.stdout + done.stderr
    assert json.loads(Path(made["kept"]).read_text())["took"] > 0
    again = cli(*line)
    assert again.returncode == 0 and again.stdout.strip() == "2 runs on digits, 2 finished before"
