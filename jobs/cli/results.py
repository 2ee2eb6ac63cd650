"""What is done with results: `report`, `audit`, `sync` and `ui`."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from jobs.requests.options import (
    StorageOption,
    TrackingOption,
    check_tracking,
    tracking_of,
)
from pipeline.errors import InputError, first_line, redacted
from pipeline.runs.run import Run
from pipeline.storage import Storage


def report(
    storage_uri: StorageOption = "results",
    tracking: TrackingOption = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="Exported parquet instead of MLflow.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report; default: STORAGE/report.")
    ] = None,
) -> None:
    """Regenerate the paper's tables, figures and claims from what was measured.

    Examples:

    * `resnet-repro report --storage results/demo`

    * `resnet-repro report --from results/demo/export --out report`: offline, from the exported
      parquet alone
    """
    if source is not None:
        from analysis.measured.frames import load
        from analysis.report.report import INDEX, write_report

        out = out or Path("report")
        write_report(load(source), out)
        print(f"report: {out / INDEX}")
        return
    storage = Storage(storage_uri)
    report_on(tracking_of(tracking, storage), storage, out)


def audit(
    folder: Annotated[Path, typer.Argument(metavar="REPORT", help="A report's folder.")],
) -> None:
    """Make a report again from the data that it carries, offline, and name every file that differs.

    Example: `resnet-repro audit results/demo/report`
    """
    from analysis.report.artifact_provenance import audit as differences
    from analysis.report.report import report_files

    wrong = differences(folder, report_files)
    for line in wrong:
        print(line)
    print(
        f"{len(wrong)} files are not as they should be"
        if wrong
        else "every file is what the report's data gives"
    )
    if wrong:
        raise SystemExit(1)


def sync(storage_uri: StorageOption = "results", tracking: TrackingOption = None) -> None:
    """Send MLflow what it does not have yet of the runs in a storage, exactly once.

    For after a server was away; a run that is being trained publishes itself.
    Example: `resnet-repro sync --storage results/demo`
    """
    from jobs.tracking.other_publications import publish_stored

    storage = Storage(storage_uri)
    store = tracking_of(tracking, storage)
    check_tracking(store, storage)
    try:
        completed = publish_stored(store, storage, print)
    except Exception as error:
        print(
            f"error: MLflow at {redacted(store)} ({first_line(error)}); give the same command "
            "again",
            file=sys.stderr,
        )
        raise SystemExit(1) from error
    runs = "run" if completed == 1 else "runs"
    print(
        f"{completed} {runs} completed in {redacted(store)}"
        if completed
        else f"{redacted(store)} has everything"
    )


def ui(
    storage: StorageOption = "results",
    tracking: Annotated[
        str | None, typer.Option(help="sqlite:///FILE; default: in the storage.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port on loopback.")] = 5000,
) -> None:
    """Browse the runs in the MLflow UI, on loopback.

    Example: `resnet-repro ui --storage results/demo --port 5001`. In its search box,
    `tags.experiment = "resnet20"` or `tags."grid.table6" = "yes"` finds runs.
    """
    store = tracking_of(tracking, Storage(storage))
    if store.startswith("http"):
        raise InputError(f"--tracking {store}: is a server already; open it in a browser")
    if store.startswith("sqlite") and not Path(store.removeprefix("sqlite:///")).exists():
        raise InputError(
            f"{store} does not exist; `resnet-repro train` or `resnet-repro grid` makes it"
        )
    from jobs.tracking.store import runs_page

    print(f"MLflow UI: http://127.0.0.1:{port}{runs_page(store)} (Ctrl-C ends it)", flush=True)
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        store,
        "--host",
        "127.0.0.1",
    ]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with suppress(KeyboardInterrupt):
        ended = subprocess.run(
            [*command, "--port", str(port), "--workers", "1"], env=os.environ | quiet, check=False
        )
        raise SystemExit(ended.returncode)


def warn_on_tracking_error(action: Callable[[], object], tracking: str) -> None:
    """Do something with MLflow that nothing depends on: a warning is all that its failure costs."""
    try:
        action()
    except Exception as error:
        print(
            f"warning: MLflow at {redacted(tracking)} cannot be used now ({first_line(error)})",
            file=sys.stderr,
        )


def report_on(
    tracking: str,
    storage: Storage,
    out: Path | None = None,
    runs: list[Run] | None = None,
    sweeps: Collection[str] = (),
) -> None:
    """Export, report (on `runs` and the sweeps of these ids alone, if given), keep it in MLflow,
    and say where it is.
    """
    from analysis.measured.bundle import merged
    from analysis.measured.mlflow_export import NoRunsError, export
    from analysis.report.report import INDEX, write_report
    from jobs.cli.bundles import imported
    from jobs.tracking.other_publications import log_report

    base = storage.local or Path("results")
    out = out or base / "report"
    parts = imported(storage) if runs is None else []
    try:
        parts = [(tracking, export(tracking, base / "export")), *parts]
    except NoRunsError:
        if not parts:
            raise
    frames = merged(parts)
    if runs is not None:
        frames = frames.of({run.key for run in runs}, sweeps)
    files = write_report(frames, out)
    warn_on_tracking_error(lambda: log_report(tracking, storage, out, files), tracking)
    print(f"report: {out / INDEX}  (open it in a browser)")
    print(f"runs in the MLflow UI: {_ui_command(tracking, storage)}")


def _ui_command(tracking: str, storage: Storage) -> str:
    """What to type, or to open, to see the runs: with the path of this command where a shell would
    not find it.
    """
    from jobs.tracking.store import default_tracking

    if not tracking.startswith("sqlite"):
        return redacted(tracking)
    mine = storage.local is not None and tracking == default_tracking(storage)
    command = "resnet-repro" if shutil.which("resnet-repro") else str(Path(sys.argv[0]))
    return f"{command} ui " + (
        f"--storage {storage.local}" if mine else f"--tracking {redacted(tracking)}"
    )
