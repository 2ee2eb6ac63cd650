"""What commands publish to MLflow beside the runs themselves.

Ended runs again, interruptions, sweeps, evaluations, reports: each is found again by a key of its
own, so that publishing twice changes nothing. A run's own copy is `jobs.tracking.run_publisher`'s.
"""

import logging
from collections.abc import Callable, Mapping
from hashlib import blake2b
from io import BytesIO
from json import dumps
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException

from analysis.measured.local_artifacts import run_folder
from analysis.measured.mlflow_export import warn_of_deleted
from analysis.measured.tags import COMPLETE, stored_name, stored_tags
from analysis.report.page_alone import page_alone
from jobs.grids.sweeps import Sweep
from jobs.tracking.described_runs import is_outdated, manifest_of, mend, tags_of
from jobs.tracking.local_store import send_artifacts
from jobs.tracking.parents import parent_in, summarise_seeds
from jobs.tracking.registry import add_version
from jobs.tracking.row_verdicts import judge_parents
from jobs.tracking.run_publisher import (
    ENDED_STATES,
    TIME_LEFT,
    Publisher,
    missing_tags,
    outcome_of,
    remembered_tags,
)
from jobs.tracking.store import (
    deleted_runs,
    end_parent,
    experiment_id,
    only_run,
    open_store,
    our_runs,
    runs_with_deleted,
)
from pipeline.errors import InputError, first_line
from pipeline.runs.checkpoint import newest_history
from pipeline.runs.history import History
from pipeline.runs.lease import held_since, is_alive, living
from pipeline.runs.run import Run, read_result, stored_runs
from pipeline.storage import Storage, regular_file

logger = logging.getLogger(__name__)
MENDED = "MENDED"
"""What `sync` did with a whole copy that an earlier version made."""


def publish_ended(tracking: str, storage: Storage, runs: dict[Run, dict[str, str]]) -> None:
    """Complete the copies of a command's runs that have ended, and tag all that are published.

    `runs` are the runs of the command with their tags. A copy is incomplete where a server was
    away when its run ended.
    """
    client = open_store(tracking, storage)
    published = runs_with_deleted(client)
    deleted = deleted_runs(published)
    results = {run: read_result(storage, run) for run in runs}
    # What was deleted in MLflow by hand stays so, unless it is trained again.
    gone = [run for run in runs if results[run] is not None and run.key in deleted]
    kept = [run for run in runs if run not in gone]
    if gone:
        warn_of_deleted(tracking, tuple(deleted[run.key].info.run_id for run in gone))
    # Parents are made here, once: drivers that start together would make several at a time.
    for run in {(run.experiment, run.dataset_id): run for run in kept}.values():
        parent_in(client, storage, run)
    for run in kept:
        tags, result, copy = runs[run], results[run], published.get(run.key)
        if result is not None and not _is_complete(copy, tracking):
            Publisher(tracking, storage, run, tags).finish(outcome_of(result), result.get("reason"))
        elif copy is not None and run.key not in deleted:
            new = stored_tags(missing_tags(tags, tags_of(_mended(client, copy, storage, run))))
            for name, value in new.items():
                client.set_tag(copy.info.run_id, name, value)


