"""The MLflow store that a command uses: its URI, a client with our experiment in it, our runs."""

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from jobs.tracking.server_check import check_database
from pipeline.errors import InputError
from pipeline.storage import Storage

EXPERIMENT = "resnet-repro"
NOTE = """Filters that help: `tags.kind = "run"` (or `experiment`, `report`, `sweep`),
`tags.experiment = "resnet20"`, `tags.dataset = "cifar10"`, `tags.seed = "0"`,
`tags.outcome = "DIVERGED"`, `tags."grid.table6" = "yes"`, `params.depth = "56"`,
``metrics.`test/top1_err` < 9``.

Runs of *Deep Residual Learning for Image Recognition*: a parent is a row of the paper on a dataset
and carries mean, standard deviation and number of its finished seeds (by their number); its
children are the seeds, and the step of their metrics is the paper's x-axis, iterations. Reports,
sweeps and evaluations are runs of their own, with their files as artifacts.
"""
"""What MLflow shows above the runs."""
_SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql")


def tracking_uri(uri: str) -> str:
    """A tracking store as all that open it should call it: a database file by its full path.

    Raises:
        InputError: it is neither a database nor a server.
    """
    scheme, separator, rest = uri.partition("://")
    # With a blank, nobody could tell where a password ends that must not be shown.
    if scheme != "sqlite" and any(letter.isspace() for letter in uri):
        raise InputError("--tracking: an address holds no blanks; write them as %20")
    # sqlite:///FILE has one slash more than it seems to need: sqlite:// is an empty host.
    file = rest.removeprefix("/") if scheme == "sqlite" and rest.startswith("/") else ""
    try:
        host = urlsplit(uri).hostname
        _ = urlsplit(uri).port  # raises where it is no number
    except ValueError:
        host = None
    if (
        not separator
        or scheme.partition("+")[0] not in _SCHEMES
        or not (file if scheme == "sqlite" else host)
    ):
        raise InputError(
            f"--tracking {uri}: expected http://HOST:PORT of an MLflow server, or sqlite:///FILE"
        )
    # Drivers, in other processes, have other working directories.
    return f"sqlite:///{Path(file).absolute()}" if scheme == "sqlite" else uri


def configure_mlflow() -> None:
    """Make MLflow give up on a silent server in seconds, and print and report nothing.

    By default it retries for minutes, which a run that has ended would wait for.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def default_tracking(storage: Storage) -> str:
    """SQLite in the output folder.

    Raises:
        InputError: storage is not a local folder, so that a server has to be named.
    """
    if storage.local is None:
        raise InputError(
            f"--storage {storage.uri} is not a local folder: name an MLflow server with --tracking"
        )
    return f"sqlite:///{storage.local}/mlflow.db"


def open_store(tracking: str, storage: Storage) -> MlflowClient:
    """A client of the store, with our MLflow experiment in it, made if there is none."""
    configure_mlflow()
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    check_database(tracking)
    if tracking.startswith("sqlite"):
        _for_its_owner(Path(tracking.partition(":///")[2]))
    client = MlflowClient(tracking)
    if client.get_experiment_by_name(EXPERIMENT) is None:
        # A server has a place for artifacts; a database gets one in the storage, or beside itself,
        # because MLflow's default is the folder that the command happens to be called in.
        artifacts = None
        if tracking.startswith("sqlite"):
            database = Path(tracking.partition(":///")[2])
            artifacts = ((storage.local or database.absolute().parent) / "mlartifacts").as_uri()
        try:
            client.create_experiment(
                EXPERIMENT, artifact_location=artifacts, tags={"mlflow.note.content": NOTE}
            )
        except MlflowException:  # another command has made it in the meantime
            if client.get_experiment_by_name(EXPERIMENT) is None:
                raise
    return client


def _for_its_owner(database: Path) -> None:
    """Make a database file that its owner alone can read, unless there is one or no folder."""
    # SQLite would make it for everyone, and gives its journals the permissions of the file.
    with suppress(FileExistsError, FileNotFoundError):
        os.close(os.open(database, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def experiment_id(client: MlflowClient) -> str:
    """MLflow's id of our experiment in a store that `open_store` opened."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    return str(experiment.experiment_id)


def runs_page(tracking: str) -> str:
    """The path of our runs' page in the UI of a store; its front page is about other things."""
    experiment = MlflowClient(tracking).get_experiment_by_name(EXPERIMENT)
    return (
        f"/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
        if experiment
        else ""
    )


def only_run(
    client: MlflowClient, experiment: str, key: str, value: str, tags: dict[str, str]
) -> str:
    """The MLflow run whose tag `key` is `value`, made if there is none.

    MLflow has neither unique tags nor locks: two that make it at once both look again and keep the
    older one.
    """

    def search() -> list[Any]:
        runs = client.search_runs(
            [experiment], f"tags.{key} = '{value}'", ViewType.ACTIVE_ONLY, max_results=10
        )
        return sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))

    runs = search()
    if runs:
        return str(runs[0].info.run_id)
    made = client.create_run(
        experiment, run_name=tags["mlflow.runName"], tags={**tags, key: value}
    ).info.run_id
    # The older one is the same for both, whoever looks first.
    oldest = str(search()[0].info.run_id)
    if oldest != made:
        client.delete_run(made)
    return oldest


def end_parent(client: MlflowClient, parent: str, status: str) -> None:
    """Say that a parent has ended, unless one of its seeds still runs."""
    running = f"tags.mlflow.parentRunId = '{parent}' and attributes.status = 'RUNNING'"
    if not client.search_runs([experiment_id(client)], running, max_results=1):
        client.set_terminated(parent, status)


def our_runs(client: MlflowClient, query: str = "") -> dict[str, Run]:
    """Our runs, or those of them that fit a query, by run key."""
    ours = "tags.kind = 'run'" + (f" and {query}" if query else "")
    experiment, token = client.get_experiment_by_name(EXPERIMENT), None
    runs: dict[str, Run] = {}
    while experiment is not None:
        # A store has thousands of runs, and gives them a page at a time.
        page = client.search_runs([experiment.experiment_id], ours, page_token=token)
        runs |= {run.data.tags["run_key"]: run for run in page}
        token = page.token
        if not token:
            break
    return runs
