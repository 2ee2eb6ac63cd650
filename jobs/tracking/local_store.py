"""A tracking store that is a file here: its artifacts, and that it knows where it was moved to."""

import os
import sqlite3
import sys
from collections.abc import Mapping
from contextlib import closing, suppress
from json import dumps
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient

from analysis.measured.local_artifacts import (
    FOLDER,
    artifacts_folder,
    database_of,
    is_of_a_storage,
    recorded_folder,
    run_folder,
)
from pipeline.storage import Storage, whole_file
from pipeline.stored_json import parse

PLACES = "artifact_places"
"""Tag of our MLflow experiment in a database: every place that its artifacts were recorded at."""
LOCKED_SECONDS = 10.0


def send_artifacts(client: MlflowClient, run_id: str, files: Mapping[str, bytes]) -> None:
    """Keep files, by their paths, as artifacts of a run; of a local store, in its own folder."""
    if database_of(client.tracking_uri) is not None:
        place = run_folder(client.tracking_uri, client.get_run(run_id).info.artifact_uri)
        if place is not None:
            return _write(place, files)
    with TemporaryDirectory() as folder:
        _write(Path(folder), files)
        client.log_artifacts(run_id, folder)


def _write(place: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: a report may read it meanwhile.
        with whole_file(file) as partial:
            partial.write_bytes(content)


def rehome(tracking: str, storage: Storage | None = None, for_server: bool = False) -> None:
    """Have a database record where its artifacts are, if it was moved or copied; says so in a line.

    Nothing of ours depends on it: it is for MLflow's own server (`for_server`) and tools.
    """
    database = database_of(tracking)
    if database is None or not database.is_file():
        return
    # What is locked, read-only or no store of MLflow's keeps its record: the next command tries.
    with suppress(sqlite3.Error):
        connection = sqlite3.connect(
            f"{database.as_uri()}?mode=rw", LOCKED_SECONDS, isolation_level=None, uri=True
        )
        with closing(connection) as store:
            recorded = store.execute("SELECT experiment_id, artifact_location FROM experiments")
            for experiment, location in recorded.fetchall():
                old = recorded_folder(location or "")
                new = _moved_to(database, old, storage) if old else None
                if old and new and _is_to_be_recorded(store, experiment, old, new, for_server):
                    _record(store, experiment, location, old, new)


def _moved_to(database: Path, recorded: Path, storage: Storage | None) -> Path | None:
    """Where the artifacts are that a database records somewhere else; None if they are there."""
    here = artifacts_folder(database, recorded)
    # A database that is kept apart from its storage, which was moved.
    if storage is not None and storage.local and not is_of_a_storage(database):
        files = storage.local / FOLDER
        here = files if not os.path.isdir(recorded) and files.is_dir() else here
    return None if here == recorded else here


def _is_to_be_recorded(
    store: sqlite3.Connection, experiment: int, old: Path, new: Path, for_server: bool
) -> bool:
    """Whether the new place is to be recorded by this command.

    A store that is mounted at several places, in a container for instance, would otherwise be
    changed by each command that sees it at another one, under the eyes of a server that runs.
    """
    return for_server or os.path.isdir(old) or str(new) not in _places(store, experiment)


def _places(store: sqlite3.Connection, experiment: int) -> list[str]:
    """Every place that an experiment's artifacts were recorded at."""
    query = "SELECT value FROM experiment_tags WHERE experiment_id = ? AND key = ?"
    found = store.execute(query, (experiment, PLACES)).fetchone()
    try:
        places = parse(found[0]) if found else []
    except ValueError:  # changed in the UI
        return []
    return [place for place in places if isinstance(place, str)] if isinstance(places, list) else []


def _record(
    store: sqlite3.Connection, experiment: int, location: str, old: Path, new: Path
) -> None:
    uri, prefix = new.as_uri(), f"{location}/"
    places = list(dict.fromkeys([*_places(store, experiment), str(old), str(new)]))
    store.execute("BEGIN IMMEDIATE")
    store.execute(
        "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (uri, experiment)
    )
    store.execute(
        "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
        "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
        (f"{uri}/", len(prefix) + 1, experiment, len(prefix), prefix),
    )
    store.execute(
        "INSERT OR REPLACE INTO experiment_tags (experiment_id, key, value) VALUES (?, ?, ?)",
        (experiment, PLACES, dumps(places)),
    )
    store.execute("COMMIT")
    print(
        f"note: MLflow's artifacts were recorded at {old}; they are at {new} now", file=sys.stderr
    )
