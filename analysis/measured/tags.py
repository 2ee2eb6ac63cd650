"""Tags of MLflow runs that decide what a report shows: who writes or reads one imports these."""

from collections.abc import Mapping, Sequence
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

MADE_MS = "made_ms"
"""Tag of when an MLflow run was made (Unix, ms): what it is about may have begun long before."""

INTERIM = "looks"
"""Tag (`yes`) of a run of a grid with interim analyses, whose tests share the level."""

HIDDEN = "mlflow.resnet_repro."
"""How the name of a tag begins that no person reads: MLflow's UI shows none that is of `mlflow.`"""
BOOKKEEPING = frozenset(
    [
        "fingerprint",
        "overrides",
        "iterations",
        "params",
        "dataset_id",
        "comparable",
        "asked",
        "looks",
        "complete",
        "made_ms",
        "parent_key",
        "threads",
        "world_size",
        "dirty",
        "one_pass",
        "compiled",
        "versions",
        "warmup_end",
        "converging_from",
        "converging_rule",
    ]
)
"""Tags that only programs read. Earlier versions wrote them without `HIDDEN`."""


def stored_name(tag: str) -> str:
    """What MLflow knows a tag of ours by."""
    return HIDDEN + tag if tag in BOOKKEEPING else tag


def stored_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags of ours as MLflow gets them."""
    return {stored_name(name): value for name, value in tags.items()}


def known_tags(stored: Mapping[str, str]) -> dict[str, str]:
    """The tags of an MLflow run by our own names, whichever version wrote them."""
    hidden = {
        name.removeprefix(HIDDEN): value
        for name, value in stored.items()
        if name.startswith(HIDDEN)
    }
    return dict(stored) | hidden


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
