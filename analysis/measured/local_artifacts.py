"""Where the artifacts of a local tracking store lie: in a folder beside its database.

MLflow records absolute places. Of a storage that was moved or copied they are another's, so files
of its runs are looked for, and written, by where the database is now.
"""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

FOLDER = "mlartifacts"


def database_of(tracking: str) -> Path | None:
    """The file of a tracking store that is a SQLite database; None for any other."""
    return Path(tracking.partition(":///")[2]).absolute() if tracking.startswith("sqlite") else None


def recorded_folder(artifact_location: str) -> Path | None:
    """The folder that an experiment in a database records for its artifacts; None for others."""
    parts = urlsplit(artifact_location)
    path = Path(unquote(parts.path))
    return path if parts.scheme in ("", "file") and path.name == FOLDER else None


def artifacts_folder(database: Path, recorded: Path) -> Path:
    """Where the artifacts of a database's experiment are, of which it records a folder."""
    beside = database.parent / FOLDER
    if same_place(beside, recorded):
        return recorded
    # A database that was named apart from its storage may have its artifacts there. What is gone
    # there is as good as lost, and what is new goes beside the database.
    in_a_storage = os.path.isdir(beside) or os.path.isdir(database.parent / "runs")
    return beside if in_a_storage or not os.path.isdir(recorded) else recorded


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
