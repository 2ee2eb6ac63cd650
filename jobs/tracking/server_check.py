"""Whether an MLflow server can be used from here: what is wrong in words, with the remedy.

Asked without MLflow's client, which nodes would take seconds to load, and which retries for long.
"""

import base64
import os
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from analysis.measured.tags import EXPERIMENT, deleted_experiment
from pipeline.errors import InputError, first_line
from pipeline.stored_json import parse

PATIENCE_SECONDS = 10.0


def is_server(tracking: str) -> bool:
    """Whether an MLflow store is asked over the network, not a database opened by its clients."""
    return tracking.startswith(("http://", "https://"))


def tracking_trouble(tracking: str) -> str:
    """What is wrong with an MLflow server's answer; empty for nothing, and for databases."""
    if not is_server(tracking):
        return ""
    address, header = with_access(tracking.rstrip("/"))
    try:
        # The cheapest request that passes all of the server's gates: host check, login, database.
        url = f"{address}/api/2.0/mlflow/experiments/get-by-name?experiment_name={EXPERIMENT}"
        with urlopen(Request(url, headers=header), timeout=PATIENCE_SECONDS) as answer:
            experiment = parse(answer.read())["experiment"]
            if experiment["lifecycle_stage"] == "deleted":
                return deleted_experiment(tracking, experiment["experiment_id"])
            return ""
    except (ValueError, KeyError, TypeError):
        return "answers, but is no MLflow server: look at the address and its port"
    except HTTPError as error:
        # MLflow refuses a name that it does not know with a 403, like a login: only its text
        # differs.
        body = error.read(500).decode(errors="replace")
        if error.code == 404 and "RESOURCE_DOES_NOT_EXIST" in body:  # nobody has made it yet
            return ""
        if error.code == 403 and "host" in body.lower():
            name = urlsplit(address).netloc
            return f"refuses its own name {name}: start `mlflow server` with --allowed-hosts for it"
        if error.code in (401, 403):
            return (
                "wants another user or password: set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD where Ray was started"
            )
        return f"answers {error.code}"
    except HTTPException as error:
        return f"speaks no HTTP there ({first_line(error)}): look at the address and its port"
    except OSError as error:
        why = getattr(error, "reason", error)  # urllib wraps what happened
        return f"cannot be reached ({first_line(why)}): start it, or open its port to the nodes"


def server_version(tracking: str) -> str:
    """The version of MLflow that a server runs; empty where it does not say."""
    address, header = with_access(tracking.rstrip("/"))
    try:
        with urlopen(Request(f"{address}/version", headers=header), timeout=PATIENCE_SECONDS) as it:
            return str(it.read(100).decode(errors="replace"))
    except (OSError, ValueError, HTTPException):
        return ""


def check_database(tracking: str) -> None:
    """Connect once to an MLflow store that is a PostgreSQL or MySQL; others are taken as they are.

    MLflow would try ten times, each as long as the network lets it, and print a page each time.

    Raises:
        InputError: it does not answer, or refuses.
    """
    if not tracking.startswith(("postgresql", "mysql")):
        return
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    try:
        # The drivers of both know this option, and mean each address that the host's name has.
        patience = {"connect_timeout": int(PATIENCE_SECONDS)}
        create_engine(tracking, connect_args=patience, poolclass=NullPool).connect().close()
    except Exception as error:  # whatever a driver, a network or a server does
        why = getattr(error, "orig", None) or error  # what SQLAlchemy wraps
        raise InputError(
            f"--tracking {tracking}: the database does not let us in ({first_line(why)}); start "
            "it, or look at the address, user and password"
        ) from error


def with_access(tracking: str) -> tuple[str, dict[str, str]]:
    """An address without its user and password, and the header in which MLflow says them."""
    # urllib would send a user in the address as part of the host name.
    parts = urlsplit(tracking)
    user = unquote(parts.username or "") or os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = unquote(parts.password or "") or os.environ.get("MLFLOW_TRACKING_PASSWORD") or ""
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    if user:
        login = base64.b64encode(f"{user}:{password}".encode()).decode()
        return bare, {"Authorization": f"Basic {login}"}
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return bare, {"Authorization": f"Bearer {token}"} if token else {}
