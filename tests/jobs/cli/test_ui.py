"""`resnet-repro ui` names a server only if it is its own, and leaves none behind."""

import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from jobs.cli.results import _is_free
from jobs.tracking.store import open_store
from jobs.tracking.ui_server import serve
from pipeline.errors import InputError
from pipeline.storage import Storage
from tests.conftest import Cli
from tests.jobs.conftest import free_port, serving


class Stranger(BaseHTTPRequestHandler):
    """Somebody else's server: it answers everything, and not with MLflow's words."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    do_POST = do_GET

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody else's server listens."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stranger)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_a_taken_port_is_one_line_with_the_next_free_one(
    cli: Cli, tmp_path: Path, taken: int
) -> None:
    (tmp_path / "mlflow.db").touch()
    done = cli("ui", "--storage", tmp_path, "--port", str(taken))
    assert done.returncode == 2 and done.stdout == "" and "http" not in done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"error: --port {taken}: is taken by another server; --port ")
    free = int(line.removesuffix(" is free").rpartition(" ")[2])
    assert free > taken and _is_free(free)


@pytest.mark.slow
def test_a_server_that_took_the_port_meanwhile_is_never_named(tmp_path: Path, taken: int) -> None:
    store, said = f"sqlite:///{tmp_path}/mlflow.db", []
    open_store(store, Storage(str(tmp_path)))
    with pytest.raises(InputError, match="does not answer or has ended"):
        serve(store, taken, said.append)
    assert said == []


@pytest.mark.slow
def test_what_is_named_answers_and_ends_with_the_command(tmp_path: Path) -> None:
    port = free_port()
    open_store(f"sqlite:///{tmp_path}/mlflow.db", Storage(str(tmp_path)))
    line = [sys.executable, "-m", "jobs.cli", "ui", "--storage", str(tmp_path), "--port", str(port)]
    with serving(line, port, folder=tmp_path) as address:
        log = tmp_path / "server.log"
        while not log.read_text():
            pass
        assert log.read_text().startswith(f"MLflow UI: {address}/#/experiments/1/runs")
    assert _is_free(port)
