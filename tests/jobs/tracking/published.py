"""A storage with finished runs, published to its own database: made once, and copied by tests."""

import json
import shutil
import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from urllib.request import urlopen

from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.entities import ViewType

from jobs.tracking.other_publications import publish_stored
from pipeline.data.stored import write_dataset
from pipeline.runs.run import start_run
from pipeline.storage import Storage
from pipeline.training.loop import train
from pipeline.training.step.process_group import single_process
from tests.pipeline.training.small_runs import digits_once, small_run

SEEDS = (0, 1)


@cache
def _original() -> Path:
    place = Path(mkdtemp(prefix="resnet-repro-test-")) / "original"
    storage = Storage(str(place))
    write_dataset(storage, digits_once(), {"kind": "embedded"})
    for seed in SEEDS:
        train_seed(storage, seed)
    publish_stored(store_of(place), storage, print)
    return place


def published(place: Path) -> Path:
    """A storage at a place that was trained and published there, or as good as."""
    original = _original()
    shutil.copytree(original, place)
    with closing(sqlite3.connect(place / "mlflow.db", isolation_level=None)) as database:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            database.execute(
                f"UPDATE {table} SET {column} = replace({column}, ?, ?)",
                (original.as_uri(), place.as_uri()),
            )
    return place


def train_seed(storage: Storage, seed: int) -> None:
    start_run(storage, small_run(seed), 1)
    train(small_run(seed), digits_once(), storage, single_process())


def store_of(place: Path) -> str:
    return f"sqlite:///{place}/mlflow.db"


def mlflow_runs(
    store: str, kind: str = "run", which: int = ViewType.ACTIVE_ONLY
) -> list[MlflowRun]:
    """Runs of a kind, by name."""
    client = MlflowClient(store)
    (experiment,) = client.search_experiments(ViewType.ALL, filter_string="name != 'Default'")
    found = client.search_runs([experiment.experiment_id], f"tags.kind = '{kind}'", which)
    return sorted(found, key=lambda run: str(run.data.tags.get("seed")))


def listed(address: str, run_id: str) -> list[str]:
    """The names of a run's artifacts, as the UI asks its server for them."""
    url = f"{address}/api/2.0/mlflow/artifacts/list?run_id={run_id}"
    return [file["path"] for file in json.loads(urlopen(url).read()).get("files", [])]


def contents(place: Path) -> dict[str, bytes]:
    """Every file below a place, but for its exported and reported ones."""
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file()
    }
