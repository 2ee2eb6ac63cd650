"""The final model of a finished run in MLflow's model registry: safetensors and a card.

A registered model is an experiment on a dataset by one recipe, its versions are the seeds that were
trained; each version is kept once, found again by its run. Aliases name them: a newest version
means nothing here, as it is whichever seed ended last. Nothing has to be unpickled.
"""

import logging
from collections.abc import Collection
from contextlib import suppress
from hashlib import blake2b
from json import dumps
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from jobs.tracking.described_runs import parent_key, row_name
from jobs.tracking.local_store import send_artifacts
from pipeline.errors import first_line
from pipeline.recipe.metrics import TEST_ERR
from pipeline.runs.model_card import is_official, model_card
from pipeline.runs.run import Run

logger = logging.getLogger(__name__)

FOLDER = "model"
"""Where a run's artifacts hold its final weights and their card."""
MEDIAN = "median"
"""Alias of the seed in the middle by test error; of two in the middle, of the better one."""


def register(
    client: MlflowClient,
    run_id: str,
    run: Run,
    dataset: dict[str, Any],
    result: dict[str, Any],
    weights: bytes,
    text: str,
) -> None:
    """Keep the weights and their card as artifacts of the run and as a version of its model.

    `dataset` is the manifest of the run's dataset, `text` the card.
    """
    files = {"weights.safetensors": weights, "README.md": text.encode()}
    send_artifacts(client, run_id, {f"{FOLDER}/{name}": file for name, file in files.items()})
    add_version(client, run_id, run, dataset, result, text)


def model_name(run: Run, dataset: dict[str, Any]) -> str:
    """The registered model of a run: an experiment on a dataset by one recipe."""
    name = f"{run.experiment.name}-{dataset['row']['name']}"
    if is_official(run, dataset):
        return name
    key = parent_key(run.experiment.fingerprint, run.dataset_id)
    return f"{name}-{blake2b(key.encode(), digest_size=4).hexdigest()}"


def add_version(
    client: MlflowClient,
    run_id: str,
    run: Run,
    dataset: dict[str, Any],
    result: dict[str, Any],
    text: str = "",
) -> None:
    """Have a finished run's model, whose files are there, as a version with an alias.

    A registry that refuses costs nothing but the entry.
    """
    text = text or model_card(run, dataset, result)
    try:
        _add_version(client, run_id, run, dataset, result, text)
    except MlflowException as error:
        logger.warning("MLflow's model registry does not take %s: %s", run, first_line(error))


def _add_version(
    client: MlflowClient,
    run_id: str,
    run: Run,
    dataset: dict[str, Any],
    result: dict[str, Any],
    text: str,
) -> None:
    name, there = model_name(run, dataset), client.search_model_versions(f"run_id='{run_id}'")
    ours = [version for version in there if version.name == name]
    # MLflow has no upsert: look, make, and then the version.
    if not ours and not client.search_registered_models(f"name = '{name}'"):
        # Another run may just have made it; where it was not that, the version below is refused
        # and says why.
        with suppress(MlflowException):
            about = (
                f"{row_name(run, dataset)}; a version is a seed, `{MEDIAN}` the one in the middle"
            )
            client.create_registered_model(name, description=about)
    tags = {
        "seed": str(run.seed),
        "fingerprint": run.experiment.fingerprint,
        "overrides": dumps(run.experiment.deviations(), sort_keys=True),
        "test_err": f"{result['final'][TEST_ERR]:.2f}",
    }
    if not ours:  # else of an earlier attempt to publish that failed after this
        source = f"runs:/{run_id}/{FOLDER}"
        ours = [client.create_model_version(name, source, run_id, tags=tags, description=text)]
    client.set_registered_model_alias(name, f"seed-{run.seed}", ours[0].version)
    for version in there:
        if version.name != name and tags["fingerprint"] == version.tags.get("fingerprint"):
            _forget(client, version)


def _forget(client: MlflowClient, version: ModelVersion) -> None:
    """Take a version out of the model that an earlier version of ours filed it under.

    It had all recipes of a row. What a person has given an alias stays; the files are the run's.
    """
    name = version.name
    if not client.get_model_version(name, version.version).aliases:
        client.delete_model_version(name, version.version)
    if not client.search_model_versions(f"name='{name}'", max_results=1):
        client.delete_registered_model(name)


def alias_median(
    client: MlflowClient, run: Run, dataset: dict[str, Any], run_ids: Collection[str]
) -> None:
    """Give the alias `MEDIAN` to the seed in the middle of these runs, if they are registered."""
    name = model_name(run, dataset)
    try:
        versions = [
            version
            for version in client.search_model_versions(f"name='{name}'", max_results=1000)
            if version.run_id in run_ids
        ]
        if not versions:
            return
        ordered = sorted(
            versions, key=lambda each: (float(each.tags["test_err"]), int(each.tags["seed"]))
        )
        median = ordered[(len(ordered) - 1) // 2].version
        # MLflow numbers versions, and says the numbers of aliases as text.
        aliases = client.get_registered_model(name).aliases
        if str(aliases.get(MEDIAN)) != str(median):
            client.set_registered_model_alias(name, MEDIAN, median)
    except (MlflowException, KeyError, ValueError) as error:  # or tags that a person has changed
        logger.warning("MLflow's model registry gives %s no median: %s", name, first_line(error))
