"""From a command to its first SGD step: `submit train` against a bare Ray job, interleaved."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks import measure
from jobs.console.console import console, progress
from jobs.execution.submission import client_of, dashboard_named, packed
from pipeline.errors import InputError

OURS = "submit train"
BARE = {"bare Ray job": "task", "bare Ray Train job": "train"}
"""The references, and how `bare_job` is told."""
EXPECTED = 1.5
"""The most that ours may take of a bare job's time."""
PATIENCE_SECONDS = 180.0
JOB_END_SECONDS = 5.0
"""Given to a job to end, after what it was waited for."""


def bench(named: str | None, rounds: int) -> dict[str, float]:
    """Measure and print; returns the median ratio to each reference.

    Raises:
        InputError: there is no cluster, or it does not see this machine's folders.
    """
    # Refused before anything is packed, where no cluster answers.
    client_of(named)
    _, dashboard = dashboard_named(named)
    taken: dict[str, list[float]] = {OURS: [], **{name: [] for name in BARE}}
    with TemporaryDirectory(prefix="resnet-repro-bench-") as folder, packed() as checkout:
        if checkout is None:
            raise InputError("bench submit: needs a git checkout, of which both jobs are packed")
        with progress("measuring") as report:
            # The round before the first makes MLflow's database, and is not counted.
            for number in range(-1, rounds):
                # Ours is a whole command line, as a person types it; the references are a Ray job
                # each.
                ways = [(OURS, partial(_ours, dashboard, Path(folder), number))]
                ways += [
                    (name, partial(_bare, dashboard, checkout, Path(folder), number, way))
                    for name, way in BARE.items()
                ]
                for name, measured in measure.rotated(ways, number):
                    seconds = measured()
                    if number >= 0:
                        taken[name].append(seconds)
                report(number + 2, rounds + 1)
    ratios = {name: measure.ratios(taken[OURS], taken[name]) for name in BARE}
    table = measure.table("from the command to the first SGD step", "job", "seconds", "min to max")
    for name, values in taken.items():
        table.add_row(name, *measure.spread(values, ".1f"))
    table.add_section()
    for name, values in ratios.items():
        what = f"{OURS} / {name} (expected: at most {EXPECTED})"
        table.add_row(what, *measure.spread(values, ".2f"))
    console.print(table)
    print(
        f"{measure.taken_on('torch', 'Ray')}: medians of {rounds} rounds after one that is not "
        "counted, another way first in each round, on a cluster that runs nothing else; a fresh "
        "run each time, on digits, in one storage."
    )
    return {name: median(values) for name, values in ratios.items()}


def _ours(dashboard: str, folder: Path, number: int) -> float:
    """Seconds until the first checkpoint is there; each iteration is saved."""
    seed = number + 1
    options = f"--iterations 20 --checkpoint-seconds 0 --device cpu --threads 1 --seed {seed}"
    line = [sys.executable, "-m", "jobs.cli", "submit", "--detach", "--dashboard", dashboard]
    line += [
        "train",
        "resnet20",
        "--data",
        "digits",
        *options.split(),
        "--storage",
        str(folder / "s"),
    ]
    began = time.time()
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    run = f"s/runs/*/*/seed-{seed}"
    _wait_for(lambda: next(iter(folder.glob(f"{run}/checkpoints/*/manifest.json")), None))
    seconds = time.time() - began
    # The next one has the machine for itself.
    _wait_for(lambda: next(iter(folder.glob(f"{run}/result.json")), None))
    time.sleep(JOB_END_SECONDS)
    return seconds


def _bare(dashboard: str, checkout: Path, folder: Path, number: int, way: str) -> float:
    """Seconds until the worker has taken its step."""
    file = folder / f"bare-{way}-{number}"
    line = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--no-wait"]
    line += ["--address", dashboard, "--working-dir", str(checkout)]
    line += ["--", "python3", "-m", "benchmarks.bare_job", way, str(file)]
    began = time.time()
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    subprocess.run(line, check=True, capture_output=True, env=environment)
    _wait_for(lambda: file if file.exists() else None)
    time.sleep(JOB_END_SECONDS)
    return float(file.read_text()) - began


def _wait_for(look: Callable[[], Path | None]) -> Path:
    """What appears, as soon as it does.

    Raises:
        InputError: it does not.
    """
    # Polled often, as a second of waiting would be a second of result.
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError):
            if path := look():
                return path
        time.sleep(0.02)
    raise InputError(
        "bench submit: a job did not train; is the cluster on this machine, and `resnet-repro jobs "
        "list` empty?"
    )
