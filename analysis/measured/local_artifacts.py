"""Where the artifacts of a local tracking store lie: in a folder beside its database.

MLflow records absolute places. Of a storage that was moved or copied they are another's, so files
of its runs are looked for, and written, by where the database is now.
"""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

DATABASE, FOLDER = "mlflow.db", "mlartifacts"
"""What they are called in a storage."""


def database_of(tracking: str) -> Path | None:
    """The file of a tracking store that is a SQLite database; None for any other."""
    return Path(tracking.partition(":///")[2]).absolute() if tracking.startswith("sqlite") else None


def recorded_folder(artifact_location: str) -> Path | None:
    """The folder that an experiment in a database records for its artifacts; None for others."""
    parts = urlsplit(artifact_location)
    path = Path(unquote(parts.path))
    return path if parts.scheme in ("", "file") and path.name == FOLDER else None


def is_of_a_storage(database: Path) -> bool:
    """Whether a database is the one that a storage has of its own, with its files beside it."""
    folders = (database.parent / "runs", database.parent / "datasets")
    return database.name == DATABASE and all(map(os.path.isdir, folders))


def artifacts_folder(database: Path, recorded: Path) -> Path:
    """Where the artifacts of a database's experiment are, of which it records a folder."""
    beside = database.parent / FOLDER
    if same_place(beside, recorded):
        return recorded
    if is_of_a_storage(database):
        return beside
    # One that was named apart from its storage has its files there. Beside it there may be other
    # files, of MLflow's own server; a copy has runs in common with its original.
    if os.path.isdir(recorded):
        return beside if _names(beside) & _names(recorded) else recorded
    return beside if os.path.isdir(beside) else recorded


def _names(folder: Path) -> set[str]:
    return set(os.listdir(folder)) if os.path.isdir(folder) else set()


def run_folder(tracking: str, artifact_uri: str) -> Path | None:
    """The folder of a run's artifacts; None where MLflow itself has to be asked for them."""
    # MLflow writes LOCATION/RUN/artifacts.
    location, _, run = artifact_uri.removesuffix("/artifacts").rpartition("/")
    database, recorded = database_of(tracking), recorded_folder(location)
    if database is None or recorded is None:
        return None
    return artifacts_folder(database, recorded) / run / "artifacts"


def same_place(one: Path, other: Path) -> bool:
    """Whether two paths lead to one folder, through links or mounts; also if it is still to be."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return one.resolve() == other.resolve()
