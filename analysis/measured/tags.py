"""Tags of MLflow runs that decide what a report shows: who writes or reads one imports these."""

from collections.abc import Sequence
from shlex import quote

from pipeline.errors import redacted

EXPERIMENT = "resnet-repro"
"""The MLflow experiment that all of it is in, unless it was renamed in the UI."""
OURS, OURS_VALUE = "made_by", "resnet-repro"
"""Tag of that experiment, by which it is found under another name."""

COMPLETE = "complete"
"""Tag (`yes`) of a run whose points, outcome and files are published, and of a whole sweep."""
ASKED, ALONE, IN_SWEEP = "asked", "alone", "sweep"
"""Tag of a run that says whether it was ever asked for outside a sweep, and its two values."""

INTERIM = "looks"
"""Tag (`yes`) of a run of a grid with interim analyses, whose tests share the level."""


def deleted_runs_note(tracking: str, mlflow_run_ids: Sequence[str]) -> str:
    """A line about runs that were deleted in MLflow, and the command that restores one."""
    store = quote(redacted(tracking))
    return (
        f"{len(mlflow_run_ids)} run(s) were deleted in MLflow and stay so: "
        f"`MLFLOW_TRACKING_URI={store} mlflow runs restore --run-id {mlflow_run_ids[0]}` restores "
        "one"
    )


def deleted_experiment(tracking: str, experiment_id: str) -> str:
    """What is wrong where our MLflow experiment was deleted, and the command that restores it."""
    store = quote(redacted(tracking))
    return (
        f"its experiment {EXPERIMENT} is deleted: `MLFLOW_TRACKING_URI={store} mlflow experiments "
        f"restore --experiment-id {experiment_id}` restores it"
    )
