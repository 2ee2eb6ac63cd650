"""A grid against MLflow on Postgres with artifacts in S3 and a password; and no secret where
anybody could read it.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen
from zipfile import ZipFile

import psycopg
import pytest
from mlflow import MlflowClient

from jobs.tracking.server_check import tracking_trouble
from pipeline.storage import Storage
from tests.object_store import ACCESS
from tests.postgres import binaries
from tests.tracking_server import TrackingServer, tracking_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.skipif(binaries() is None, reason="no Postgres here"),
]

GRID = (
    "grid",
    "plain20",
    "resnet20",
    "--data",
    "digits",
    "--seeds",
    "2",
    "--iterations",
    "8",
    "--set",
    "depth=8",
    "--set",
    "eval_every=4",
)


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    place = tmp_path_factory.mktemp("team")
    with tracking_server(place) as server:
        yield server


def call(
    team: TrackingServer, place: Path, *words: str, tracking: str = "", **changed: str
) -> subprocess.CompletedProcess[str]:
    """A command with the server's user in its environment; the secret of a store besides."""
    line = [
        sys.executable,
        "-m",
        "jobs.cli",
        *words,
        "--storage",
        str(place),
        "--tracking",
        tracking or team.uri,
    ]
    own = {
        **os.environ,
        "COLUMNS": "200",
        **team.access,
        "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-store",
        **changed,
    }
    return subprocess.run(line, env=own, capture_output=True, text=True, timeout=400, check=False)


@pytest.fixture(scope="module")
def trained(team: TrackingServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Where a finished grid lies, and all that its command said."""
    place = tmp_path_factory.mktemp("grid")
    done = call(team, place, *GRID)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stderr
    return place, done.stdout + done.stderr


def test_runs_are_in_postgres_and_artifacts_in_the_bucket(
    team: TrackingServer, trained: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(team.database) as database, database.cursor() as cursor:
        cursor.execute("select count(*) from tags where key = 'outcome' and value = 'FINISHED'")
        assert cursor.fetchone() == (4,)
        cursor.execute("select count(distinct run_uuid) from metrics where key = 'test/top1_err'")
        assert cursor.fetchone() == (4,)
    for name, value in {**ACCESS, **team.access}.items():
        monkeypatch.setenv(name, value)
    bucket = Storage(team.bucket)
    stored = [name for name in bucket.names("mlflow") if bucket.size(f"mlflow/{name}")]
    assert stored
    client = MlflowClient(team.uri)
    experiment = client.get_experiment_by_name("resnet-repro")
    assert experiment is not None
    (report,) = client.search_runs([experiment.experiment_id], "tags.kind = 'report'")
    whole = client.download_artifacts(report.info.run_id, "report.zip", str(tmp_path))
    page = ZipFile(whole).read("report/index.html")
    assert page == (trained[0] / "report" / "index.html").read_bytes()


def test_no_secret_is_said_stored_or_tagged(
    team: TrackingServer, trained: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, said = trained
    in_uri = team.uri.replace("://", f"://{team.user}:{team.word}@")
    again = call(team, place, "report", tracking=in_uri)
    assert again.returncode == 0, again.stderr
    secrets = [team.word, "a-secret-of-the-store", urlsplit(team.database).password or "none"]
    texts = {"output": said + again.stdout + again.stderr}
    texts |= {
        str(path): path.read_bytes().decode("latin-1")
        for path in place.rglob("*")
        if path.is_file()
    }
    assert len(texts) > 20
    with psycopg.connect(team.database) as database, database.cursor() as cursor:
        for table in ("tags", "params", "experiment_tags", "runs"):
            cursor.execute(f"select * from {table}")
            texts[table] = repr(cursor.fetchall())
    for where, text in texts.items():
        for secret in secrets:
            assert secret not in text, where


def test_nobody_is_let_in_without_the_password(
    team: TrackingServer, trained: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HTTPError) as refused:
        urlopen(Request(f"{team.uri}/api/2.0/mlflow/experiments/search?max_results=1"), timeout=20)
    assert refused.value.code == 401
    assert "MLFLOW_TRACKING_USERNAME" in tracking_trouble(team.uri)
    for name, value in team.access.items():
        monkeypatch.setenv(name, value)
    assert tracking_trouble(team.uri) == ""
    assert "--allowed-hosts" in tracking_trouble(
        team.uri.replace("127.0.0.1", "localhost")
    )  # a name it was not told of
    wrong = {"MLFLOW_TRACKING_PASSWORD": "not the word"}
    done = call(
        team,
        tmp_path,
        "train",
        "resnet20",
        "--data",
        "digits",
        "--iterations",
        "4",
        "--require-tracking",
        **wrong,
    )
    assert done.returncode == 2 and "MLflow cannot be used now" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.glob("runs"))
