"""What people do in the MLflow UI: they rename, annotate and delete, and it is theirs."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from analysis.measured.tags import COMPLETE, stored_name
from jobs.execution.node_facts import tracking_trouble
from jobs.tracking.other_publications import publish_ended, publish_stored
from jobs.tracking.run_publisher import Publisher
from pipeline.runs.run import Run
from pipeline.storage import Storage
from tests.conftest import Cli
from tests.jobs.conftest import free_port, mlflow_server
from tests.jobs.tracking.published import mlflow_runs, published, store_of, train_seed
from tests.pipeline.training.small_runs import small_run

PARENT = "mlflow.parentRunId"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return published(tmp_path / "storage")


@pytest.fixture
def store(place: Path) -> str:
    return store_of(place)


def sync(place: Path) -> int:
    return publish_stored(store_of(place), Storage(str(place)), print)


def children_and_n(store: str) -> tuple[int, float]:
    """How many seeds are shown under the only parent, and how many it says there are."""
    (parent,) = mlflow_runs(store, "experiment")
    shown = [run for run in mlflow_runs(store) if run.data.tags[PARENT] == parent.info.run_id]
    return len(shown), parent.data.metrics["n"]


def test_names_and_notes_that_were_changed_stay(place: Path, store: str) -> None:
    client, (run, _), (parent,) = (
        MlflowClient(store),
        mlflow_runs(store),
        mlflow_runs(store, "experiment"),
    )
    for each in (run, parent):
        client.update_run(each.info.run_id, name=f"mine {each.info.run_id}")
        client.set_tag(each.info.run_id, "mlflow.note.content", "my note")
    client.delete_tag(run.info.run_id, stored_name(COMPLETE))
    assert sync(place) == 1
    for each in (run, parent):
        again = client.get_run(each.info.run_id)
        assert again.info.run_name == f"mine {each.info.run_id}"
        assert again.data.tags["mlflow.note.content"] == "my note"


def test_a_renamed_experiment_is_still_ours(cli: Cli, place: Path, store: str) -> None:
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("resnet-repro")
    assert experiment is not None
    client.rename_experiment(experiment.experiment_id, "deep residual learning")
    train_seed(Storage(str(place)), 2)
    assert sync(place) == 1 and len(mlflow_runs(store)) == 3
    reported = cli("report", "--storage", place)
    assert reported.returncode == 0, reported.stderr


@pytest.mark.parametrize("for_good", [False, True])
def test_a_deleted_parent_is_there_again_with_all_its_seeds(
    place: Path, store: str, for_good: bool
) -> None:
    (parent,) = mlflow_runs(store, "experiment")
    client = MlflowClient(store)
    client.delete_run(parent.info.run_id)
    if for_good:  # as `mlflow gc` does
        client._tracking_client.store._hard_delete_run(parent.info.run_id)
    train_seed(Storage(str(place)), 2)
    assert sync(place) == 1
    assert children_and_n(store) == (3, 3.0)
    (again,) = mlflow_runs(store, "experiment")
    assert (again.info.run_id == parent.info.run_id) is not for_good


def test_a_deleted_run_stays_so_and_is_not_counted(
    cli: Cli, place: Path, store: str, tmp_path: Path
) -> None:
    run = mlflow_runs(store)[1]
    MlflowClient(store).delete_run(run.info.run_id)
    remedy = f"MLFLOW_TRACKING_URI={store} mlflow runs restore --run-id {run.info.run_id}"
    synced = cli("sync", "--storage", place)
    assert synced.returncode == 0 and "has everything" in synced.stdout
    assert synced.stderr.count(remedy) == 1, synced.stderr
    assert children_and_n(store) == (1, 1.0)
    asked = {small_run(seed): {} for seed in (0, 1)}
    publish_ended(store, Storage(str(place)), asked)  # the same grid once more
    assert children_and_n(store) == (1, 1.0)
    reported = cli("report", "--storage", place)
    assert reported.returncode == 0 and reported.stderr.count(remedy) == 1, reported.stderr
    MlflowClient(store).delete_run(mlflow_runs(store)[0].info.run_id)
    nothing = cli("report", "--storage", place, "--out", tmp_path / "report")
    assert nothing.returncode == 2 and "2 run(s) were deleted in MLflow" in nothing.stderr
    for each in mlflow_runs(store, which=ViewType.DELETED_ONLY):
        MlflowClient(store).restore_run(each.info.run_id)
    assert sync(place) == 0 and children_and_n(store) == (2, 2.0)


def test_a_deleted_run_that_is_trained_again_is_restored(place: Path, store: str) -> None:
    client, run = MlflowClient(store), mlflow_runs(store)[0]
    client.delete_run(run.info.run_id)
    beside = Publisher(store, Storage(str(place)), small_run(0), {})
    beside.publish()
    assert [each.info.run_id for each in mlflow_runs(store)].count(run.info.run_id) == 1
    client.delete_run(run.info.run_id)  # and while it is trained
    assert beside.stop("FINISHED")
    assert len(mlflow_runs(store)) == 2 and children_and_n(store) == (2, 2.0)


@pytest.fixture(scope="module")
def deleted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server whose experiment of ours was deleted, and a storage."""
    place = tmp_path_factory.mktemp("mlflow")
    storage = published(place / "storage")
    with mlflow_server(place, free_port()) as uri:
        publish_stored(uri, Storage(str(storage)), print)
        for store in (uri, store_of(storage)):
            experiment = MlflowClient(store).get_experiment_by_name("resnet-repro")
            assert experiment is not None
            MlflowClient(store).delete_experiment(experiment.experiment_id)
        yield uri, storage


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("where", ["server", "database"])
def test_a_deleted_experiment_is_said_with_the_remedy(
    cli: Cli, deleted: tuple[str, Path], where: str
) -> None:
    server, storage = deleted
    uri = server if where == "server" else store_of(storage)
    of = ("--storage", storage, "--tracking", uri)
    remedy = f"`MLFLOW_TRACKING_URI={uri} mlflow experiments restore --experiment-id 1` restores it"
    iterations = {"server": "4", "database": "5"}[where]  # each has a run to train
    small = (
        "train",
        "resnet20",
        "--data",
        "digits",
        "--iterations",
        iterations,
        "--set",
        "depth=8",
    )
    for command in (("report",), ("sync",), (*small, "--require-tracking")):
        done = cli(*command, *of)
        assert done.returncode == 2 and remedy in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    examined = cli("doctor", *of)
    assert examined.returncode == 1 and remedy in examined.stdout, examined.stdout
    trained = cli(*small, "--device", "cpu", *of)
    assert trained.returncode == 0 and "finished" in trained.stdout
    assert remedy in trained.stderr and "not published" in trained.stderr


