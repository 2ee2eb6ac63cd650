"""The MLflow store that a command uses: its URI, a client with our experiment in it, our runs."""

import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from time import sleep, time
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import Experiment, LifecycleStage, Run, ViewType
from mlflow.exceptions import MlflowException

from analysis.measured.local_artifacts import DATABASE, FOLDER, database_of
from analysis.measured.mlflow_export import our_experiment
from analysis.measured.tags import (
    EXPERIMENT,
    MADE_MS,
    OURS,
    OURS_VALUE,
    stored_name,
    stored_tags,
)
from jobs.tracking.local_store import rehome
from jobs.tracking.server_check import check_database
from jobs.tracking.views import VIEWS, keep_views, view_pages
from pipeline.errors import InputError
from pipeline.storage import Storage

SEEN_SECONDS = 0.1
"""Until what another has begun to make at the same moment can be seen."""

NOTE = """{links}

A curve, and a line of the table, is a row of *Deep Residual Learning for Image Recognition* on a
dataset. Its parent says mean, standard deviation and number of its finished seeds, and what the
paper has; the children are the seeds, and the step of their metrics is the paper's x-axis,
iterations. Reports, sweeps and evaluations are runs of their own, with their files as artifacts.

Filters that help: `tags.kind = "run"` (or `experiment`, `report`, `sweep`),
`tags.experiment = "resnet20"`, `tags.dataset = "cifar10"`, `tags.seed = "0"`,
`tags.outcome = "DIVERGED"`, `tags."grid.table6" = "yes"`, `params.depth = "56"`,
``metrics.`test/top1_err` < 9``.
"""
"""What MLflow shows above the runs, with links to the views in it."""
NOTE_TAG = "mlflow.note.content"
EARLIER_NOTES = ("d0dc088399ffdea5",)
"""Checksums of what earlier versions wrote there: anything else is a person's, and stays."""
logger = logging.getLogger(__name__)
_SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql")


def tracking_uri(uri: str, named_by: str = "--tracking") -> str:
    """A tracking store as all that open it should call it: a database file by its full path.

    `named_by` is the option or variable that names it, for messages.

    Raises:
        InputError: it is neither a database nor a server.
    """
    scheme, separator, rest = uri.partition("://")
    # With a blank, nobody could tell where a password ends that must not be shown.
    if scheme != "sqlite" and any(letter.isspace() for letter in uri):
        raise InputError(f"{named_by}: an address holds no blanks; write them as %20")
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
            f"{named_by} {uri}: expected http://HOST:PORT of an MLflow server, or sqlite:///FILE"
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
    return f"sqlite:///{storage.local}/{DATABASE}"


