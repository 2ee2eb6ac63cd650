"""A real MLflow server on loopback."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.chaos.nodes import descendants


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def kill_all(process: subprocess.Popen[Any]) -> None:
    """Kill a command, and Ray's processes too, which would go on for a while."""
    for pid in [process.pid, *descendants(process.pid)]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@contextmanager
def serving(
    line: list[str],
    port: int,
    host: str = "127.0.0.1",
    folder: Path | None = None,
    **environment: str,
) -> Iterator[str]:
    """What a command serves on a port, in a process group of its own, for the time of the context;
    its URI.

    It runs in `folder` where one is named, and what it says is kept there.
    """
    log = open(folder / "server.log", "ab") if folder else open(os.devnull, "wb")  # noqa: SIM115
    with log:
        process = subprocess.Popen(
            line,
            start_new_session=True,
            env=os.environ | environment,
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    try:
        _wait_for(f"http://{host}:{port}/health")
        yield f"http://{host}:{port}"
    finally:
        # Told first: what it has started in other groups ends with it.
        for how, seconds in ((signal.SIGTERM, 30), (signal.SIGKILL, None)):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, how)
                process.wait(seconds)


def mlflow_server(place: Path, port: int) -> AbstractContextManager[str]:
    """A server with its database and artifacts in `place`."""
    store = [
        "--backend-store-uri",
        f"sqlite:///{place}/db",
        "--artifacts-destination",
        str(place / "artifacts"),
    ]
    line = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        *store,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    return serving([*line, "--workers", "1"], port, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")


def _wait_for(address: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            urlopen(address, timeout=2)
            return
        except (URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"nothing answers at {address}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a server that lasts for the module."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow"), free_port()) as uri:
        yield uri