def test_a_node_says_of_a_server_that_its_experiment_is_deleted(deleted: tuple[str, Path]) -> None:
    assert "is deleted: `MLFLOW_TRACKING_URI=" in tracking_trouble(deleted[0])


def test_the_remedies_are_commands_that_work(place: Path, store: str) -> None:
    client, run = MlflowClient(store), mlflow_runs(store)[0]
    experiment = run.info.experiment_id
    client.delete_run(run.info.run_id)
    client.delete_experiment(experiment)
    for words in (
        ("experiments", "restore", "--experiment-id", experiment),
        ("runs", "restore", "--run-id", run.info.run_id),
    ):
        line = ["env", f"MLFLOW_TRACKING_URI={store}", sys.executable, "-m", "mlflow", *words]
        subprocess.run(line, check=True, capture_output=True, timeout=120)
    assert len(mlflow_runs(store)) == 2


def test_other_storages_seeds_are_counted_too(place: Path, store: str, tmp_path: Path) -> None:
    other = Storage(str(published(tmp_path / "other")))
    other.delete(small_run(0).folder)
    other.delete(small_run(1).folder)
    train_seed(other, 2)
    publish_stored(store, other, print)
    assert children_and_n(store) == (3, 3.0)


def test_runs_are_found_whatever_was_deleted_before(place: Path, store: str) -> None:
    run: Run = small_run(0)
    for _ in range(2):
        (first, *_) = mlflow_runs(store)
        MlflowClient(store).delete_run(first.info.run_id)
        Publisher(store, Storage(str(place)), run, {}).publish()
        assert len(mlflow_runs(store)) == 2