@contextmanager
def _alone_with(database: Path | None) -> Iterator[None]:
    """One process at a time, by a lock on the folder: the file need not be there yet."""
    if database is None or not database.parent.is_dir():
        yield
        return
    folder = os.open(database.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def open_store(tracking: str, storage: Storage) -> MlflowClient:
    """A client of the store, with our MLflow experiment in it, made if there is none.

    Raises:
        DeletedExperimentError: the experiment was deleted.
    """
    configure_mlflow()
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    database = database_of(tracking)
    # The first look makes a new database's tables, and of two at once MLflow fails one.
    with _alone_with(database):
        check_database(tracking)
        if database is not None:
            _for_its_owner(database)
            rehome(tracking, storage)
        client = MlflowClient(tracking)
        experiment = our_experiment(client)
    if experiment is None:
        # A server has a place for artifacts; a database gets one in the storage, or beside itself,
        # because MLflow's default is the folder that the command happens to be called in.
        place = ((storage.local or database.parent) / FOLDER).as_uri() if database else None
        try:
            client.create_experiment(EXPERIMENT, artifact_location=place, tags={OURS: OURS_VALUE})
        except MlflowException:  # another command has made it in the meantime
            if our_experiment(client) is None:
                raise
        experiment = our_experiment(client)
        assert experiment is not None
    elif OURS not in experiment.tags:  # of a version that went by the name alone
        client.set_experiment_tag(experiment.experiment_id, OURS, OURS_VALUE)
    keep_views(client, experiment)
    _keep_note(client, experiment)
    return client


def _keep_note(client: MlflowClient, experiment: Experiment) -> None:
    """Write the note above the runs, unless a person has written another."""
    there = experiment.tags.get(NOTE_TAG)
    if (
        there is not None
        and blake2b(there.encode(), digest_size=8).hexdigest() not in EARLIER_NOTES
    ):
        return
    number = experiment.experiment_id
    paths = view_pages(client.tracking_uri, number)
    links = [f"[{name}]({paths[key][1:]})" for key, (name, _, _) in VIEWS.items()]
    client.set_experiment_tag(number, NOTE_TAG, NOTE.format(links=" and ".join(links)))


def _for_its_owner(database: Path) -> None:
    """Make a database file that its owner alone can read, unless there is one or no folder."""
    # SQLite would make it for everyone, and gives its journals the permissions of the file.
    with suppress(FileExistsError, FileNotFoundError):
        os.close(os.open(database, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def experiment_id(client: MlflowClient) -> str:
    """MLflow's id of our experiment in a store that `open_store` opened."""
    experiment = our_experiment(client)
    assert experiment is not None
    return str(experiment.experiment_id)


def pages(tracking: str) -> dict[str, str]:
    """The paths of our views in the UI of a store, whose front page is about other things."""
    experiment = our_experiment(MlflowClient(tracking))
    return view_pages(tracking, experiment.experiment_id) if experiment else {}


def only_run(
    client: MlflowClient,
    experiment: str,
    key: str,
    value: str,
    tags: dict[str, str],
    started_ms: Callable[[], int | None] = lambda: None,
) -> str:
    """The MLflow run whose tag `key` is `value`, made if there is none, restored if it is deleted.

    Keys and tags are by our own names. One that is made began at `started_ms`, or now;
    of one that is there it is not asked.

    MLflow has neither unique tags nor locks: two that make it at once both look again and keep the
    older one.
    """

    def search() -> list[Run]:
        runs = client.search_runs(
            [experiment], f"tags.`{stored_name(key)}` = '{value}'", ViewType.ALL, max_results=100
        )
        # What was made second and deleted for it comes after what a person has deleted.
        return sorted(runs, key=lambda run: (_deleted(run), _made_ms(run), run.info.run_id))

    runs = search()
    if runs and _deleted(runs[0]):
        client.restore_run(runs[0].info.run_id)
        logger.warning(
            "%s was deleted in MLflow, and is restored as it is needed", runs[0].info.run_name
        )
    if runs:
        return str(runs[0].info.run_id)
    made = client.create_run(
        experiment,
        start_time=started_ms(),
        run_name=tags["mlflow.runName"],
        tags=stored_tags({**tags, key: value, MADE_MS: str(int(1000 * time()))}),
    ).info.run_id
    # The older one is the same for both, once both can be seen.
    sleep(SEEN_SECONDS)
    oldest = str(search()[0].info.run_id)
    if oldest != made:
        client.delete_run(made)
    return oldest


def _made_ms(run: Run) -> int:
    """When an MLflow run was made; earlier versions made all of them as what they are of began."""
    return int(run.data.tags.get(stored_name(MADE_MS), run.info.start_time))


def _deleted(run: Run) -> bool:
    return bool(run.info.lifecycle_stage == LifecycleStage.DELETED)


def end_parent(client: MlflowClient, parent: str, status: str) -> None:
    """Say that a parent has ended, unless one of its seeds still runs."""
    running = f"tags.mlflow.parentRunId = '{parent}' and attributes.status = 'RUNNING'"
    if not client.search_runs([experiment_id(client)], running, max_results=1):
        client.set_terminated(parent, status)


def our_runs(client: MlflowClient, query: str = "") -> dict[str, Run]:
    """Our runs, or those of them that fit a query, by run key; without deleted ones."""
    return {key: run for key, run in runs_with_deleted(client, query).items() if not _deleted(run)}


def deleted_runs(runs: dict[str, Run]) -> dict[str, Run]:
    """Those of `runs_with_deleted` whose only copy was deleted in MLflow."""
    return {key: run for key, run in runs.items() if _deleted(run)}


def runs_with_deleted(client: MlflowClient, query: str = "") -> dict[str, Run]:
    """Our runs, or those of them that fit a query, by run key; a deleted one where no other is."""
    ours = "tags.kind = 'run'" + (f" and {query}" if query else "")
    experiment, token = our_experiment(client), None
    runs: dict[str, Run] = {}
    while experiment is not None:
        # A store has thousands of runs, and gives them a page at a time.
        page = client.search_runs([experiment.experiment_id], ours, ViewType.ALL, page_token=token)
        for run in sorted(page, key=_deleted, reverse=True):
            key = run.data.tags["run_key"]
            if key not in runs or not _deleted(run):
                runs[key] = run
        token = page.token
        if not token:
            break
    return runs
