"""MLflow's UI for a database, on loopback: only once its own server answers is it said where."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from tempfile import TemporaryFile
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from jobs.tracking.store import pages
from pipeline.errors import InputError, last_line

STARTING_SECONDS = 120.0


def serve(store: str, port: int, say: Callable[[str], None]) -> None:
    """Serve a database's UI until it is interrupted, and `say` where it is.

    Raises:
        InputError: the server does not start, or ends by itself (says what it said last).
    """
    address, views = f"http://127.0.0.1:{port}", pages(store)
    # On loopback, because a server without users gives everyone who reaches it all of its store.
    command = [sys.executable, "-m", "mlflow", "server"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # The store in the environment: arguments, and a password in them, are seen by everyone here.
    environment = os.environ | {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_BACKEND_STORE_URI": store,
    }
    with TemporaryFile() as log, _interrupted_by_signals(), suppress(KeyboardInterrupt):
        # MLflow starts the server as a process of its own, which is to end with the other.
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            if _answers(server, address, store):
                say(f"MLflow UI: {address}{views.get('curves', '')} (Ctrl-C ends it)")
                if "results" in views:
                    say(f"the results: {address}{views['results']}")
                server.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            server.wait()
        log.seek(0)
        said = last_line(log.read().decode(errors="replace"))
        raise InputError(f"--port {port}: MLflow's server does not answer or has ended ({said})")


@contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Being told to end, or losing the terminal, is an interruption: the server has to be ended."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = {each: signal.signal(each, interrupt) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _answers(server: "subprocess.Popen[bytes]", address: str, store: str) -> bool:
    """Wait until a server of this store answers at an address; whether it does."""
    deadline = time.monotonic() + STARTING_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        # Whoever else has taken the port in the meantime serves other experiments, or no MLflow.
        with suppress(MlflowException):
            if _experiments(address) == _experiments(store):
                return True
        time.sleep(0.3)
    return False


def _experiments(store: str) -> list[tuple[str, int, str]]:
    """What tells a store from all others: its experiments, when they were made and where."""
    found = MlflowClient(store).search_experiments(ViewType.ALL)
    return sorted((each.name, each.creation_time, each.artifact_location) for each in found)
