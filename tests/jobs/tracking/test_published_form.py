"""What people find in MLflow: final values beside the paper's, tidy runs, named models."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, ViewType

from analysis.measured.mlflow_export import read_frames
from analysis.measured.tags import BOOKKEEPING, EXPERIMENT
from jobs.tracking.described_runs import NOTE
from jobs.tracking.other_publications import publish_stored
from jobs.tracking.parents import PARENT, log_finals
from jobs.tracking.store import open_store
from jobs.tracking.views import PREFIX
from pipeline.recipe.metrics import TEST_ERR
from pipeline.runs.run import read_result
from pipeline.storage import Storage
from tests.jobs.tracking.earlier_store import EARLIER_MODEL, as_earlier
from tests.jobs.tracking.paper_study import ATTEMPT, paper_study
from tests.jobs.tracking.published import mlflow_runs, store_of

NAMES, SEEDS = ("plain20", "resnet20"), 3
PAPER = {"plain20": 9.69, "resnet20": 8.75}
"""The end of Figure 6's curve, and Table 6."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage whose runs are those of the paper, published; tests change copies alone."""
    place = tmp_path_factory.mktemp("study") / "storage"
    paper_study(Storage(str(place)), SEEDS, NAMES)
    sync(place)
    return place


def sync(place: Path) -> int:
    return publish_stored(store_of(place), Storage(str(place)), print)


def copied(place: Path, to: Path) -> Path:
    shutil.copytree(place, to)
    open_store(store_of(to), Storage(str(to)))  # its record of where artifacts are
    return to


def test_a_parent_has_final_values_and_the_papers_beside_them(place: Path) -> None:
    client = MlflowClient(store_of(place))
    parents = mlflow_runs(store_of(place), "experiment")
    assert {parent.data.tags["experiment"] for parent in parents} == set(NAMES)
    for parent in parents:
        run_id, name, metrics = (
            parent.info.run_id,
            parent.data.tags["experiment"],
            parent.data.metrics,
        )
        seeds = [run for run in mlflow_runs(store_of(place)) if run.data.tags[PARENT] == run_id]
        errors = [run.data.metrics[TEST_ERR] for run in seeds]
        assert len(errors) == SEEDS and metrics["mean"] == round(sum(errors) / SEEDS, 2)
        assert (metrics["n"], metrics["paper"]) == (SEEDS, PAPER[name])
        for metric in metrics:
            assert [point.step for point in client.get_metric_history(run_id, metric)] == [0], (
                metric
            )
        assert parent.data.params["depth"] == "20" and "seed" not in parent.data.params
        verdict, note = parent.data.tags["verdict"], parent.data.tags[NOTE]
        # Three seeds suggest at best; whether these do is the report's to say.
        assert verdict in ("suggestive", "undecided") and f"Verdict: **{verdict}**" in note
        assert f"The paper has **{PAPER[name]} %**" in note and "(3 finished seeds)" in note


def test_a_seed_shows_what_means_something_and_nothing_else(place: Path) -> None:
    run = mlflow_runs(store_of(place))[0]
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.tags[0].value) == ("cifar10", "training")
    assert run.info.run_name == f"{run.data.tags['experiment']} seed 0"
    source = {name: run.data.tags[f"mlflow.source.{name}"] for name in ("name", "git.commit")}
    assert source == {"name": "resnet-repro", "git.commit": ATTEMPT["commit"]}
    without_meaning = {"crop", "test_sides", "protocols", "warmup_until_err", "bottleneck_stride"}
    assert not without_meaning & run.data.params.keys() and run.data.params["lr"] == "0.1"
    shown = {name for name in run.data.tags if not name.startswith("mlflow.")}
    assert not shown & BOOKKEEPING and len(shown) <= 14, shown


def test_a_model_is_of_one_recipe_and_its_seeds_have_aliases(place: Path) -> None:
    client = MlflowClient(store_of(place))
    models = {model.name: model.aliases for model in client.search_registered_models()}
    assert models.keys() == {f"{name}-cifar10" for name in NAMES}
    for name, aliases in models.items():
        versions = client.search_model_versions(f"name = '{name}'")
        errors = {int(one.version): float(one.tags["test_err"]) for one in versions}
        assert len(errors) == SEEDS
        median = errors[int(aliases["median"])]
        assert sorted(errors.values())[1] == median
        for seed in range(SEEDS):
            named = client.get_model_version_by_alias(name, f"seed-{seed}")
            assert named.tags["seed"] == str(seed)


