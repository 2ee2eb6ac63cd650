"""`--dry-run`: the resolved rows, and where everything would go; writes and starts nothing."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from jobs.console.console import console
from jobs.console.tables import FittingTable
from jobs.execution.launch import check_workers
from jobs.requests.options import tracking_of, workers_of
from jobs.requests.requested_runs import check_suits
from pipeline.data.catalogue.cifar10 import CIFAR10
from pipeline.data.catalogue.table import DATASETS
from pipeline.data.datasets import dataset_key
from pipeline.data.photo_shards import holds_photographs
from pipeline.data.preparation import check_dataset_name, how_to_bring, is_path
from pipeline.data.stored import find_stored
from pipeline.errors import redacted
from pipeline.recipe.experiments import EXPERIMENTS, Experiment
from pipeline.recipe.overrides import recipe_of, value_text
from pipeline.runs.checkpoint import newest_iteration
from pipeline.runs.run import Run, read_result
from pipeline.storage import Storage


def show_resolved(
    experiments: Sequence[Experiment],
    seeds: Sequence[int],
    data: str,
    storage_uri: str,
    tracking: str | None,
    workers: str,
) -> None:
    """Print what a command would train and where.

    Raises:
        InputError: what the command itself would refuse of its rows, workers, storage or tracking.
    """
    storage = Storage(storage_uri)
    # Resolved as the command itself would, but the dataset: reading it would take minutes.
    store, dataset = tracking_of(tracking, storage), dataset_summary(storage, data)
    runs = [
        Run(experiment, dataset.id, dataset.key, seed)
        for experiment in experiments
        for seed in seeds
    ]
    for run in runs:
        check_suits(run.experiment, data, dataset.photographs)
        check_workers(run, workers_of(workers)[0])

    # What most rows share is said once, a line a field; then each row with what it has of its own.
    telling = {
        name
        for experiment in experiments
        for name in recipe_of(asdict(experiment)) | experiment.deviations()
    }
    names = [field.name for field in fields(Experiment) if field.name in telling]
    # Fields in which the rows differ among themselves.
    differing = [
        name for name in names if len({getattr(experiment, name) for experiment in experiments}) > 1
    ]
    for name in names:
        usual = [
            experiment
            for experiment in experiments
            if getattr(experiment, name) == _usual(experiments, name)
        ]
        if usual:
            print(f"{name:<19} {_value(usual[0], name)}")
    console.print(_table(experiments, differing))
    for what, says in (
        ("dataset", dataset.says),
        ("runs", f"{len(runs)}: {_count(experiments, 'experiment')} x {_count(seeds, 'seed')}"),
        ("storage", storage.uri),
        ("tracking", redacted(store)),
        ("workers", workers),
    ):
        print(f"{what:<19} {says}")
    for run in runs:
        print(
            f"{_state(storage, run) if dataset.id else 'to train':<19} {storage.path(run.folder)}"
        )


def _count(things: Sequence[Any], name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"


def _table(experiments: Sequence[Experiment], differing: list[str]) -> FittingTable:
    """Each row with the fields in which it is unlike most rows or unlike the paper's row."""
    names = ("row", "fingerprint", "differs in")
    table = FittingTable(*names, left=names, wrapping=["differs in"])
    for experiment in experiments:
        changed = experiment.deviations()
        # A field is named where the row changes the paper's value, or is the odd one out.
        own = [
            name
            for name in differing
            if name in changed or getattr(experiment, name) != _usual(experiments, name)
        ]
        table.add_row(
            experiment.name,
            experiment.fingerprint,
            ", ".join(f"{name}={_value(experiment, name)}" for name in own),
        )
    return table


def _usual(experiments: Sequence[Experiment], field: str) -> Any:
    """The value that more than half of the rows have; an object unlike any value if none has."""
    counts = Counter(getattr(experiment, field) for experiment in experiments)
    ((value, count),) = counts.most_common(1)
    return value if 2 * count > len(experiments) else object()


def _value(experiment: Experiment, field: str) -> str:
    """A field's value, followed by the paper's where that is another."""
    value, paper = getattr(experiment, field), getattr(EXPERIMENTS[experiment.name], field)
    return value_text(value) + (f" (paper: {value_text(paper)})" if value != paper else "")


@dataclass(frozen=True)
class DatasetSummary:
    """What is known of a dataset before it is needed.

    Until it is prepared its `id` is empty, and the sizes are the catalogue's. `photographs` is None
    for files that were not read yet.
    """

    name: str
    id: str
    key: str
    photographs: bool | None
    train_images: int
    test_images: int
    side: int
    """Of its images in pixels; 0 for photographs."""
    missing: str = ""
    """Of one that is known by name and not prepared: what brings it."""

    @property
    def says(self) -> str:
        """In a line."""
        if self.missing:
            return f"{self.name}, not prepared: {self.missing}"
        if not self.id:
            return f"{self.name}, to be prepared (its id is part of the folders' names)"
        counts = f"{self.train_images:,} training and {self.test_images:,} test images"
        return f"{self.name} {self.id}: {counts}"


def dataset_summary(storage: Storage, data: str) -> DatasetSummary:
    """What a command finds out of a dataset without reading or preparing it.

    Raises:
        InputError: it names neither a dataset nor a path, or more than one prepared dataset.
    """
    if stored := find_stored(storage, data):
        return DatasetSummary(
            stored["row"]["name"],
            stored["id"],
            dataset_key(stored["row"]["name"], stored["id"]),
            holds_photographs(stored),
            int(stored["train_images"]),
            int(stored["test_images"]),
            int(stored["row"]["side"]),
        )
    check_dataset_name(storage, data)
    known = DATASETS.get(data)
    # Nobody has looked into files at a path: CIFAR-10's sizes are the usual ones.
    sizes = known or CIFAR10
    dataset = known.embedded() if known and known.embedded else None
    return DatasetSummary(
        data,
        dataset.id if dataset else "",
        dataset.key if dataset else data,
        known.photographs if known else None,
        sizes.train_images,
        sizes.test_images,
        sizes.spec.side,
        how_to_bring(storage, known) if known and not known.embedded and not is_path(data) else "",
    )


def _state(storage: Storage, run: Run) -> str:
    result = read_result(storage, run)
    if result is not None:
        return str(result["status"])
    reached = newest_iteration(storage, run)
    return f"continues from {reached:,}" if reached else "to train"
