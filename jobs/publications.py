"""What commands publish to MLflow beside the runs themselves: ended runs again, interruptions, sweeps, reports.

Each is found again by a key of its own, so that publishing twice changes nothing. A run's own copy is `jobs.publisher`'s.
"""

from json import dumps
from pathlib import Path

from analysis.export import COMPLETE
from jobs.publisher import Publisher
from jobs.sweeps import Sweep
from jobs.tracking import end_parent, experiment_id, only_run, open_store, runs_tagged
from pipeline.runs import Run, read_result
from pipeline.storage import Storage


def publish_ended(tracking: str, storage: Storage, runs: list[Run]) -> None:
    """Open the store, and complete the copies of runs that have ended, where a server was away when they did."""
    client = open_store(tracking, storage)
    ended = [(run, result) for run in runs if (result := read_result(storage, run)) is not None]
    if not ended:
        return
    complete = runs_tagged(client, f"tags.{COMPLETE} = 'yes'")
    for run, result in ended:
        if run.key not in complete:
            outcome = "FINISHED" if result["status"] == "finished" else "DIVERGED"
            Publisher(tracking, storage, run, {}).finish(outcome, result.get("reason"))


def mark_interrupted(tracking: str, storage: Storage, runs: list[Run]) -> None:
    """Say of runs that have not ended that they are not running any more."""
    client = open_store(tracking, storage)
    published = runs_tagged(client, "attributes.status = 'RUNNING'")
    for run in runs:
        if run.key in published and read_result(storage, run) is None:
            client.set_tag(published[run.key], "outcome", "KILLED")
            client.set_tag(published[run.key], "reason", "interrupted")
            client.set_terminated(published[run.key], "KILLED")
            end_parent(client, client.get_run(published[run.key]).data.tags["mlflow.parentRunId"], "KILLED")


def publish_sweep(tracking: str, storage: Storage, sweep: Sweep, dataset_id: str, dataset: str) -> None:
    """Keep what a sweep consists of, so that a report finds it and keeps it apart from the reproduction."""
    client, cells = open_store(tracking, storage), sweep.facts(dataset_id)
    name = sweep.name if sweep.name == "ledger" else f"sweep of {sweep.name}"
    tags = {"kind": "sweep", "mlflow.runName": f"{name} on {dataset}", "dataset": dataset, "dataset_id": dataset_id}
    run_id = only_run(client, experiment_id(client), "sweep_key", cells[0]["sweep"], tags)
    client.log_text(run_id, dumps(cells, indent=1), "sweep.json")
    client.set_terminated(run_id, "FINISHED")


def log_report(tracking: str, storage: Storage, out: Path, files: list[str]) -> None:
    """Keep the files of a report (relative to `out`) as artifacts of one MLflow run, the same one for each storage."""
    client = open_store(tracking, storage)
    tags = {"kind": "report", "mlflow.runName": f"report {storage.uri}"}
    run_id = only_run(client, experiment_id(client), "report_key", storage.uri, tags)
    for name in files:
        client.log_artifact(run_id, str(out / name), str(Path("report", name).parent))
    client.set_terminated(run_id, "FINISHED")
