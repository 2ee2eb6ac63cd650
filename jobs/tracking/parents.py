"""The parent of a row's runs on a dataset in MLflow: its name, and what it says of them.

A parent has final values alone: the mean, deviation and number of its seeds at step 0, which the UI
shows as one value each. What the paper has instead is `jobs.tracking.row_verdicts`'.
"""

from dataclasses import replace
from math import isnan, nan
from time import time

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.entities import Run as MlflowRun

from analysis.measured.tags import COMPLETE
from analysis.stats import summarise
from jobs.tracking.described_runs import (
    NOTE,
    RUN_NAME,
    SOURCE,
    SOURCE_TYPE,
    experiment_tags,
    fact_name,
    manifest_of,
    parameters,
    parent_key,
    row_name,
    tags_of,
)
from jobs.tracking.registry import alias_median
from jobs.tracking.store import deleted_runs, experiment_id, only_run, runs_with_deleted
from pipeline.recipe.metrics import TEST_ERR, TRAIN_CLEAN_ERR, protocol_err
from pipeline.runs.run import Run, read_result
from pipeline.storage import Storage

PARENT = "mlflow.parentRunId"
"""MLflow's own tag of a run that is shown under another."""
MOST_LOOKS = 5
"""How often a summary is made again at most, because seeds have ended meanwhile."""
DECIMALS = 2
"""Of errors in percent, as the paper prints them; the seeds have all."""


def parent_in(client: MlflowClient, storage: Storage, run: Run) -> str:
    """A run's parent, made if there is none, restored if it was deleted."""
    manifest = manifest_of(storage, run)
    tags = experiment_tags(run, manifest) | {
        "kind": "experiment",
        RUN_NAME: row_name(run, manifest),
        SOURCE: "resnet-repro",
        SOURCE_TYPE: "LOCAL",
    }
    key = parent_key(run.experiment.fingerprint, run.dataset_id)
    return only_run(client, experiment_id(client), "parent_key", key, tags)


def summarise_seeds(client: MlflowClient, storage: Storage, run: Run, parent: str) -> None:
    """Give a parent the mean, deviation and number of its finished seeds, and all its children.

    Of two seeds that end at once, each looks again after it has written: whoever is the last to
    write knows of both. Runs that were deleted in MLflow are known, and not counted.
    """
    _take_over(client, run, parent)
    client.log_batch(parent, params=parameters(run))
    for _ in range(MOST_LOOKS):
        copies = _copies_of(client, run)
        deleted = deleted_runs(copies)
        # Under a parent that is gone for good, or was made anew, no finished seed would be found.
        for key, copy in copies.items():
            if key not in deleted and copy.data.tags.get(PARENT) != parent:
                client.set_tag(copy.info.run_id, PARENT, parent)
        finals = _published_finals(copies) | _stored_finals(storage, run)
        shown = [final for key, final in finals.items() if key not in deleted]
        if not log_finals(client, parent, _summary(run, shown)):
            break
    shown_ids = {copy.info.run_id for key, copy in copies.items() if key not in deleted}
    alias_median(client, run, manifest_of(storage, run), shown_ids)


def _copies_of(client: MlflowClient, run: Run) -> dict[str, MlflowRun]:
    """The copies of a run and its siblings, of other storages and deleted ones too, by run key."""
    of_this = (run.experiment.fingerprint, run.dataset_id)
    named = runs_with_deleted(client, f"tags.experiment = '{run.experiment.name}'")
    tags = {key: tags_of(copy) for key, copy in named.items()}
    return {
        key: copy
        for key, copy in named.items()
        if (tags[key].get("fingerprint"), tags[key].get("dataset_id")) == of_this
    }


def _summary(run: Run, finals: list[dict[str, float]]) -> dict[str, float]:
    """Mean, deviation and number of the seeds' final values, by the names of a parent's metrics."""
    protocols = [protocol_err(name, k) for name in run.experiment.protocols for k in (1, 5)]
    summaries = {
        name: summarise([final[name] for final in finals if name in final])
        for name in (TEST_ERR, TRAIN_CLEAN_ERR, *protocols)
    }
    return {
        fact_name(run.experiment.name, name, fact): value
        for name, summary in summaries.items()
        for fact, value in (
            ("mean", round(summary.mean, DECIMALS)),
            ("std", round(summary.std, DECIMALS)),
            ("n", float(summary.n)),
        )
    }


def log_finals(client: MlflowClient, parent: str, facts: dict[str, float]) -> bool:
    """Give a parent values that it does not have yet; whether there were any."""
    known = client.get_run(parent).data.metrics
    # Only what has changed: publishing the same again would add a point to the parent.
    before = {
        name: known.get(name, 0.0 if name.rpartition("/")[2] == "n" else nan) for name in facts
    }
    new = {
        name: value
        for name, value in facts.items()
        if value != before[name] and not (isnan(value) and isnan(before[name]))
    }
    # Of points at one step the latest is the value, whatever the clocks of two machines say.
    times = [
        point.timestamp for name in new for point in client.get_metric_history(parent, name)[-1:]
    ]
    now = max([int(1000 * time()), *(time_ms + 1 for time_ms in times)])
    if new:
        client.log_batch(parent, [Metric(name, value, now, 0) for name, value in new.items()])
    return bool(new)


def _take_over(client: MlflowClient, run: Run, parent: str) -> None:
    """Take the place of a parent that an earlier version made.

    That one has series over the number of seeds, and MLflow takes nothing out of a series.
    """
    key = parent_key(run.experiment.fingerprint, run.dataset_id)
    for old in client.search_runs([experiment_id(client)], f"tags.parent_key = '{key}'"):
        # What a person has written and named stays.
        if note := old.data.tags.get(NOTE):
            client.set_tag(parent, NOTE, note)
        name = old.info.run_name
        if name and name != client.get_run(parent).info.run_name:
            client.update_run(parent, name=name)
        if old.info.status != "RUNNING":
            client.set_terminated(parent, old.info.status)
        client.delete_run(old.info.run_id)


def _stored_finals(storage: Storage, run: Run) -> dict[str, dict[str, float]]:
    """The final values of a run's finished siblings in storage, itself among them, by run key.

    By the folders, not by what the server has: seeds that end at once may not be there yet.
    """
    folder = run.folder.rpartition("/")[0]
    seeds = [
        int(seed)
        for _, _, seed in (name.partition("seed-") for name in storage.names(folder))
        if seed.isdecimal()
    ]
    siblings = [replace(run, seed=seed) for seed in sorted(seeds)]
    results = {sibling.key: read_result(storage, sibling) for sibling in siblings}
    return {
        key: result["final"]
        for key, result in results.items()
        if result is not None and result["status"] == "finished"
    }


def _published_finals(copies: dict[str, MlflowRun]) -> dict[str, dict[str, float]]:
    """What MLflow has of finished runs, of other storages too."""
    return {
        key: copy.data.metrics
        for key, copy in copies.items()
        if copy.info.status == "FINISHED" and tags_of(copy).get(COMPLETE) == "yes"
    }
