"""The final model of a finished run in MLflow's model registry: safetensors and a card.

A registered model is an experiment on a dataset, its versions are the seeds (and recipes) that were
trained; each version is kept once, found again by its run. Nothing has to be unpickled.
"""

import logging
from contextlib import suppress
from json import dumps
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from jobs.tracking.local_store import send_artifacts
from pipeline.errors import first_line
from pipeline.recipe.metrics import TEST_ERR
from pipeline.runs.run import Run

logger = logging.getLogger(__name__)

FOLDER = "model"
"""Where a run's artifacts hold its final weights and their card."""


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
    try:
        _add_version(client, run_id, run, dataset, result, text)
    except MlflowException as error:  # a registry that refuses costs nothing but the entry
        logger.warning("MLflow's model registry does not take %s: %s", run, first_line(error))


def _add_version(
    client: MlflowClient,
    run_id: str,
    run: Run,
    dataset: dict[str, Any],
    result: dict[str, Any],
    text: str,
) -> None:
    if client.search_model_versions(f"run_id='{run_id}'"):
        return  # of an earlier attempt to publish that failed after this
    # MLflow has no upsert: look, make, and then the version.
    name = f"{run.experiment.name}-{dataset['row']['name']}"
    if not client.search_registered_models(f"name = '{name}'"):
        # Another run may just have made it; where it was not that, the version below is refused
        # and says why.
        with suppress(MlflowException):
            about = f"{run.experiment.name} on {dataset['row']['name']}; a version is a trained run"
            client.create_registered_model(name, description=about)
    tags = {
        "seed": str(run.seed),
        "fingerprint": run.experiment.fingerprint,
        "overrides": dumps(run.experiment.deviations(), sort_keys=True),
        "test_err": f"{result['final'][TEST_ERR]:.2f}",
    }
    client.create_model_version(
        name, f"runs:/{run_id}/{FOLDER}", run_id, tags=tags, description=text
    )
