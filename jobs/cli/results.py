"""`resnet-repro report`, `audit`, `sync` and `ui`: what is done with results."""

import socket
from pathlib import Path
from typing import Annotated

import typer

from jobs.console.console import failed
from jobs.requests.options import (
    MOST_SEEDS,
    StorageOption,
    TrackingOption,
    check_tracking,
    tracking_of,
)
from jobs.requests.storage_failures import failures_in_one_line
from pipeline.errors import InputError, first_line, redacted
from pipeline.storage import Storage

HIGHEST_PORT = 65_535
OTHER_VERSION = 3
"""Exit code of `audit` for a report that only the version that made it can make again."""


def report(
    storage_uri: StorageOption = "results",
    tracking: TrackingOption = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="A folder of exported parquet, read instead of MLflow."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report; default: STORAGE/report.")
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="SEEDS", help="Judge these alone, such as 0-4; name them beforehand."),
    ] = None,
) -> None:
    """Regenerate the paper's tables, figures and claims from what was measured.

    Examples:

    * `resnet-repro report --storage results/demo`

    * `resnet-repro report --from results/demo/export --out report`: offline, from the exported
      parquet alone
    """
    chosen = _seeds(seeds) if seeds is not None else None
    # Offline: neither storage nor MLflow is touched, the frames carry all that a report needs.
    if source is not None:
        from analysis.measured.frames import load
        from analysis.report.report import INDEX, write_report
        from analysis.report.report_folder import others_line

        out = out or Path("report")
        frames = load(source)
        with failures_in_one_line(str(out)):
            files = write_report(frames if chosen is None else frames.of_seeds(chosen), out)
        print(f"report: {out / INDEX}")
        if others := others_line(out, files):
            print(others)
        return
    from jobs.tracking.storage_report import report_on

    storage = Storage(storage_uri)
    with failures_in_one_line(str(out) if out else storage.uri):
        report_on(tracking_of(tracking, storage), storage, out, seeds=chosen)


def _seeds(text: str) -> list[int]:
    """`0-4` or `0,2,5` as numbers."""
    named: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        numbers = (first, last or first)
        # Short ones: Python refuses to read a number of thousands of digits.
        if not all(number.isdecimal() and len(number) <= 19 for number in numbers):
            raise InputError(f"--seeds {text}: expected numbers such as 0-4 or 0,1,2")
        named += range(int(numbers[0]), int(numbers[1]) + 1)[: MOST_SEEDS + 1]
        if len(named) > MOST_SEEDS:
            raise InputError(f"--seeds {text}: names more than {MOST_SEEDS:,} seeds")
    return named


def audit(
    folder: Annotated[Path, typer.Argument(metavar="REPORT", help="A report's folder.")],
) -> None:
    """Make a report again from the data that it carries, offline, and name every file that differs.

    Exit code 1: a file was changed. Exit code 3: none was, but the report is of another version,
    which makes files otherwise of the same data.

    Example: `resnet-repro audit results/demo/report`
    """
    # Named apart from this command, which only prints what the comparison finds.
    from analysis.report.artifact_provenance import audit as compare
    from analysis.report.report import report_files

    found = compare(folder, report_files)
    for name, what in sorted(found.wrong.items()):
        print(f"{name} {what}")
    for name, what in sorted(found.otherwise.items()):
        print(f"{name} {what} here")
    if found.wrong:
        print(f"{len(found.wrong)} files are not as they should be")
        raise SystemExit(1)
    if found.otherwise:
        print(
            f"{len(found.otherwise)} files are made otherwise here, and none was changed: the "
            f"report was made by another version ({', '.join(found.versions)})"
        )
        raise SystemExit(OTHER_VERSION)
    print("every file is what the report's data gives")


def sync(storage_uri: StorageOption = "results", tracking: TrackingOption = None) -> None:
    """Send MLflow what it does not have yet of the runs in a storage, exactly once.

    For after a server was away; a run that is being trained publishes itself.
    Example: `resnet-repro sync --storage results/demo`
    """
    from jobs.tracking.other_publications import publish_stored

    storage = Storage(storage_uri)
    store = tracking_of(tracking, storage)
    check_tracking(store, storage)
    # A server may go away in the middle: what was sent stays, and the next try sends the rest.
    try:
        completed = publish_stored(store, storage, print)
    except Exception as error:
        why = f"MLflow at {redacted(store)} ({first_line(error)})"
        raise failed(f"{why}; give the same command again") from error
    runs = "run" if completed == 1 else "runs"
    print(
        f"{completed} {runs} completed in {redacted(store)}"
        if completed
        else f"{redacted(store)} has everything"
    )


def ui(
    storage: StorageOption = "results",
    tracking: Annotated[
        str | None,
        typer.Option(
            metavar="URI", help="sqlite:///FILE; default: MLFLOW_TRACKING_URI, or in the storage."
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="Port on loopback.", min=1, max=HIGHEST_PORT)] = 5000,
) -> None:
    """Browse the runs in the MLflow UI, on loopback.

    Example: `resnet-repro ui --storage results/demo --port 5001`. In its search box,
    `tags.experiment = "resnet20"` or `tags."grid.table6" = "yes"` finds runs.
    """
    place = Storage(storage)
    store = tracking_of(tracking, place)
    # Only a database needs a server to be started for it.
    if store.startswith("http"):
        raise InputError(
            f"{store} is a server already: open it in a browser, or name a database with "
            "--tracking sqlite:///FILE"
        )
    if store.startswith("sqlite") and not Path(store.removeprefix("sqlite:///")).exists():
        raise InputError(
            f"{store} does not exist; `resnet-repro train` or `resnet-repro grid` makes it"
        )
    from jobs.tracking.local_store import rehome
    from jobs.tracking.ui_server import serve

    free = next((each for each in range(port, HIGHEST_PORT + 1) if _is_free(each)), None)
    if free != port:
        instead = f"; --port {free} is free" if free else "; name another"
        raise InputError(f"--port {port}: is taken by another server{instead}")
    rehome(store, place, for_server=True)
    serve(store, port, lambda text: print(text, flush=True))


def _is_free(port: int) -> bool:
    """Whether nobody listens on a port of loopback."""
    with socket.socket() as probe:
        # As servers do: a connection that has just ended does not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
