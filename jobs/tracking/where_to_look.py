"""Where a storage's report is, and what shows its runs: the last lines of a command that trains."""

import shutil
import sys
from contextlib import suppress
from pathlib import Path

from jobs.tracking.server_check import is_server
from jobs.tracking.store import default_tracking, pages
from pipeline.errors import redacted
from pipeline.storage import Storage


def ui_command(tracking: str, storage: Storage) -> str:
    """What to type, or to open, to see the runs."""
    if not tracking.startswith("sqlite"):
        return redacted(tracking)
    if _is_own(tracking, storage):
        return f"{own_name()} ui --storage {storage.local}"
    return f"{own_name()} ui --tracking {redacted(tracking)}"


def ui_lines(tracking: str, storage: Storage) -> str:
    """The same with what stands before it; of a server that answers, the links to our views."""
    if is_server(tracking):
        with suppress(Exception):  # a server that has just gone away has no views either
            server, views = redacted(tracking).rstrip("/"), pages(tracking)
            curves, results = (f"{server}{views[name]}" for name in ("curves", "results"))
            return f"runs in the MLflow UI: {curves}\nthe results there: {results}"
    return f"runs in the MLflow UI: {ui_command(tracking, storage)}"


def _is_own(tracking: str, storage: Storage) -> bool:
    """Whether the tracking store is the one that a storage holds itself."""
    return storage.local is not None and tracking == default_tracking(storage)


def own_name() -> str:
    """This command; by the path it was called by where a shell would not find it."""
    if shutil.which("resnet-repro"):
        return "resnet-repro"
    called = Path(sys.argv[0])
    return "python -m jobs.cli" if called.name == "__main__.py" else str(called)


def say_where_to_look(tracking: str, storage: Storage) -> None:
    """Print how a report is made of what a storage holds now, and what shows its runs."""
    store = "" if _is_own(tracking, storage) else f" --tracking {redacted(tracking)}"
    print(f"report: {own_name()} report --storage {redacted(storage.uri)}{store}")
    print(f"runs in the MLflow UI: {ui_command(tracking, storage)}")
