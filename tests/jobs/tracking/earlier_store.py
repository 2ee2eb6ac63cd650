"""A store as the version before wrote it: made of one that was published today.

It had every tag in sight, parents with series over the number of seeds, and models of all recipes
of a row under one name.
"""

from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag

from analysis.measured.tags import HIDDEN
from jobs.tracking.described_runs import NOTE
from jobs.tracking.views import PREFIX, VIEWS
from pipeline.recipe.metrics import TEST_ERR
from tests.jobs.tracking.published import mlflow_runs

EARLIER_MODEL = "earlier-model"
"""Stands for a name under which models of several recipes were."""


def as_earlier(store: str) -> None:
    """Give a store the form that the version before gave it."""
    client = MlflowClient(store)
    for parent in mlflow_runs(store, "experiment"):
        # A new one: MLflow deletes no metric, and the earlier ones had no values at step 0.
        key = parent.data.tags[f"{HIDDEN}parent_key"]
        tags = {"kind": "experiment", "parent_key": key, "artifacts": "table_6"}
        tags |= {"experiment": parent.data.tags["experiment"], "dataset": "cifar10"}
        old = client.create_run(parent.info.experiment_id, tags=tags, run_name=parent.info.run_name)
        for n in (1, 2):
            client.log_batch(old.info.run_id, [Metric(f"{TEST_ERR}/n", n, 1, n)])
        client.set_terminated(old.info.run_id, "FINISHED", 1_700_000_000_000)
        for run in mlflow_runs(store):
            if run.data.tags["mlflow.parentRunId"] == parent.info.run_id:
                client.set_tag(run.info.run_id, "mlflow.parentRunId", old.info.run_id)
        client._tracking_client.store._hard_delete_run(parent.info.run_id)
    for run in mlflow_runs(store):
        _in_sight(client, run.info.run_id, run.data.tags)
    for model in client.search_registered_models():
        _under_another_name(client, model.name)
    for key in VIEWS:
        client.delete_experiment_tag(run.info.experiment_id, PREFIX + key)
    client.set_experiment_tag(run.info.experiment_id, NOTE, "a person's note")


def _in_sight(client: MlflowClient, run_id: str, tags: dict[str, str]) -> None:
    hidden = {name: value for name, value in tags.items() if name.startswith(HIDDEN)}
    earlier = {name.removeprefix(HIDDEN): value for name, value in hidden.items()}
    earlier |= {"artifacts": "table_6", "mlflow.runName": f"{tags['mlflow.runName']} (changed)"}
    client.log_batch(run_id, tags=[RunTag(*item) for item in earlier.items()])
    for name in {*hidden, "curve", "mlflow.source.name", "mlflow.source.type"} & tags.keys():
        client.delete_tag(run_id, name)


def _under_another_name(client: MlflowClient, name: str) -> None:
    if not client.search_registered_models(f"name = '{EARLIER_MODEL}'"):
        client.create_registered_model(EARLIER_MODEL)
    for version in client.search_model_versions(f"name = '{name}'"):
        client.create_model_version(
            EARLIER_MODEL, version.source, version.run_id, dict(version.tags)
        )
    client.delete_registered_model(name)
