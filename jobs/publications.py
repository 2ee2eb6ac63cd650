"""What commands publish to MLflow beside the runs themselves: ended runs again, interruptions, sweeps, reports.

Each is found again by a key of its own, so that publishing twice changes nothing. A run's own copy is `jobs.publisher`'s.
"""

from hashlib import blake2b
from json import dumps
from pathlib import Path

from analysis.export import COMPLETE
from jobs.publisher import Publisher, still_wanted
from jobs.sweeps import Sweep
from jobs.tracking import end_parent, experiment_id, only_run, open_store, our_runs
from pipeline.runs import Run, read_result
from pipeline.storage import Storage


def publish_ended(tracking: str, storage: Storage, runs: dict[Run, dict[str, str]]) -> None:
    """Open the store, complete the copies of runs that have ended, and say of all that are there what they are asked for.

    `runs` are the runs of a command with their tags. A copy is incomplete where a server was away when its run ended.
    """
    client = open_store(tracking, storage)
    published = our_runs(client)
    for run in {(run.experiment, run.dataset_id): run for run in runs}.values():
        Publisher(tracking, storage, run, {}).parent_in(client)  # here, once, and not by drivers that start together
    for run, tags in runs.items():
        result, there = read_result(storage, run), published.get(run.key)
        if result is not None and (there is None or there.data.tags.get(COMPLETE) != "yes"):
            outcome = "FINISHED" if result["status"] == "finished" else "DIVERGED"
            Publisher(tracking, storage, run, tags).finish(outcome, result.get("reason"))
        elif there is not None:
            for name, value in still_wanted(tags, there.data.tags).items():
                client.set_tag(there.info.run_id, name, value)


def mark_interrupted(tracking: str, storage: Storage, runs: list[Run]) -> None:
    """Say of runs that have not ended that they are not running any more."""
    client = open_store(tracking, storage)
    published = our_runs(client, "attributes.status = 'RUNNING'")
    for run in runs:
        if run.key in published and read_result(storage, run) is None:
            there = published[run.key]
            client.set_tag(there.info.run_id, "outcome", "KILLED")
            client.set_tag(there.info.run_id, "reason", "interrupted")
            client.set_terminated(there.info.run_id, "KILLED")
            end_parent(client, there.data.tags["mlflow.parentRunId"], "KILLED")


def publish_sweep(tracking: str, storage: Storage, sweep: Sweep, dataset_id: str, dataset: str) -> None:
    """Keep what a sweep consists of, so that a report finds it and keeps it apart from the reproduction."""
    client, cells = open_store(tracking, storage), sweep.facts(dataset_id)
    name = sweep.name if sweep.name == "ledger" else f"sweep of {sweep.name}"
    tags = {"kind": "sweep", "mlflow.runName": f"{name} on {dataset}", "dataset": dataset, "dataset_id": dataset_id}
    run_id = only_run(client, experiment_id(client), "sweep_key", cells[0]["sweep"], tags)
    client.log_text(run_id, dumps(cells, indent=1), "sweep.json")
    client.set_tag(run_id, COMPLETE, "yes")
    client.set_terminated(run_id, "FINISHED")


def log_report(tracking: str, storage: Storage, out: Path, files: list[str]) -> None:
    """Keep the files of a report (relative to `out`) as artifacts of one MLflow run, the same one for each storage."""
    client = open_store(tracking, storage)
    key = blake2b(storage.uri.encode(), digest_size=8).hexdigest()
    tags = {"kind": "report", "mlflow.runName": f"report {storage.uri}"}
    run_id = only_run(client, experiment_id(client), "report_key", key, tags)
    for name in files:
        client.log_artifact(run_id, str(out / name), str(Path("report", name).parent))
    client.set_terminated(run_id, "FINISHED")
