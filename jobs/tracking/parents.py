"""The parent of a row's runs on a dataset in MLflow: its name, and what it says of them."""

from dataclasses import replace
from json import dumps
from math import isnan, nan
from time import time
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.entities import Run as MlflowRun

from analysis.measured.tags import COMPLETE
from analysis.stats import summarise
from jobs.tracking.store import deleted_runs, experiment_id, only_run, runs_with_deleted
from pipeline.data.stored import read_manifest
from pipeline.recipe.layers import layout
from pipeline.recipe.metrics import TEST_ERR, TRAIN_CLEAN_ERR
from pipeline.recipe.overrides import changes_text
from pipeline.runs.run import Run, read_result
from pipeline.storage import Storage

PARENT = "mlflow.parentRunId"
"""MLflow's own tag of a run that is shown under another."""


def parent_in(client: MlflowClient, storage: Storage, run: Run) -> str:
    """A run's parent, made if there is none, restored if it was deleted."""
    key = f"{run.experiment.fingerprint}-{run.dataset_id}"
    manifest = manifest_of(storage, run)
    tags = experiment_tags(run, manifest) | {
        "kind": "experiment",
        "mlflow.runName": named(run, f"on {manifest['row']['name']}"),
    }
    return only_run(client, experiment_id(client), "parent_key", key, tags)


def named(run: Run, which: str) -> str:
    """What tells runs apart comes first: the UI's column of names is narrow."""
    changes = changes_text(run.experiment)
    return f"{run.experiment.name} {which}" + (f" ({changes})" if changes else "")


def manifest_of(storage: Storage, run: Run) -> dict[str, Any]:
    """The manifest of a run's dataset.

    Raises:
        FileNotFoundError: it is not in storage any more.
    """
    manifest = read_manifest(storage, run.dataset_id)
    if manifest is None:
        raise FileNotFoundError(f"dataset {run.dataset_id} is not in {storage.uri} any more")
    return manifest


def experiment_tags(run: Run, manifest: dict[str, Any]) -> dict[str, str]:
    """What a run and its parent are about."""
    experiment, dataset = run.experiment, manifest["row"]
    plan = layout(experiment, classes=dataset["classes"])
    return {
        "experiment": experiment.name,
        "fingerprint": experiment.fingerprint,
        "artifacts": " ".join(experiment.artifacts),
        "overrides": dumps(experiment.deviations(), sort_keys=True),
        "iterations": str(experiment.iterations),
        "params": str(plan.params),
        "dataset": dataset["name"],
        "dataset_id": run.dataset_id,
        "comparable": str(bool(dataset["comparable"])),
    }


def summarise_seeds(client: MlflowClient, storage: Storage, run: Run, parent: str) -> None:
    """Give a parent the mean, deviation and number of its finished seeds, and all its children.

    The step of these metrics is the number of seeds that are known: of two that end at once,
    whoever knows of more is the latest. Runs that were deleted in MLflow are known, and not
    counted.
    """
    of_this = f"tags.fingerprint = '{run.experiment.fingerprint}'"
    of_this += f" and tags.dataset_id = '{run.dataset_id}'"
    copies = runs_with_deleted(client, of_this)
    deleted = deleted_runs(copies)
    # Under a parent that is gone for good, or was made anew, no finished seed would be found.
    for key, copy in copies.items():
        if key not in deleted and copy.data.tags.get(PARENT) != parent:
            client.set_tag(copy.info.run_id, PARENT, parent)
    finals = _published_finals(copies) | _stored_finals(storage, run)
    shown = [final for key, final in finals.items() if key not in deleted]
    known = client.get_run(parent).data.metrics
    now, metrics = int(1000 * time()), []
    for name in (TEST_ERR, TRAIN_CLEAN_ERR):
        values = [final[name] for final in shown if name in final]
        summary = summarise(values)
        facts = {"n": summary.n, "mean": summary.mean, "std": summary.std}
        for fact, value in facts.items():
            before = known.get(f"{name}/{fact}", 0.0 if fact == "n" else nan)
            # Only what has changed: publishing the same again would add a point to the parent.
            if value != before and not (isnan(value) and isnan(before)):
                metrics.append(Metric(f"{name}/{fact}", float(value), now, len(finals)))
    if metrics:
        client.log_batch(parent, metrics)


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
        if copy.info.status == "FINISHED" and copy.data.tags.get(COMPLETE) == "yes"
    }
