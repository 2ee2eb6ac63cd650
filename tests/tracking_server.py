"""MLflow as a team runs it: Postgres, artifacts in S3, a user and password, checked host names."""

import secrets
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.jobs.conftest import free_port, serving
from tests.object_store import ACCESS, s3_server
from tests.postgres import postgres


@dataclass(frozen=True)
class TrackingServer:
    """A server that is there: its URI, who is let in, the database behind it, and where its
    artifacts lie.
    """

    uri: str
    user: str
    word: str
    database: str
    bucket: str
    """A URI for `pipeline.storage.Storage`."""

    @property
    def access(self) -> dict[str, str]:
        """The environment of whoever uses it."""
        return {"MLFLOW_TRACKING_USERNAME": self.user, "MLFLOW_TRACKING_PASSWORD": self.word}


@contextmanager
def tracking_server(place: Path, host: str = "127.0.0.1") -> Iterator[TrackingServer]:
    """Start all of it for the time of the context; MLflow answers to this host's name alone."""
    user, word, port = "reproducer", secrets.token_hex(12), free_port()
    with ExitStack() as servers:
        database = servers.enter_context(postgres(free_port()))
        bucket = servers.enter_context(
            s3_server(host)
        )  # clients fetch artifacts from it themselves
        endpoint = parse_qs(urlsplit(bucket).query)["endpoint_override"][0]
        line = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth"]
        line += [
            "--artifacts-destination",
            "s3://bucket/place/mlflow",
            "--host",
            host,
            "--port",
            str(port),
        ]
        line += [
            "--workers",
            "1",
            "--allowed-hosts",
            f"{host}:{port}",
            "--cors-allowed-origins",
            f"http://{host}:{port}",
        ]
        environment = {
            **ACCESS,
            # Not in the command, which anybody on the machine can list.
            "MLFLOW_BACKEND_STORE_URI": database,
            "AWS_DEFAULT_REGION": "us-east-1",
            "MLFLOW_S3_ENDPOINT_URL": f"http://{endpoint}",
            "MLFLOW_AUTH_ADMIN_USERNAME": user,
            "MLFLOW_AUTH_ADMIN_PASSWORD": word,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        uri = servers.enter_context(serving(line, port, host, place, **environment))
        yield TrackingServer(uri, user, word, database, bucket)