def publish_stored(tracking: str, storage: Storage, say: Callable[[str], None]) -> int:
    """Send what the store does not have of the runs in storage; how many had to be completed.

    An ended run's copy becomes complete; one that stopped gets the points of its newest checkpoint
    and status KILLED. A run that is being trained is left to its own publisher, and one that was
    deleted in MLflow is left deleted. Parents are restored, and summarise what is there now.

    Raises:
        RuntimeError: some could not be sent (says which was the first, and why).
    """
    client = open_store(tracking, storage)
    published, completed = runs_with_deleted(client), 0
    deleted = deleted_runs(published)
    failed, shown = [], {}
    runs = stored_runs(storage)
    gone = [deleted[run.key] for run in runs if run.key in deleted]
    if gone:
        warn_of_deleted(tracking, tuple(copy.info.run_id for copy in gone))
    # Looked at for certain, all at once: a clock that was put forward makes no run a stopped one.
    alive = living(storage, [run for run in runs if read_result(storage, run) is None])
    for run in runs:
        if run.key in deleted:
            continue
        # One run that cannot be sent is no reason not to send the others.
        try:
            # A living run has a publisher of its own, and two would take turns in saying how it
            # ended.
            lives = run in alive or is_alive(storage, run)
            copy = published.get(run.key)
            outcome = "" if lives else _send_again(client, copy, tracking, storage, run)
            if outcome or run.key in published:
                shown[run.experiment, run.dataset_id] = run
        except Exception as error:
            failed.append(f"{run}: {first_line(error)}")
            continue
        if outcome:
            completed += 1
            say(f"{run}: {outcome.lower()}")
    for run in shown.values():
        try:
            summarise_seeds(client, storage, run, parent_in(client, storage, run))
        except FileNotFoundError:  # its dataset was deleted; what was said of it stands
            continue
        except Exception as error:
            failed.append(f"{run}: {first_line(error)}")
    if shown:
        try:
            judge_parents(client)
        except InputError as error:  # runs that no report takes; they are published all the same
            logger.warning("no verdicts in MLflow: %s", first_line(error))
        except Exception as error:
            failed.append(f"verdicts: {first_line(error)}")
    # The others were sent: the first reason stands for all, as it is mostly the same.
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise RuntimeError(f"{failed[0]}{more}")
    return completed


def _is_complete(copy: MlflowRun | None, tracking: str) -> bool:
    """Whether a run's copy has everything, its final weights included; set last of all."""
    # One that was deleted, restored and gone on with has the tags of before.
    if copy is None or copy.info.status == "RUNNING" or tags_of(copy).get(COMPLETE) != "yes":
        return False
    # A database may have been moved without its files.
    folder = run_folder(tracking, copy.info.artifact_uri)
    return folder is None or (folder / "result.json").is_file()


def _mended(client: MlflowClient, copy: MlflowRun, storage: Storage, run: Run) -> MlflowRun:
    """A whole copy as copies are today, whichever version made it."""
    if not is_outdated(copy):
        return copy
    manifest, result = manifest_of(storage, run), read_result(storage, run)
    if result is not None and result["status"] == "finished":
        add_version(client, copy.info.run_id, run, manifest, result)
    mend(client, copy, run, manifest)
    return client.get_run(copy.info.run_id)


def _send_again(
    client: MlflowClient, copy: MlflowRun | None, tracking: str, storage: Storage, run: Run
) -> str:
    """As `_send`, twice where need be: another `sync` may have sent the same at the same moment."""
    try:
        return _send(client, copy, tracking, storage, run)
    except MlflowException:
        return _send(client, our_runs(client).get(run.key), tracking, storage, run)


def _send(
    client: MlflowClient, copy: MlflowRun | None, tracking: str, storage: Storage, run: Run
) -> str:
    """Complete a run's copy; how the run ended, empty if there was nothing to send."""
    if copy is not None and _is_complete(copy, tracking):
        return "" if _mended(client, copy, storage, run) is copy else MENDED
    result, history = read_result(storage, run), newest_history(storage, run)
    if result is not None:
        outcome, reason = outcome_of(result), result.get("reason")
    elif history is not None or copy is not None:
        outcome, reason = "KILLED", "interrupted"
    else:
        return ""
    if result is None and _is_up_to_date(client, copy, outcome, history):
        return ""
    Publisher(tracking, storage, run, remembered_tags(storage, run)).finish(outcome, reason)
    return outcome


def _is_up_to_date(
    client: MlflowClient, copy: MlflowRun | None, outcome: str, history: History | None
) -> bool:
    """Whether a stopped run's copy says so already, with all that its newest checkpoint has."""
    if copy is None or copy.info.status == "RUNNING" or copy.data.tags.get("outcome") != outcome:
        return False
    last = history.points[-1] if history and history.points else None
    if last is None:
        return True
    # Points are sent in their order, so the last one stands for all of them.
    sent = client.get_metric_history(copy.info.run_id, last.metric)
    return any(point.step == last.iteration for point in sent)


