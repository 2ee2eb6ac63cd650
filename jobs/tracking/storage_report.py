"""The report on what a storage's runs measured: exported from MLflow, written, and kept there."""

import shutil
import sys
from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory

from analysis.measured.bundle import merged
from analysis.measured.mlflow_export import NoRunsError, export
from analysis.report.report import INDEX, write_report
from analysis.report.report_folder import others_line
from jobs.tracking.best_effort import warn_on_tracking_error
from jobs.tracking.imported_bundles import imported_bundles
from jobs.tracking.other_publications import log_report
from jobs.tracking.server_check import check_database
from jobs.tracking.store import default_tracking
from pipeline.errors import redacted
from pipeline.runs.run import Run
from pipeline.storage import Storage


def report_on(
    tracking: str,
    storage: Storage,
    out: Path | None = None,
    runs: list[Run] | None = None,
    sweeps: Collection[str] = (),
    seeds: Collection[int] | None = None,
) -> None:
    """Export, write the report, keep it in MLflow, and say where it is.

    With `runs`, it is about these runs and the sweeps of these ids alone; else also about what was
    imported into the storage. With `seeds`, it is about runs of these alone.
    """
    # What is in a bucket is reported on here, as a browser opens files of this machine.
    base = storage.local or Path("results")
    # A report that goes elsewhere writes nothing to the storage, which may be read-only.
    keep = base / "export" if out is None else None
    out = out or base / "report"
    check_database(tracking)
    parts = imported_bundles(storage) if runs is None else []
    try:
        with TemporaryDirectory() as scratch:
            parts = [(tracking, export(tracking, keep or Path(scratch))), *parts]
    except NoRunsError:  # of this storage's own; imported ones are enough for a report
        if not parts:
            raise
    frames = merged(parts)
    if runs is not None:
        frames = frames.of({run.key for run in runs}, sweeps)
    if seeds is not None:
        frames = frames.of_seeds(seeds)
    # Written first: the copy in MLflow is for others, and may fail.
    files = write_report(frames, out)
    warn_on_tracking_error(lambda: log_report(tracking, storage, out, files), tracking)
    print(f"report: {out / INDEX}  (open it in a browser)")
    if others := others_line(out, files):
        print(others)
    print(f"runs in the MLflow UI: {_ui_command(tracking, storage)}")


def _ui_command(tracking: str, storage: Storage) -> str:
    """What to type, or to open, to see the runs."""
    if not tracking.startswith("sqlite"):
        return redacted(tracking)
    # Where a shell would not find the command, it is named by the path it was called by.
    command = "resnet-repro" if shutil.which("resnet-repro") else str(Path(sys.argv[0]))
    if storage.local is not None and tracking == default_tracking(storage):
        return f"{command} ui --storage {storage.local}"
    return f"{command} ui --tracking {redacted(tracking)}"
