"""A storage that was moved, copied or linked: MLflow's files are those that lie in it."""

import os
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from analysis.measured.mlflow_export import export
from jobs.tracking.local_store import rehome
from jobs.tracking.other_publications import publish_stored
from jobs.tracking.store import open_store
from pipeline.storage import Storage
from tests.conftest import Cli
from tests.jobs.conftest import free_port, serving
from tests.jobs.tracking.published import (
    contents,
    listed,
    mlflow_runs,
    published,
    store_of,
    train_seed,
)


def uris(place: Path) -> set[str]:
    """Where a database says that the files of its runs are."""
    return {
        run.info.artifact_uri.rpartition("/mlartifacts/")[0] for run in mlflow_runs(store_of(place))
    }


def test_a_moved_storage_has_its_files_and_goes_on(cli: Cli, tmp_path: Path) -> None:
    published(tmp_path / "old").rename(tmp_path / "new")
    place, storage = tmp_path / "new", Storage(str(tmp_path / "new"))
    reported = cli("report", "--storage", place)
    assert reported.returncode == 0, reported.stderr
    assert (
        reported.stderr.count("they are at") == 1 and str(place / "mlartifacts") in reported.stderr
    )
    assert uris(place) == {place.as_uri()}
    train_seed(storage, 2)
    again = cli("sync", "--storage", place)
    assert again.returncode == 0 and "1 run completed" in again.stdout, again.stderr
    assert "they are at" not in again.stderr
    assert "has everything" in cli("sync", "--storage", place).stdout
    assert not (tmp_path / "old").exists()
    assert len(list(place.glob("mlartifacts/*/artifacts/result.json"))) == 3


@pytest.mark.slow
def test_the_ui_of_a_moved_storage_lists_its_files(tmp_path: Path) -> None:
    place, port = published(tmp_path / "old").rename(tmp_path / "new"), free_port()
    line = [sys.executable, "-m", "jobs.cli", "ui", "--storage", str(place), "--port", str(port)]
    with serving(line, port) as address:
        for run in mlflow_runs(store_of(place)):
            assert set(listed(address, run.info.run_id)) == {"model", "result.json"}


def test_a_copy_never_writes_into_the_original(tmp_path: Path) -> None:
    original = published(tmp_path / "original")
    copy = tmp_path / "copy"
    os.system(f"cp -r {original} {copy}")
    before = contents(original)
    train_seed(Storage(str(copy)), 2)
    assert publish_stored(store_of(copy), Storage(str(copy)), print) == 1
    assert contents(original) == before
    assert uris(copy) == {copy.as_uri()}
    assert len(list(copy.glob("mlartifacts/*/artifacts/result.json"))) == 3


def test_a_copy_without_any_files_yet_writes_its_own(tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    for name in ("runs", "datasets"):
        (original / name).mkdir(parents=True)
    open_store(store_of(original), Storage(str(original)))
    (original / "mlartifacts").mkdir()
    os.system(f"cp -r {original} {copy} && rmdir {copy}/mlartifacts")
    client = open_store(store_of(copy), Storage(str(copy)))
    experiment = client.get_experiment_by_name("resnet-repro")
    assert experiment and experiment.artifact_location == (copy / "mlartifacts").as_uri()


def test_a_storage_behind_a_link_is_recorded_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = published(tmp_path / "disk")
    (tmp_path / "link").symlink_to(place)
    before = contents(place)
    for name in ("link", "disk", "link"):
        rehome(store_of(tmp_path / name), for_server=True)
    assert contents(place) == before and capsys.readouterr().err == ""


def test_a_storage_that_is_seen_at_two_places_in_turn_is_recorded_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As within a container and outside: neither place is there where the other is."""
    here, there = published(tmp_path / "here"), tmp_path / "there"
    for number in range(3):
        here.rename(there)
        here, there = there, here
        store = store_of(here)
        client = open_store(store, Storage(str(here)))
        assert len(export(store, tmp_path / "export").layers) > 0
        if number:  # at the other place, and at the one that is recorded
            train_seed(Storage(str(here)), 2 + number)
        assert publish_stored(store, Storage(str(here)), print) == bool(number)
        assert not there.exists()
    assert capsys.readouterr().err.count("they are at") == 1
    experiment = client.get_experiment_by_name("resnet-repro")
    assert experiment and experiment.artifact_location == (here / "mlartifacts").as_uri()
    here = here.rename(there)
    rehome(store_of(here), for_server=True)  # MLflow's own server reads what is recorded
    assert uris(here) == {here.as_uri()}


def test_a_database_apart_from_its_storage_keeps_its_files_there(tmp_path: Path) -> None:
    storage, store = Storage(str(tmp_path / "s")), f"sqlite:///{tmp_path}/apart/ml.db"
    for name in ("runs", "mlartifacts"):  # other programs have such folders too
        (tmp_path / "apart" / name).mkdir(parents=True)
    Path(storage.uri).mkdir()
    for uri in (storage.uri, str(tmp_path / "other")):
        client = open_store(store, Storage(uri))
        (tmp_path / "s" / "mlartifacts").mkdir(exist_ok=True)
        experiment = client.get_experiment_by_name("resnet-repro")
        assert experiment and experiment.artifact_location == (tmp_path / "s/mlartifacts").as_uri()
    (tmp_path / "s").rename(tmp_path / "t")
    experiment = open_store(store, Storage(str(tmp_path / "t"))).get_experiment_by_name(
        "resnet-repro"
    )
    assert experiment and experiment.artifact_location == (tmp_path / "t/mlartifacts").as_uri()


def test_files_that_were_left_behind_are_missed_and_sent_again(cli: Cli, tmp_path: Path) -> None:
    place = published(tmp_path / "old")
    os.system(f"rm -r {place}/mlartifacts")
    reported = cli("report", "--storage", place)
    assert reported.returncode == 2 and "`resnet-repro sync` sends the files" in reported.stderr
    assert len(reported.stderr.strip().splitlines()) == 1
    assert "2 runs completed" in cli("sync", "--storage", place).stdout
    assert cli("report", "--storage", place).returncode == 0


def test_a_place_with_blanks_is_recorded_as_mlflow_reads_it(tmp_path: Path) -> None:
    place = published(tmp_path / "old").rename(tmp_path / "my new % place")
    rehome(store_of(place))
    for run in mlflow_runs(store_of(place)):
        files = MlflowClient(store_of(place)).list_artifacts(run.info.run_id)
        assert {file.path for file in files} == {"model", "result.json"}
