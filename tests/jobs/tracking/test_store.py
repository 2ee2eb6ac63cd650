"""One MLflow run for each thing of ours, whoever makes it, on a real database."""

from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from jobs.tracking.store import only_run


class LooksTooEarly:
    """A client whose first search comes before the other's run was made."""

    def __init__(self, client: MlflowClient) -> None:
        self._client, self._looked = client, False

    def search_runs(self, *about: Any, **options: Any) -> Any:
        found = self._client.search_runs(*about, **options)
        first, self._looked = not self._looked, True
        return [] if first else found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_two_that_make_a_run_at_once_keep_the_one_that_was_made_first(tmp_path: Path) -> None:
    """Whatever each of them takes for the beginning of what it is about."""
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.create_experiment("ours")
    tags = {"mlflow.runName": "resnet20 seed 0"}
    for number, (began, began_too) in enumerate([(5000, 5000), (5000, 1000), (None, 1000)]):
        key = f"key-{number}"
        first = only_run(client, experiment, "run_key", key, tags, lambda began=began: began)
        late: Any = LooksTooEarly(client)
        assert (
            only_run(late, experiment, "run_key", key, tags, lambda began=began_too: began) == first
        )
        assert only_run(client, experiment, "run_key", key, tags, lambda: 1) == first
        active = client.search_runs([experiment], f"tags.run_key = '{key}'")
        assert [run.info.run_id for run in active] == [first]
    assert (
        client.get_run(only_run(client, experiment, "run_key", "key-1", tags)).info.start_time
        == 5000
    )
