"""From giving a command to its first SGD step: `submit train` against a bare Ray job with the same
imports, interleaved.
"""

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
from jobs.execution.submission import client_of, packed
from pipeline.errors import InputError

OURS = "submit train"
BARE = {"bare Ray job": "task", "bare Ray Train job": "train"}
"""The references, and how `bare_job` is told."""
EXPECTED = 1.5
"""The most that ours may take of a bare job's time."""
PATIENCE_SECONDS = 180.0


def bench(dashboard: str, rounds: int) -> dict[str, float]:
    """Measure and print; returns the median ratio to each reference.

    Raises:
        InputError: there is no cluster, or it does not see this machine's folders.
    """
    client_of(dashboard)
    taken: dict[str, list[float]] = {OURS: [], **{name: [] for name in BARE}}
    with TemporaryDirectory(prefix="resnet-repro-bench-") as folder, packed() as checkout:
        if checkout is None:
            raise InputError("bench submit: needs a git checkout, of which both jobs are packed")
        with progress("measuring") as report:
            for number in range(
                -1, rounds
            ):  # the first round makes the database, and is not counted
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
    found = {name: measure.ratios(taken[OURS], taken[name]) for name in BARE}
    table = measure.table("from the command to the first SGD step", "job", "seconds", "min to max")
    for name, values in taken.items():
        table.add_row(name, *measure.spread(values, ".1f"))
    table.add_section()
    for name, ratios in found.items():
        table.add_row(
            f"{OURS} / {name} (expected: at most {EXPECTED})", *measure.spread(ratios, ".2f")
        )
    console.print(table)
    print(
        f"{measure.taken_on('torch', 'Ray')}: medians of {rounds} rounds after one that is not "
        "counted, another way first in "
        "each round, on a cluster that runs nothing else; a fresh run each time, on digits, in one "
        "storage."
    )
    return {name: median(ratios) for name, ratios in found.items()}


def _ours(dashboard: str, folder: Path, number: int) -> float:
    """Seconds until the first checkpoint is there; each iteration is saved."""
    line = [
        sys.executable,
        "-m",
        "jobs.cli",
        "submit",
        "--detach",
        "--dashboard",
        dashboard,
        "train",
        "resnet20",
    ]
    line += [
        "--seed",
        str(number + 1),
        "--iterations",
        "20",
        "--checkpoint-seconds",
        "0",
        "--device",
        "cpu",
        "--threads",
        "1",
    ]
    began = time.time()
    subprocess.run([*line, "--storage", str(folder / "s")], check=True, stdout=subprocess.DEVNULL)
    pattern = f"s/runs/*/*/seed-{number + 1}"
    _there(lambda: next(iter(folder.glob(f"{pattern}/checkpoints/*/manifest.json")), None))
    seconds = time.time() - began
    _there(lambda: next(iter(folder.glob(f"{pattern}/result.json")), None))
    time.sleep(5)  # the job ends
    return seconds


def _bare(dashboard: str, checkout: Path, folder: Path, number: int, way: str) -> float:
    """Seconds until the worker has taken its step."""
    file = folder / f"bare-{way}-{number}"
    line = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "job",
        "submit",
        "--no-wait",
        "--address",
        dashboard,
    ]
    line += [
        "--working-dir",
        str(checkout),
        "--",
        "python3",
        "-m",
        "benchmarks.bare_job",
        way,
        str(file),
    ]
    began = time.time()
    subprocess.run(
        line, check=True, capture_output=True, env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    )
    _there(lambda: file if file.exists() else None)
    time.sleep(5)
    return float(file.read_text()) - began


def _there(look: Callable[[], Path | None]) -> Path:
    """What appears, as soon as it does.

    Raises:
        InputError: it does not.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError):
            if found := look():
                return found
        time.sleep(0.02)
    raise InputError(
        "bench submit: a job did not train; is the cluster on this machine, and `resnet-repro jobs "
        "list` empty?"
    )
