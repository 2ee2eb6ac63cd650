"""What a run's copy in MLflow says of the run besides its points: name, tags, parameters, data.

All of it is known before the first iteration. A copy that an earlier version made is mended: what
only programs read moves out of the sight of people, and nothing is sent twice.
"""

from dataclasses import asdict
from json import dumps
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag
from mlflow.entities import Run as MlflowRun

from analysis.measured.tags import BOOKKEEPING, known_tags, stored_tags
from jobs.tracking.views import CURVE, curve_name
from pipeline.data.stored import read_manifest
from pipeline.recipe.experiments import EXPERIMENTS, Experiment
from pipeline.recipe.layers import layout
from pipeline.recipe.metrics import IMAGES_PER_SECOND, TEST_ERR, protocol_err
from pipeline.recipe.overrides import recipe_of, title
from pipeline.runs.history import History
from pipeline.runs.run import Run
from pipeline.storage import Storage

RUN_NAME, NOTE = "mlflow.runName", "mlflow.note.content"
"""MLflow's own tags that people change in the UI: sent once, and theirs from then on."""
SOURCE, SOURCE_TYPE = "mlflow.source.name", "mlflow.source.type"
COMMIT = "mlflow.source.git.commit"
"""MLflow's own tags of what made a run."""
OUTDATED = ("artifacts",)
"""Tags that earlier versions wrote and nobody reads."""


def manifest_of(storage: Storage, run: Run) -> dict[str, Any]:
    """The manifest of a run's dataset.

    Raises:
        FileNotFoundError: it is not in storage any more.
    """
    manifest = read_manifest(storage, run.dataset_id)
    if manifest is None:
        raise FileNotFoundError(f"dataset {run.dataset_id} is not in {storage.uri} any more")
    return manifest


def trained_ms(run: Run, history: History | None) -> tuple[int, int] | None:
    """When a run began to train and recorded its newest point (Unix, ms); None without points.

    The beginning is reckoned from the first point, by the rate up to it.
    """
    if history is None or not history.points:
        return None
    first = min(history.points, key=lambda point: point.iteration)
    images = first.iteration * run.experiment.global_batch_size
    rates = {
        point.iteration: point.value
        for point in history.points
        if point.metric == IMAGES_PER_SECOND and point.value > 0
    }
    rate = rates.get(first.iteration)
    began = first.time_ms - round(1000 * images / rate) if rate else first.time_ms
    return began, max(point.time_ms for point in history.points)


def row_name(run: Run, manifest: dict[str, Any]) -> str:
    """A row on a dataset: `resnet20 on cifar10 (600 iterations)`."""
    # What tells rows apart comes first: the UI's columns and legends are narrow.
    name, changed, brackets = title(run.experiment).partition(" (")
    return f"{name} on {manifest['row']['name']}{changed}{brackets}"


def _rank(experiment: Experiment) -> int:
    """The row's place among the paper's rows of its family; that of others is behind them."""
    family = [name for name, row in EXPERIMENTS.items() if row.family == experiment.family]
    return family.index(experiment.name) if experiment.name in family else len(family)


def parent_key(fingerprint: str, dataset_id: str) -> str:
    """What a row's parent on a dataset is found by."""
    return f"{fingerprint}-{dataset_id}"


def headline(experiment: str) -> str:
    """The metric of a row that its parent says first, by the row's name.

    It is the error that Table 6, or Table 2, prints of it.
    """
    photographs = experiment in EXPERIMENTS and EXPERIMENTS[experiment].family == "imagenet"
    return protocol_err("ten_crop", 1) if photographs else TEST_ERR


def fact_name(experiment: str, metric: str, fact: str) -> str:
    """What a parent calls a fact of a metric: `mean` of the headline, `metric/mean` of others."""
    # Short, as the UI cuts the heads of columns.
    return fact if metric == headline(experiment) else f"{metric}/{fact}"


