"""Two commands at once that want the same: both end in order, and nothing is there twice."""

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient

from jobs.tracking.store import experiment_id, open_store
from pipeline.data.stored import write_dataset
from pipeline.recipe.schedule import expected_points
from pipeline.runs.run import Run, read_result, start_run, stored_runs
from pipeline.storage import Storage
from pipeline.training.loop import train
from pipeline.training.step.process_group import single_process
from tests.conftest import Cli
from tests.pipeline.training.small_runs import digits_once, small_run


def assert_once(place: Path, storage: Storage, runs: list[Run]) -> None:
    """Each run is in MLflow once, finished, with each of its points once."""
    client = open_store(f"sqlite:///{place}/mlflow.db", storage)
    for run in runs:
        (copy,) = client.search_runs([experiment_id(client)], f"tags.run_key = '{run.key}'")
        assert copy.info.status == "FINISHED"
        points = _points(client, copy.info.run_id, list(copy.data.metrics))
        assert not [point for point, count in points.items() if count > 1]
        assert expected_points(run.experiment) == points.keys()


def _points(client: MlflowClient, run_id: str, metrics: list[str]) -> Counter[tuple[str, int]]:
    return Counter(
        (name, point.step) for name in metrics for point in client.get_metric_history(run_id, name)
    )


@pytest.mark.slow
def test_two_syncs_send_everything_once(cli: Cli, tmp_path: Path) -> None:
    place, runs = tmp_path / "s", [small_run(seed) for seed in range(3)]
    storage = Storage(str(place))
    write_dataset(storage, digits_once(), {"kind": "embedded"})
    for run in runs:
        start_run(storage, run, 1)
        train(run, digits_once(), storage, single_process())
    open_store(f"sqlite:///{place}/mlflow.db", storage)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: cli("sync", "--storage", place), range(2)))
    for done in both:
        assert done.returncode in (0, 2) and "Traceback" not in done.stderr, done.stderr
    assert cli("sync", "--storage", place).returncode == 0
    assert_once(place, storage, runs)


@pytest.mark.ray
@pytest.mark.slow
def test_two_grids_of_the_same_rows_train_each_run_once(tmp_path: Path) -> None:
    place = tmp_path / "s"
    words = "grid resnet20 --data digits --set depth=8 --set eval_every=20 --iterations 60"
    words += " --seeds 2 --device cpu"
    line = [sys.executable, "-m", "jobs.cli", *words.split(), "--storage", str(place)]

    def give(_: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(line, capture_output=True, text=True, timeout=500, check=False)

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(give, range(2)))
    # Who comes second may find runs that are held, and says so.
    assert 0 in [done.returncode for done in both], [done.stderr for done in both]
    for done in both:
        assert done.returncode in (0, 1, 2) and "Traceback" not in done.stderr, done.stderr
    again = give(0)
    assert again.returncode == 0, again.stderr
    storage = Storage(str(place))
    runs = stored_runs(storage)
    assert len(runs) == 2 and all(read_result(storage, run) for run in runs)
    assert_once(place, storage, runs)
