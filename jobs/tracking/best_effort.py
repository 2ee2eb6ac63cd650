"""What a command does with MLflow beside its runs: nothing depends on it, a failure is a warning.

MLflow is imported where it is used, so that a command which refuses its options does so at once.
"""

import sys
from collections.abc import Callable
from threading import Event
from time import time

from pipeline.errors import first_line, redacted
from pipeline.runs.run import Run
from pipeline.storage import Storage


def warn_on_tracking_error(action: Callable[[], object], tracking: str) -> None:
    """Do something with MLflow that nothing depends on; its failure costs a warning."""
    try:
        action()
    except Exception as error:  # whatever a server, a network or a database does
        print(
            f"warning: MLflow at {redacted(tracking)} cannot be used now ({first_line(error)})",
            file=sys.stderr,
        )


def complete_published(tracking: str, storage: Storage, runs: dict[Run, dict[str, str]]) -> None:
    """See that MLflow can be used, and that it has all of what ended before; `runs` with tags."""
    from jobs.tracking.other_publications import publish_ended

    warn_on_tracking_error(lambda: publish_ended(tracking, storage, runs), tracking)


def judge_published(tracking: str, storage: Storage) -> None:
    """Have MLflow say what the paper has beside what was measured, and the verdict."""
    from jobs.tracking.row_verdicts import judge_parents
    from jobs.tracking.store import open_store

    warn_on_tracking_error(lambda: judge_parents(open_store(tracking, storage)), tracking)


def on_interrupt(
    tracking: str, storage: Storage, runs: list[Run], stop: Event
) -> Callable[[], None]:
    """What Ctrl-C does before Ray is taken away: drivers in this process are told, and MLflow."""
    from jobs.tracking.other_publications import mark_interrupted

    started = int(time())

    def interrupted() -> None:
        # The drivers first: once told, they leave MLflow to the line below instead of calling the
        # run failed when their workers disappear.
        stop.set()
        warn_on_tracking_error(lambda: mark_interrupted(tracking, storage, runs, started), tracking)

    return interrupted


def warn_if_unpublished(published: list[bool], tracking: str) -> None:
    """Warn of runs that MLflow does not have in full."""
    missing = published.count(False)
    if not missing:
        return
    what = "not published"
    if len(published) > 1:
        what = f"{missing} of {len(published)} runs could not be published"
    print(
        f"warning: {what} to MLflow at {redacted(tracking)}; `resnet-repro sync` sends it when it "
        "is back",
        file=sys.stderr,
    )