def experiment_tags(run: Run, manifest: dict[str, Any]) -> dict[str, str]:
    """What a run and its parent are about."""
    experiment, dataset = run.experiment, manifest["row"]
    plan = layout(experiment, classes=dataset["classes"])
    return {
        "experiment": experiment.name,
        "fingerprint": experiment.fingerprint,
        "overrides": dumps(experiment.deviations(), sort_keys=True),
        "iterations": str(experiment.iterations),
        "params": str(plan.params),
        "dataset": dataset["name"],
        "dataset_id": run.dataset_id,
        "comparable": str(bool(dataset["comparable"])),
    }


def run_tags(run: Run, manifest: dict[str, Any]) -> dict[str, str]:
    """What a run's copy is made with."""
    return experiment_tags(run, manifest) | {
        "kind": "run",
        RUN_NAME: f"{run.experiment.name} seed {run.seed}",
        "seed": str(run.seed),
        CURVE: curve_name(row_name(run, manifest), _rank(run.experiment)),
        SOURCE: "resnet-repro",
        SOURCE_TYPE: "LOCAL",
    }


def parameters(run: Run) -> list[Param]:
    """The fields of a run's row that say something about it."""
    return [Param(name, str(value)) for name, value in recipe_of(asdict(run.experiment)).items()]


def describe(
    client: MlflowClient, run_id: str, run: Run, manifest: dict[str, Any], tags: dict[str, str]
) -> None:
    """Send a copy's tags, by our own names, its parameters, and what it is trained on."""
    params = [*parameters(run), Param("seed", str(run.seed))]
    sent = [RunTag(*item) for item in stored_tags(tags).items()]
    client.log_batch(run_id, params=params, tags=sent)
    # MLflow keeps an input once, however often it is sent.
    client.log_inputs(run_id, [_dataset_input(run, manifest)])


def _dataset_input(run: Run, manifest: dict[str, Any]) -> DatasetInput:
    row = manifest["row"]
    images = {f"{split}_images": manifest[f"{split}_images"] for split in ("train", "test")}
    return DatasetInput(
        Dataset(
            name=row["name"],
            digest=run.dataset_id,
            source_type="resnet-repro",
            source=dumps({"arrives": row["arrives"], "id": run.dataset_id}),
            profile=dumps(images | {"classes": row["classes"]}),
        ),
        [InputTag("mlflow.data.context", "training")],
    )


def is_outdated(copy: MlflowRun) -> bool:
    """Whether an earlier version made a copy, which is to be mended."""
    return CURVE not in copy.data.tags


def mend(client: MlflowClient, copy: MlflowRun, run: Run, manifest: dict[str, Any]) -> None:
    """Give a copy of an earlier version the form that copies have today.

    Its points, files, times and status stay, and so do a name that a person gave it, and parameters
    that mean nothing: MLflow deletes none.
    """
    run_id, old, now = copy.info.run_id, copy.data.tags, run_tags(run, manifest)
    last = {CURVE: now.pop(CURVE)}
    if copy.info.run_name != _earlier_name(run):
        del now[RUN_NAME]
    if commit := old.get("commit", "").rpartition(" + ")[2]:
        now[COMMIT] = commit
    moved = (BOOKKEEPING & old.keys()) - now.keys()
    describe(client, run_id, run, manifest, now | {name: old[name] for name in moved})
    for name in (BOOKKEEPING | set(OUTDATED)) & old.keys():
        client.delete_tag(run_id, name)
    # Last, as it says that all of this is done.
    client.log_batch(run_id, tags=[RunTag(*item) for item in last.items()])


def _earlier_name(run: Run) -> str:
    name, changed, brackets = title(run.experiment).partition(" (")
    return f"{name} seed {run.seed}{changed}{brackets}"


def tags_of(copy: MlflowRun) -> dict[str, str]:
    """The tags of a copy by our own names."""
    return known_tags(copy.data.tags)
