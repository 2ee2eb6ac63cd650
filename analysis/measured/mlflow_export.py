"""MLflow to parquet: the only reader of MLflow; all else works offline on what it exports.

A run is a MLflow run that our publisher tagged `kind = run`, `kind = sweep` what was asked for as a
sweep, `kind = evaluation` what was evaluated later; parents, reports and foreign runs are passed
over.
"""

import logging
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Experiment, LifecycleStage, Run, ViewType

from analysis.measured.frames import EVALUATIONS, LAYERS, METRICS, RUNS, SWEEPS, Frames, check
from analysis.measured.local_artifacts import run_folder
from analysis.measured.tags import (
    ALONE,
    ASKED,
    COMPLETE,
    EXPERIMENT,
    INTERIM,
    OURS,
    OURS_VALUE,
    deleted_experiment,
    deleted_runs_note,
    known_tags,
)
from pipeline.errors import InputError, first_line, redacted
from pipeline.runs.history import DEVICE_SECONDS, JOULES
from pipeline.storage import regular_file
from pipeline.stored_json import MOST_BYTES, parse

PAGE = 200

logger = logging.getLogger(__name__)


class NoRunsError(InputError):
    """A tracking store that holds nothing of ours."""


class DeletedExperimentError(InputError):
    """Our MLflow experiment was deleted, and with it everything in it."""


def our_experiment(client: MlflowClient) -> Experiment | None:
    """Our MLflow experiment, under whatever name it has by now; None where there is none.

    Raises:
        DeletedExperimentError: it was deleted (says how it is restored).
    """
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        renamed = client.search_experiments(ViewType.ALL, 1, f"tags.{OURS} = '{OURS_VALUE}'")
        found = renamed[0] if renamed else None
    if found is not None and found.lifecycle_stage == LifecycleStage.DELETED:
        tracking = client.tracking_uri
        what = deleted_experiment(tracking, found.experiment_id)
        raise DeletedExperimentError(f"--tracking {tracking}: {what}")
    return found


def export(tracking: str, out: Path) -> Frames:
    """Write what a tracking store has to `out` as parquet; returns the frames, checked.

    Raises:
        InputError: the store cannot be read; NoRunsError where it holds no runs of ours.
    """
    frames = read_frames(tracking)
    try:
        # Beside the target and then renamed: whoever reads meanwhile finds whole files.
        out.mkdir(parents=True, exist_ok=True)
        for name, frame in frames._asdict().items():
            partial = out / f".{name}.parquet"
            frame.to_parquet(partial, index=False)
            partial.replace(out / f"{name}.parquet")
    except OSError as error:
        raise InputError(f"cannot export to {out}: {error.strerror or error}") from error
    return frames


def read_frames(tracking: str, curves: bool = True) -> Frames:
    """What a tracking store has, checked; without `curves` runs with their last values alone.

    That is one request for hundreds of runs, where a curve is one for each metric of each run.
    Sweeps and evaluations are left out then too: no file is fetched.

    Raises:
        InputError: as `export` does.
    """
    empty = f"{tracking} holds no runs yet; `resnet-repro train` or `resnet-repro grid` makes some"
    # MLflow would create a database that is not there, and a report of nothing would look right.
    if tracking.startswith("sqlite:///") and not Path(tracking.removeprefix("sqlite:///")).exists():
        raise NoRunsError(empty)  # opening it would make it
    client = MlflowClient(tracking)
    try:
        ours = our_experiment(client)
        runs = _search(client, ours.experiment_id, "run") if ours else []
        deleted = _only_deleted(client, ours.experiment_id, runs) if ours else ()
        whole = ours if curves else None
        sweep_runs = _search(client, whole.experiment_id, "sweep") if whole else []
        evaluation_runs = _search(client, whole.experiment_id, "evaluation") if whole else []
        # Only what was published whole: a half-sent sweep would miss cells without a word.
        evaluated = [
            row
            for run in evaluation_runs
            if _complete(run)
            for row in _artifact(client, run, "evaluation.json")
        ]
        cells = [
            cell
            for run in sweep_runs
            if _complete(run)
            for cell in _artifact(client, run, "sweep.json")
        ]
        layer_rows = [row for run in runs if curves for row in _layers(client, run)]
    except DeletedExperimentError:
        raise
    except FileNotFoundError as error:  # of a database whose files were not moved with it
        raise InputError(
            f"--tracking {tracking}: has lost {error.filename}; `resnet-repro sync` sends the "
            "files of runs again, and a grid's command those of its sweep"
        ) from error
    except Exception as error:
        raise InputError(f"--tracking {tracking}: cannot be read ({first_line(error)})") from error
    if not runs and deleted:
        raise NoRunsError(f"--tracking {tracking}: {deleted_runs_note(tracking, deleted)}")
    if not runs:
        raise NoRunsError(empty)
    if deleted and curves:  # whoever wants no curves is no report
        warn_of_deleted(tracking, deleted)
    # The columns are those of the schema even where there is no row at all.
    rows = pd.DataFrame(
        [_row(run) | {"mlflow_url": _page(tracking, run)} for run in runs], columns=list(RUNS)
    )
    points = pd.DataFrame(
        [point for run in runs for point in _points(client, run, curves)], columns=list(METRICS)
    )
    layers = pd.DataFrame(layer_rows, columns=list(LAYERS))
    sweeps = pd.DataFrame(cells, columns=list(SWEEPS)).astype({"unchanged": "bool"})
    evaluations = pd.DataFrame(evaluated, columns=list(EVALUATIONS)).astype({"dirty": "bool"})
    return check(rows, points, layers, sweeps, evaluations)


