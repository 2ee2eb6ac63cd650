"""The benchmark command measures what it says: each contestant in each round, and ratios of them."""

from pathlib import Path

from tests.conftest import Cli


def test_bench_loop_times_every_contestant_and_says_how(cli: Cli, tmp_path: Path) -> None:
    done = cli("bench", "loop", "--rounds", "1", "--steps", "1", "--precision", "fp32", "--storage", tmp_path)
    assert done.returncode == 0, done.stderr
    for what in ("(a) our step, data plane, fp32", "(b) our step, one batch, fp32", "(c) standard loop"):
        (line,) = (line for line in done.stdout.splitlines() if line.strip().startswith(what))
        assert float(line.split()[-4].replace(",", "")) > 0
    assert "(a)/(b) fp32" in done.stdout and "(a)/(c) fp32" in done.stdout
    assert "the best of a probe" in done.stdout


def test_bench_ray_needs_a_precision_that_exists(cli: Cli, tmp_path: Path) -> None:
    done = cli("bench", "ray", "--precision", "fp8", "--storage", tmp_path)
    assert done.returncode == 2 and "fp32 or bf16" in done.stderr
