"""The report on what a storage's runs measured: exported from MLflow, written, and kept there."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from analysis.measured.bundle import merged
from analysis.measured.frames import Frames
from analysis.measured.mlflow_export import NoRunsError, export
from analysis.report.report import INDEX, write_report
from analysis.report.report_folder import others_line
from jobs.tracking.best_effort import warn_on_tracking_error
from jobs.tracking.imported_bundles import imported_bundles
from jobs.tracking.local_store import rehome
from jobs.tracking.other_publications import log_report
from jobs.tracking.row_verdicts import judge_parents
from jobs.tracking.server_check import check_database
from jobs.tracking.store import open_store
from jobs.tracking.where_to_look import ui_lines
from pipeline.runs.run import Run
from pipeline.storage import Storage


@dataclass(frozen=True)
class ReportPart:
    """A part of a storage that somebody asked for by one command: runs, and sweeps by their ids."""

    name: str
    """Of its folder."""
    runs: list[Run]
    sweeps: Collection[str]


def report_on(
    tracking: str,
    storage: Storage,
    out: Path | None = None,
    seeds: Collection[int] | None = None,
    part: ReportPart | None = None,
    say_first: Callable[[Frames], None] = lambda frames: None,
) -> None:
    """Export, write the report, keep it in MLflow, and say where it is.

    It is about all of the storage, what was imported included; with `seeds`, about runs of these
    alone. Where a `part` is not all there is, it gets a report of its own within the report's
    folder. `say_first` is called when all is written, before it is said where; it is given what was
    measured, of the part alone where there is one.
    """
    # What is in a bucket is reported on here, as a browser opens files of this machine.
    base = storage.local or Path("results")
    # A report that goes elsewhere writes nothing to the storage, which may be read-only.
    keep = base / "export" if out is None else None
    out = out or base / "report"
    check_database(tracking)
    parts = imported_bundles(storage)
    rehome(tracking, storage)
    published: Frames | None = None
    try:
        with TemporaryDirectory() as scratch:
            published = export(tracking, keep or Path(scratch))
            parts = [(tracking, published), *parts]
    except NoRunsError:  # of this storage's own; imported ones are enough for a report
        if not parts:
            raise
    frames = merged(parts)
    if seeds is not None:
        frames = frames.of_seeds(seeds)
    # Written first: the copy in MLflow is for others, and may fail.
    files = write_report(frames, out)

    def publish() -> None:
        log_report(tracking, storage, out, files)
        judge_parents(open_store(tracking, storage), published)

    warn_on_tracking_error(publish, tracking)
    own, of_part = None, frames
    if part is not None and not {run.key for run in part.runs}.issuperset(frames.runs.run_id):
        own, of_part = out / part.name, frames.of({run.key for run in part.runs}, part.sweeps)
        write_report(of_part, own)
    say_first(of_part)
    print(f"report: {out / INDEX}  (open it in a browser)")
    if others := others_line(out, files):
        print(others)
    if own is not None:
        print(f"of this grid alone: {own / INDEX}")
    print(ui_lines(tracking, storage))
