"""Where the seconds of a `train` go that has little to train: from the command to its end.

Nothing is instrumented: the stages are seen from outside, by the files of the run's folder and by
the names that Ray gives its processes. So any command can be watched, on a GPU machine too.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks import measure
from jobs.console.console import console, progress
from pipeline.errors import InputError

STAGES = (
    ("printed", "the command's own imports, its arguments, the dataset"),
    ("held", "Ray starts, and the driver takes the run's lease"),
    ("controller", "Ray Train's controller is a process"),
    ("worker", "the run's worker is a process"),
    ("claimed", "the worker's imports (torch), the dataset, the network"),
    ("first", "the first iteration, saved; on a GPU after CUDA's start and the capture"),
    ("trained", "the other iterations, each saved, and their evaluations"),
    ("released", "Ray Train ends, MLflow has everything"),
    ("ended", "Ray and the command end"),
)
"""Moments in the order in which they come, each with what passed since the one before."""

CONTROLLERS = (b"ray::PlainController", b"ray::TrainController")
"""As Ray names them: of a Ray of the command's own, and of a cluster."""
ITERATIONS = 20
PATIENCE_SECONDS = 180.0
POLL_SECONDS = 0.02


def bench(device: str, rounds: int) -> dict[str, float]:
    """Measure and print; returns the median seconds from the command to each moment.

    Raises:
        InputError: a command failed or took too long.
    """
    taken: dict[str, list[float]] = {name: [] for name, _ in STAGES}
    with (
        TemporaryDirectory(prefix="resnet-repro-bench-") as folder,
        progress("measuring") as report,
    ):
        # The first prepares the dataset and MLflow's database, and is not counted.
        for number in range(rounds + 1):
            moments = watch(Path(folder, "storage"), number, device)
            report(number + 1, rounds + 1)
            if number:
                for name, seconds in moments.items():
                    taken[name].append(seconds)

    before, sofar = [0.0] * rounds, 0.0
    table = measure.table(
        "one run, stage by stage", "stage", "seconds", "min to max", "since start"
    )
    for name, what in STAGES:
        steps = [now - then for now, then in zip(taken[name], before, strict=True)]
        sofar = median(taken[name])
        table.add_row(what, *measure.spread(steps, ".1f"), f"{sofar:.1f}")
        before = taken[name]
    console.print(table)
    print(
        f"{measure.taken_on('torch', 'Ray')}: medians of {rounds} rounds after one that is not "
        f"counted; resnet20 on digits, {ITERATIONS} iterations on --device {device}, a new Ray and "
        "a new seed each time."
    )
    return {name: median(values) for name, values in taken.items()}


def watch(storage: Path, seed: int, device: str) -> dict[str, float]:
    """Give one `train`, and return the seconds from then to each moment of `STAGES`.

    Raises:
        InputError: it failed or took too long.
    """
    options = f"--iterations {ITERATIONS} --checkpoint-seconds 0 --seed {seed} --device {device}"
    line = [
        sys.executable,
        "-m",
        "jobs.cli",
        "train",
        "resnet20",
        "--data",
        "digits",
        *options.split(),
    ]
    line += ["--storage", str(storage)]
    began, moments = time.time(), {}
    with (
        TemporaryDirectory() as output_folder,
        Path(output_folder, "output").open("w+") as output,
        subprocess.Popen(line, stdout=output, stderr=subprocess.STDOUT) as command,
    ):
        signs = _signs(storage, seed, Path(output.name), command.pid)
        while command.poll() is None:
            # In order: a name of an earlier moment may be seen again later.
            while signs and signs[0][1]():
                moments[signs.pop(0)[0]] = time.time() - began
            if time.time() - began > PATIENCE_SECONDS:
                command.kill()
            time.sleep(POLL_SECONDS)
        moments["ended"] = time.time() - began
        said = Path(output.name).read_text()
    if command.returncode or signs:
        raise InputError(
            f"bench startup: train ended with code {command.returncode}, without "
            f"{[name for name, _ in signs]}; it said: {said[-500:]}"
        )
    return moments


def _signs(
    storage: Path, seed: int, output: Path, command: int
) -> list[tuple[str, Callable[[], bool]]]:
    """How each moment but the last is seen."""

    def has(name: str) -> bool:
        return any(storage.glob(f"runs/*/*/seed-{seed}/{name}"))

    return [
        ("printed", lambda: output.stat().st_size > 0),
        # Written right after the lease was confirmed.
        ("held", lambda: has("asked.json")),
        ("controller", lambda: _has_child(command, CONTROLLERS)),
        ("worker", lambda: _has_child(command, (b"ray::RayTrainWorker",))),
        ("claimed", lambda: has("writer.json")),
        ("first", lambda: has("checkpoints/*/manifest.json")),
        ("trained", lambda: has("result.json")),
        ("released", lambda: not has("lease.json")),
    ]


def _has_child(command: int, titles: tuple[bytes, ...]) -> bool:
    """Whether a process that descends from `command` has a title that begins so."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if (entry / "cmdline").read_bytes().startswith(titles) and _descends(
                    int(entry.name), command
                ):
                    return True
            except OSError:  # it has ended meanwhile
                continue
    return False


def _descends(process: int, ancestor: int) -> bool:
    while process > 1 and process != ancestor:
        # The parent's number is the second field behind the name, which stands in brackets.
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return process == ancestor