@cache
def warn_of_deleted(tracking: str, mlflow_run_ids: tuple[str, ...]) -> None:
    """Warn of runs that were deleted in MLflow: once, though a command meets them several times."""
    logger.warning("%s", deleted_runs_note(tracking, mlflow_run_ids))


def _only_deleted(client: MlflowClient, experiment_id: str, runs: list[Run]) -> tuple[str, ...]:
    """MLflow's ids of deleted runs of ours that have no other copy among `runs`."""
    there = {run.data.tags["run_key"] for run in runs}
    found = _search(client, experiment_id, "run", ViewType.DELETED_ONLY)
    return tuple(run.info.run_id for run in found if run.data.tags["run_key"] not in there)


def _search(
    client: MlflowClient, experiment_id: str, kind: str, which: int = ViewType.ACTIVE_ONLY
) -> list[Run]:
    runs: list[Run] = []
    token: str | None = None
    # MLflow gives a page at a time, and a token as long as there is another.
    while True:
        page = client.search_runs(
            [experiment_id], f"tags.kind = '{kind}'", which, max_results=PAGE, page_token=token
        )
        runs.extend(page)
        token = page.token
        if not token:
            return runs


def _row(run: Run) -> dict[str, Any]:
    tags = known_tags(run.data.tags)
    # MLflow has no status for a run that diverged: our own tag says so, once it has ended.
    outcome = tags.get("outcome") if run.info.status in ("FINISHED", "FAILED") else None
    return {
        "run_id": tags["run_key"],
        **{
            key: tags.get(key, "")
            for key in ("experiment", "fingerprint", "dataset", "dataset_id", "overrides")
        },
        # Tags are texts; what a run published before a tag existed lacks gets its old meaning.
        "comparable": tags.get("comparable") == "True",
        "alone": tags.get(ASKED, ALONE) == ALONE,
        "looks": tags.get(INTERIM) == "yes",
        **{key: int(tags[key]) for key in ("seed", "iterations", "params")},
        "status": outcome or run.info.status,
        "reason": tags.get("reason"),
        **{
            key: int(tags[key]) if key in tags else None
            for key in ("warmup_end", "converging_from", "converging_rule")
        },
        **{key: int(tags.get(key, 1)) for key in ("world_size", "threads")},
        **{key: tags.get(key, "unknown") for key in ("device", "commit", "hardware")},
        **{key: tags.get(key) == "True" for key in ("dirty", "one_pass")},
        "drift": tags.get("drift"),
        **{key: float(tags[key]) if key in tags else None for key in (DEVICE_SECONDS, JOULES)},
        "versions": tags.get("versions", "{}"),
        "mlflow_run_id": run.info.run_id,
        "started_ms": run.info.start_time,
        "ended_ms": run.info.end_time,
    }


def _page(tracking: str, run: Run) -> str | None:
    """A run's page on the server, without user and password; None where the store is a database."""
    if not tracking.startswith(("http://", "https://")):
        return None
    # The page is opened by whoever reads the report: no password may travel in it.
    parts = urlsplit(redacted(tracking))
    server = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    return f"{server}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"


def _points(client: MlflowClient, run: Run, curves: bool) -> list[dict[str, Any]]:
    """Each measurement once: a point that was sent twice is one point."""
    points = {
        # A dictionary by name and step: of a point that was sent twice, one stays.
        (point.key, point.step): (point.value, point.timestamp)
        for history in (
            (client.get_metric_history(run.info.run_id, name) for name in run.data.metrics)
            if curves
            else [run.data.to_proto().metrics]
        )
        for point in history
    }
    return [
        {
            "run_id": run.data.tags["run_key"],
            "metric": name,
            "iteration": step,
            "value": value,
            "time_ms": time_ms,
        }
        for (name, step), (value, time_ms) in sorted(points.items())
    ]


def _layers(client: MlflowClient, run: Run) -> list[dict[str, Any]]:
    """What a finished run measured in its layers, from its `result.json`."""
    if not _complete(run):
        return []
    result = _artifact(client, run, "result.json")
    return [
        {
            "run_id": run.data.tags["run_key"],
            "iteration": measured["iteration"],
            "quantity": measured["quantity"],
            "layer": number,
            "name": name,
            "value": value,
        }
        for measured in result.get("layers", [])
        for number, (name, value) in enumerate(
            zip(measured["layers"], measured["values"], strict=True), 1
        )
    ]


def _complete(run: Run) -> bool:
    return known_tags(run.data.tags).get(COMPLETE) == "yes"


def _artifact(client: MlflowClient, run: Run, name: str) -> Any:
    """A JSON artifact of a run, parsed."""
    if folder := run_folder(client.tracking_uri, run.info.artifact_uri):
        return parse(regular_file(folder / name, MOST_BYTES))
    with TemporaryDirectory() as place:
        file = client.download_artifacts(run.info.run_id, name, place)
        return parse(regular_file(file, MOST_BYTES))
