"""Processes of tests, forked from one that has loaded what is slow to load (torch, Ray, MLflow).

A command of `resnet-repro` takes seconds to import what it uses, and the tests give hundreds. What
a forked one does is what the command's own process does: its arguments, its environment, its
output, its exit code. Tests of signals, kills and listening ports start real ones.
"""

import atexit
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path

LOADED_ONCE = [
    "torch",
    "sklearn.datasets",
    "ray.train",
    "ray.tune",
    "jobs.cli.main",
    "jobs.tracking.other_publications",
    "analysis.report.report",
    "analysis.measured.mlflow_export",
    "pipeline.training.loop",
]
WIDTH = {"COLUMNS": "200", "RAY_USAGE_STATS_ENABLED": "0"}
"""What a command finds in its environment besides this process's: wide enough for any table."""


@cache
def forkserver() -> ForkServerContext:
    """The context whose processes are forked from the one that has everything loaded."""
    context = get_context("forkserver")
    context.set_forkserver_preload(LOADED_ONCE)
    # The console measures the terminal when it is imported, which is then.
    before = dict(os.environ)
    os.environ.update(WIDTH)
    try:
        context.Process(target=_nothing).start()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return context


def _nothing() -> None:
    """A first process starts the server."""


def command(
    arguments: list[str],
    timeout: float,
    environment: dict[str, str],
    first: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """`resnet-repro ARGUMENTS`, off a terminal; what it printed, and its exit code.

    `first` is called in its process before anything else.

    Raises:
        subprocess.TimeoutExpired: it did not end in time, and was killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = forkserver().Process(
            target=_main, args=(arguments, environment, os.getcwd(), str(out), str(err), first)
        )
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(arguments, timeout, out.read_bytes(), err.read_bytes())
        code = process.exitcode
        assert code is not None
        return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())


def _main(
    arguments: list[str],
    environment: dict[str, str],
    folder: str,
    out: str,
    err: str,
    first: Callable[[], None] | None,
) -> None:
    """The command line in a forked process, as Python would have started it."""
    from jobs.cli.main import main

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for path, stream in ((out, 1), (err, 2)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, stream)
        os.close(file)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    sys.argv = ["resnet-repro", *arguments]
    if first is not None:
        first()
    try:
        main()
    finally:
        # A forked process leaves without these, and Ray ends its processes in one of them.
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
