"""The benchmark measures what it says: each contestant in each round, and ratios of them."""

import json
import re
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from time import monotonic, sleep

import pytest

from benchmarks.contestants import OwnProcesses
from benchmarks.profile import BETWEEN, OTHER
from benchmarks.startup import STAGES
from tests.conftest import Cli


@pytest.mark.slow
def test_bench_loop_times_every_contestant_and_says_how(cli: Cli, tmp_path: Path) -> None:
    done = cli(
        "bench",
        "loop",
        "--rounds",
        "1",
        "--steps",
        "1",
        "--precision",
        "fp32",
        "--storage",
        tmp_path,
        timeout=580,
    )
    assert done.returncode == 0, done.stderr
    for what in (
        "(a) our step, data plane, fp32",
        "(b) our step, one batch, fp32",
        "(c) standard loop",
        "(d) as many runs at once as CPUs, one thread each, fp32",
    ):
        (line,) = (line for line in done.stdout.splitlines() if line.strip().startswith(what))
        assert float(line.split()[-4].replace(",", "")) > 0
    assert all(f"{ratio} fp32" in done.stdout for ratio in ("(a)/(b)", "(a)/(c)", "(d)/(c)"))
    assert "the best of a probe" in done.stdout


def make_meeting(place: Path, name: str, seconds: float) -> Callable[[], None]:
    """What a process of its own makes: a step that sleeps, and ends only when the other process's
    has begun too.
    """

    def step() -> None:
        (place / name).touch()
        sleep(seconds)
        deadline = monotonic() + 60
        while len(list(place.iterdir())) < 2:
            assert monotonic() < deadline, "the other process does not step"
            sleep(0.01)

    return step


def make_failing() -> Callable[[], None]:
    raise SystemExit(3)


def test_processes_of_a_contestant_step_at_once_and_the_slowest_counts(tmp_path: Path) -> None:
    makes = [
        partial(make_meeting, tmp_path, name, seconds)
        for name, seconds in (("slow", 0.3), ("fast", 0.0))
    ]
    with closing(OwnProcesses("two", makes, warm_steps=0)) as two:
        assert two.runs == 2
        assert two.seconds(2) >= 0.6


def test_a_contestant_whose_process_ends_says_so() -> None:
    with (
        closing(OwnProcesses("early", [make_failing])) as contestant,
        pytest.raises(RuntimeError, match="early: its process ended"),
    ):
        contestant.seconds(1)


def test_bench_ray_needs_a_precision_that_exists(cli: Cli, tmp_path: Path) -> None:
    done = cli("bench", "ray", "--precision", "fp8", "--storage", tmp_path)
    assert done.returncode == 2 and "fp32 or bf16" in done.stderr


def test_bench_profile_shares_out_the_whole_step_by_kind(cli: Cli, tmp_path: Path) -> None:
    done = cli(
        "bench", "profile", "resnet20", "--precision", "fp32", "--steps", "2", "--storage", tmp_path
    )
    assert done.returncode == 0, done.stderr
    rows = [line.rsplit(maxsplit=2) for line in done.stdout.splitlines() if "%" in line]
    shares = {kind.strip(): float(share.rstrip("%")) for kind, share, _ in rows}
    both_ways = {
        f"{kind}, {way}"
        for kind in ("convolution", "batch norm", "ReLU")
        for way in ("forward", "backward")
    }
    assert set(shares) >= both_ways | {
        "data plane (augmentation)",
        "sums of gradients, SGD",
        BETWEEN,
        OTHER,
    }
    assert sum(shares.values()) == pytest.approx(100, abs=1)
    (step,) = (line for line in done.stdout.splitlines() if "images/s" in line)
    assert sum(number(ms) for _, _, ms in rows) == pytest.approx(number(step.split()[-1]), rel=0.01)


@pytest.mark.slow
def test_bench_tracking_says_what_it_cost(cli: Cli, tmp_path: Path) -> None:
    options = ("--iterations", "24", "--rounds", "1", "--precision", "fp32", "--storage", tmp_path)
    done = cli("bench", "tracking", *options, timeout=500)
    assert done.returncode == 0, done.stderr
    (share,) = (
        line for line in done.stdout.splitlines() if "publisher's share of the CPU time" in line
    )
    assert 0 < float(re.findall(r"([\d.]+)%", share)[0]) < 100
    assert "followed / alone" in done.stdout


def test_bench_report_makes_the_same_bytes_twice(cli: Cli) -> None:
    done = cli("bench", "report", "--runs", "12", "--points", "8", "--rounds", "2")
    assert done.returncode == 0, done.stderr
    assert "12 runs of 8 points" in done.stdout


@pytest.mark.slow
@pytest.mark.ray
def test_bench_startup_shares_out_the_whole_command(cli: Cli) -> None:
    done = cli("bench", "startup", "--device", "cpu", "--rounds", "1", timeout=400)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if " to " in line]
    since = [number(line[-1]) for line in lines if re.fullmatch(r"[\d.]+", line[-1])]
    assert len(since) == len(STAGES) and since == sorted(since) and since[-1] > 3
    assert "on --device cpu" in done.stdout


def number(text: str) -> float:
    return float(text.replace(",", ""))


@pytest.mark.slow
def test_bench_packs_trains_alone_and_at_once_to_the_same_bytes(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "packs.json"
    line = ["bench", "packs", "--storage", tmp_path, "--runs", "1,2", "--until", "40"]
    line += ["--set", "eval_every=10", "--set", "depth=8", "--device", "cpu", "--out", out]
    done = cli(*line, timeout=400)
    assert done.returncode == 0, done.stderr
    kept = json.loads(out.read_text())
    assert kept["same_bytes"] is True
    assert [rate["runs"] for rate in kept["packs"]] == [1, 2]
    assert all(rate["images_per_second"] > 0 for rate in kept["packs"])


def test_bench_packs_says_what_it_needs(cli: Cli, tmp_path: Path) -> None:
    for words, said in (
        (["--until", "500"], "--until 500: a rate lies between two evaluations"),
        (["--runs", "1,x"], "--runs 1,x: expected numbers such as 1,8"),
        (["--experiment", "resnet18"], "--experiment resnet18: expected one of resnet20"),
    ):
        done = cli("bench", "packs", "--storage", tmp_path, "--device", "cpu", *words)
        assert done.returncode == 2 and said in done.stderr, done.stderr
