"""What MLflow's and Ray's own variables name is used, and said; what is named explicitly wins."""

import json
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import typer

from jobs.cli.main import app
from jobs.execution.submission import client_of
from jobs.requests.options import tracking_of
from jobs.requests.submitted_commands import check_command, with_tracking
from pipeline.errors import InputError
from pipeline.storage import Storage
from tests.conftest import Cli

SERVER = "http://10.0.0.5:5000"


def test_mlflows_variable_names_the_store_and_tracking_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = Storage(str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_of(None, storage) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", SERVER)
    assert tracking_of(None, storage) == SERVER
    said = f"note: MLflow at {SERVER}, by MLFLOW_TRACKING_URI; --tracking names another\n"
    assert capsys.readouterr().err == said
    assert tracking_of("sqlite:///x.db", storage) == f"sqlite:///{Path.cwd()}/x.db"
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks")
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI databricks: expected http"):
        tracking_of(None, storage)


def test_a_command_says_where_it_would_publish(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", SERVER.replace("//", "//me:secret@"))
    done = cli("train", "resnet20", "--dry-run", "--storage", tmp_path)
    assert done.returncode == 0 and "by MLFLOW_TRACKING_URI" in done.stderr
    assert "10.0.0.5:5000" in done.stdout and "secret" not in done.stdout + done.stderr


def submitted(*arguments: str) -> list[str]:
    program = typer.main.get_command(app)
    parent = typer.Context(program)
    context = typer.Context(program.commands["submit"], parent=parent)  # type: ignore[attr-defined]
    return with_tracking(context, list(arguments))


def test_a_submitted_job_gets_the_store_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    train = ("train", "resnet20", "--storage", "/mnt/shared")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert submitted(*train) == [*train]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", SERVER)
    assert submitted(*train) == [*train, "--tracking", SERVER]
    assert submitted(*train, "--tracking=http://other:1") == [*train, "--tracking=http://other:1"]
    prepare = ("data", "prepare", "cifar10", "--storage", "/mnt/shared")  # takes no store
    assert submitted(*prepare) == [*prepare]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", SERVER.replace("//", "//me:secret@"))
    with pytest.raises(InputError, match="would be stored with the job"):
        check_command(submitted(*train))


class Dashboard(BaseHTTPRequestHandler):
    """As much of a cluster's dashboard as lists its jobs: none."""

    def do_GET(self) -> None:
        self.server.asked += 1  # type: ignore[attr-defined]
        version = {"version": "4", "ray_version": "2.60.0", "ray_commit": "x", "session_name": "s"}
        body = json.dumps(version if self.path.startswith("/api/version") else []).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def two() -> Iterator[list[ThreadingHTTPServer]]:
    servers = []
    for _ in range(2):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Dashboard)
        server.asked = 0  # type: ignore[attr-defined]
        Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
    yield servers
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("variable", ["RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"])
def test_an_explicit_dashboard_is_asked_whatever_ray_s_variables_say(
    two: list, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, other = two
    for each in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(variable, f"http://127.0.0.1:{other.server_address[1]}")
    client_of(f"http://127.0.0.1:{named.server_address[1]}").list_jobs()
    assert named.asked > 1 and other.asked == 0
    assert os.environ[variable].endswith(str(other.server_address[1]))
    before = named.asked
    client_of(None)
    assert named.asked == before and other.asked > 0


def test_a_variable_that_leads_nowhere_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"RAY_API_SERVER_ADDRESS http://127\.0\.0\.1:9: no Ray"):
        client_of(None)