def test_what_is_written_last_counts_whatever_a_clock_says(place: Path, tmp_path: Path) -> None:
    store = store_of(copied(place, tmp_path / "storage"))
    client, parent = MlflowClient(store), mlflow_runs(store, "experiment")[0].info.run_id
    client.log_batch(parent, [Metric("n", 7, 4_000_000_000_000, 0)])  # by a clock that is ahead
    assert sync(tmp_path / "storage") == 0
    assert client.get_run(parent).data.metrics["n"] == SEEDS
    assert not log_finals(client, parent, {"n": float(SEEDS)})


def test_what_a_person_writes_at_a_parent_stays(place: Path, tmp_path: Path) -> None:
    store = store_of(copied(place, tmp_path / "storage"))
    client, parent = MlflowClient(store), mlflow_runs(store, "experiment")[0].info.run_id
    client.set_tag(parent, NOTE, "mine")
    client.set_tag(parent, "verdict", "changed by hand")
    sync(tmp_path / "storage")
    tags = client.get_run(parent).data.tags
    assert tags[NOTE] == "mine" and tags["verdict"] in ("suggestive", "undecided")


def test_a_store_of_the_version_before_is_mended_by_sync(place: Path, tmp_path: Path) -> None:
    there = copied(place, tmp_path / "storage")
    store, client = store_of(there), MlflowClient(store_of(there))
    as_earlier(store)
    before, frames = {run.info.run_id: run for run in mlflow_runs(store)}, read_frames(store)
    renamed, *_ = before
    client.update_run(renamed, name="mine")
    (noted, _) = mlflow_runs(store, "experiment")
    client.set_tag(noted.info.run_id, NOTE, "my words")

    assert sync(there) == len(before) and sync(there) == 0

    after = {run.info.run_id: run for run in mlflow_runs(store)}
    assert after.keys() == before.keys()
    mended = read_frames(store)
    for name in ("runs", "metrics"):
        assert getattr(mended, name).equals(getattr(frames, name)), name
    assert after[renamed].info.run_name == "mine"
    for run_id, run in after.items():
        assert not (BOOKKEEPING | {"artifacts"}) & run.data.tags.keys()
        assert run.info.end_time == before[run_id].info.end_time
    # Parents were replaced, with what a person had written there.
    parents = mlflow_runs(store, "experiment")
    assert len(parents) == 2 and {parent.data.metrics["n"] for parent in parents} == {SEEDS}
    assert Counter(run.data.tags[PARENT] for run in after.values()) == {
        parent.info.run_id: SEEDS for parent in parents
    }
    assert sorted(parent.data.tags[NOTE][:8] for parent in parents)[1] == "my words"
    assert len(mlflow_runs(store, "experiment", ViewType.DELETED_ONLY)) == 2
    models = {model.name for model in client.search_registered_models()}
    assert models == {f"{name}-cifar10" for name in NAMES} and EARLIER_MODEL not in models
    tags = client.get_experiment_by_name(EXPERIMENT).tags  # type: ignore[union-attr]
    assert tags[NOTE] == "a person's note" and f"{PREFIX}curves" in tags


def test_each_seed_is_counted_whichever_ends_last(place: Path, tmp_path: Path) -> None:
    there = copied(place, tmp_path / "storage")
    storage, store = Storage(str(there)), store_of(there)
    extra = paper_study(Storage(str(tmp_path / "more")), SEEDS + 1, ["resnet20"])[-1]
    shutil.copytree(tmp_path / "more" / extra.folder, there / extra.folder)
    assert read_result(storage, extra) and sync(there) == 1
    parents = mlflow_runs(store, "experiment")
    assert sorted(parent.data.metrics["n"] for parent in parents) == [SEEDS, SEEDS + 1]
    assert any("(4 finished seeds)" in parent.data.tags[NOTE] for parent in parents)
