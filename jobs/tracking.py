"""The MLflow store that a command uses: its URI checked, a client with our experiment in it, and little patience."""

import logging
import os
from pathlib import Path
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipeline.errors import InputError
from pipeline.storage import Storage

EXPERIMENT = "resnet-repro"
_SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql")


def tracking_uri(uri: str) -> str:
    """A tracking store as everything that opens it should call it: a database file by its full path.

    Raises:
        InputError: it is neither a database nor a server.
    """
    scheme, separator, rest = uri.partition("://")
    file = rest.removeprefix("/") if scheme == "sqlite" and rest.startswith("/") else ""
    try:
        host = urlsplit(uri).hostname
        _ = urlsplit(uri).port  # raises where it is no number
    except ValueError:
        host = None
    if not separator or scheme.partition("+")[0] not in _SCHEMES or not (file if scheme == "sqlite" else host):
        raise InputError(f"--tracking {uri}: wanted is http://HOST:PORT of an MLflow server, or sqlite:///FILE")
    return f"sqlite:///{Path(file).absolute()}" if scheme == "sqlite" else uri


def give_up_soon() -> None:
    """A server that does not answer costs seconds, not the minutes of MLflow's own patience."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")


def default_tracking(storage: Storage) -> str:
    """SQLite in the output folder.

    Raises:
        InputError: storage is not a local folder, so that a server has to be named.
    """
    if storage.local is None:
        raise InputError(f"--storage {storage.uri} is not a local folder: name an MLflow server with --tracking")
    return f"sqlite:///{storage.local}/mlflow.db"


def open_store(tracking: str, storage: Storage) -> MlflowClient:
    """A client of the store, with our MLflow experiment in it (made if need be; artifacts beside a local database)."""
    give_up_soon()
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    client = MlflowClient(tracking)
    if client.get_experiment_by_name(EXPERIMENT) is None:
        local = tracking.startswith("sqlite") and storage.local is not None
        place = (storage.local / "mlartifacts").as_uri() if local and storage.local else None
        try:
            client.create_experiment(EXPERIMENT, artifact_location=place)
        except MlflowException:
            if client.get_experiment_by_name(EXPERIMENT) is None:
                raise
    return client
