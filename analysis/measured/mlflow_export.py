"""MLflow to parquet: the only reader of MLflow; all else works offline on what it exports.

A run is a MLflow run that our publisher tagged `kind = run`, `kind = sweep` what was asked for as a
sweep, `kind = evaluation` what was evaluated later; parents, reports and foreign runs are passed
over.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run

from analysis.measured.frames import EVALUATIONS, LAYERS, METRICS, RUNS, SWEEPS, Frames, check
from analysis.measured.tags import ALONE, ASKED, COMPLETE, INTERIM
from pipeline.errors import InputError, first_line, redacted
from pipeline.storage import regular_file
from pipeline.stored_json import MOST_BYTES, parse

PAGE = 200


class NoRunsError(InputError):
    """A tracking store that holds nothing of ours."""


def export(tracking: str, out: Path, experiment: str = "resnet-repro") -> Frames:
    """Write what a tracking store has to `out` as parquet; returns the frames, checked.

    Raises:
        InputError: the store cannot be read; NoRunsError where it holds no runs of ours.
    """
    empty = f"{tracking} holds no runs yet; `resnet-repro train` or `resnet-repro grid` makes some"
    # MLflow would create a database that is not there, and a report of nothing would look right.
    if tracking.startswith("sqlite:///") and not Path(tracking.removeprefix("sqlite:///")).exists():
        raise NoRunsError(empty)  # opening it would make it
    client = MlflowClient(tracking)
    try:
        ours = client.get_experiment_by_name(experiment)
        runs = _search(client, ours.experiment_id, "run") if ours else []
        sweep_runs = _search(client, ours.experiment_id, "sweep") if ours else []
        evaluation_runs = _search(client, ours.experiment_id, "evaluation") if ours else []
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
        layer_rows = [row for run in runs for row in _layers(client, run)]
    except Exception as error:
        raise InputError(f"--tracking {tracking}: cannot be read ({first_line(error)})") from error
    if not runs:
        raise NoRunsError(empty)
    # The columns are those of the schema even where there is no row at all.
    rows = pd.DataFrame(
        [_row(run) | {"mlflow_url": _page(tracking, run)} for run in runs], columns=list(RUNS)
    )
    points = pd.DataFrame(
        [point for run in runs for point in _points(client, run)], columns=list(METRICS)
    )
    layers = pd.DataFrame(layer_rows, columns=list(LAYERS))
    sweeps = pd.DataFrame(cells, columns=list(SWEEPS)).astype({"unchanged": "bool"})
    evaluations = pd.DataFrame(evaluated, columns=list(EVALUATIONS)).astype({"dirty": "bool"})
    frames = check(rows, points, layers, sweeps, evaluations)
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


def _search(client: MlflowClient, experiment_id: str, kind: str) -> list[Run]:
    runs: list[Run] = []
    token: str | None = None
    # MLflow gives a page at a time, and a token as long as there is another.
    while True:
        page = client.search_runs(
            [experiment_id], f"tags.kind = '{kind}'", max_results=PAGE, page_token=token
        )
        runs.extend(page)
        token = page.token
        if not token:
            return runs


def _row(run: Run) -> dict[str, Any]:
    tags = run.data.tags
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


def _points(client: MlflowClient, run: Run) -> list[dict[str, Any]]:
    """Each measurement once: a point that was sent twice is one point."""
    points = {
        # A dictionary by name and step: of a point that was sent twice, one stays.
        (name, point.step): (point.value, point.timestamp)
        for name in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, name)
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
    return run.data.tags.get(COMPLETE) == "yes"


def _artifact(client: MlflowClient, run: Run, name: str) -> Any:
    """A JSON artifact of a run, parsed."""
    with TemporaryDirectory() as folder:
        file = client.download_artifacts(run.info.run_id, name, folder)
        return parse(regular_file(file, MOST_BYTES))
