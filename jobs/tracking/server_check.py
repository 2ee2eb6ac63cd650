"""Whether an MLflow server can be used from here, asked without MLflow's client: what is wrong in
words, with the remedy.
"""

import base64
import os
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from pipeline.errors import first_line

PATIENCE_SECONDS = 10.0


def is_server(tracking: str) -> bool:
    """Whether an MLflow store is asked over the network, and not a database opened by its clients."""
    return tracking.startswith(("http://", "https://"))


def tracking_trouble(tracking: str) -> str:
    """What an MLflow server answers that is not what it should; empty for none, and for databases."""
    if not is_server(tracking):
        return ""
    address, header = _with_access(tracking.rstrip("/"))
    try:
        asked = Request(
            f"{address}/api/2.0/mlflow/experiments/search?max_results=1", headers=header
        )
        with urlopen(asked, timeout=PATIENCE_SECONDS) as answer:
            return "" if answer.status == 200 else f"answers {answer.status}"
    except HTTPError as error:
        body = error.read(500).decode(errors="replace")
        if error.code == 403 and "host" in body.lower():
            return f"refuses its own name {urlsplit(address).netloc}: start `mlflow server` with --allowed-hosts for it"
        if error.code in (401, 403):
            return "wants another user or password: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD where Ray was started"
        return f"answers {error.code}"
    except HTTPException as error:
        return f"speaks no HTTP there ({first_line(error)}): look at the address and its port"
    except OSError as error:
        why = getattr(error, "reason", error)  # urllib wraps what happened
        return f"cannot be reached ({first_line(why)}): start it, or open its port to the nodes"


def _with_access(tracking: str) -> tuple[str, dict[str, str]]:
    """An address without its user and password, and the header that says them, as MLflow's client
    sends it.
    """
    parts = urlsplit(tracking)
    user = unquote(parts.username or "") or os.environ.get("MLFLOW_TRACKING_USERNAME")
    word = unquote(parts.password or "") or os.environ.get("MLFLOW_TRACKING_PASSWORD") or ""
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    if user:
        return bare, {
            "Authorization": "Basic " + base64.b64encode(f"{user}:{word}".encode()).decode()
        }
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return bare, {"Authorization": f"Bearer {token}"} if token else {}