def mark_interrupted(tracking: str, storage: Storage, runs: list[Run], started: int) -> None:
    """Say of a command's runs that have not ended that they are not running any more.

    `started` is when the command was (Unix, seconds): what was held before that is another's.
    """
    client = open_store(tracking, storage)
    published = our_runs(client, "attributes.status = 'RUNNING'")
    for run in runs:
        copy = published.get(run.key)
        others = (held_since(storage, run) or started) < started
        if copy is not None and not others and read_result(storage, run) is None:
            tags = {"outcome": "KILLED", "reason": "interrupted", "state": ENDED_STATES["KILLED"]}
            client.log_batch(copy.info.run_id, tags=[RunTag(*item) for item in tags.items()])
            if TIME_LEFT in copy.data.tags:
                client.delete_tag(copy.info.run_id, TIME_LEFT)
            client.set_terminated(copy.info.run_id, "KILLED")
            end_parent(client, parent_in(client, storage, run), "KILLED")


def publish_sweep(
    tracking: str, storage: Storage, sweep: Sweep, dataset_id: str, dataset: str
) -> None:
    """Keep what a sweep consists of, so that a report keeps it apart from the reproduction."""
    client, cells = open_store(tracking, storage), sweep.facts(dataset_id)
    # The ledger is known by its name; other sweeps by the fields that vary.
    name = sweep.name if sweep.name == "ledger" else f"sweep of {sweep.name}"
    tags = {
        "kind": "sweep",
        "mlflow.runName": f"{name} on {dataset}",
        "dataset": dataset,
        "dataset_id": dataset_id,
    }
    run_id = only_run(client, experiment_id(client), "sweep_key", cells[0]["sweep"], tags)
    send_artifacts(client, run_id, {"sweep.json": dumps(cells, indent=1).encode()})
    client.set_tag(run_id, stored_name(COMPLETE), "yes")
    client.set_terminated(run_id, "FINISHED")


def publish_evaluation(tracking: str, storage: Storage, rows: list[dict[str, Any]]) -> None:
    """Keep the evaluation of an ensemble or a peer, a row a protocol, for the report's tables."""
    client, first = open_store(tracking, storage), rows[0]
    tags = {
        "kind": "evaluation",
        "mlflow.runName": f"{first['kind']} {first['name']}",
        "dataset_id": first["dataset_id"],
    }
    run_id = only_run(client, experiment_id(client), "evaluation_key", first["evaluation"], tags)
    # Metrics are for the UI; the report reads the whole evaluation from its file.
    for row in rows:
        for name in ("top1_err", "top5_err"):
            client.log_metric(run_id, f"test_{row['protocol']}/{name}", row[name])
    send_artifacts(client, run_id, {"evaluation.json": dumps(rows, indent=1).encode()})
    client.set_tag(run_id, stored_name(COMPLETE), "yes")
    client.set_terminated(run_id, "FINISHED")


def _zipped(files: Mapping[str, bytes]) -> bytes:
    """A report's folder as an archive, the same of the same files."""
    content = BytesIO()
    with ZipFile(content, "w", ZIP_DEFLATED) as archive:
        for name, file in sorted(files.items()):
            # Without a date, which would be that of now.
            archive.writestr(ZipInfo(f"report/{name}"), file, ZIP_DEFLATED)
    return content.getvalue()


def log_report(tracking: str, storage: Storage, out: Path, files: list[str]) -> None:
    """Keep a report's files (relative to `out`) as artifacts of one MLflow run for each storage."""
    client = open_store(tracking, storage)
    # A report is made again and again: the newest one of a storage replaces the older.
    key = blake2b(storage.uri.encode(), digest_size=8).hexdigest()
    tags = {
        "kind": "report",
        "mlflow.runName": f"report {storage.path('').rstrip('/').rpartition('/')[2]}",
    }
    run_id = only_run(client, experiment_id(client), "report_key", key, tags)
    whole = {name: regular_file(out / name) for name in files}
    # Links between pages lead nowhere in MLflow's UI; whoever downloads the archive has them.
    shown = {
        name: page_alone(name, whole) if name.endswith(".html") else content
        for name, content in whole.items()
    }
    kept = {f"report/{name}": content for name, content in shown.items()}
    send_artifacts(client, run_id, kept | {"report.zip": _zipped(whole)})
    client.set_terminated(run_id, "FINISHED")
