"""The runs of a grid that is to be planned, with what is left of each; nothing is prepared."""

from dataclasses import dataclass
from functools import cache

from jobs.execution.launch import check_workers
from jobs.grids import sweeps
from jobs.grids.grids import DEMO_DATASET, dataset_of, datasets_of
from jobs.planning.workload import Amount, amount
from jobs.requests.default_data import check_earlier_default
from jobs.requests.dry_run import DatasetSummary, dataset_summary
from jobs.requests.requested_runs import check_holdout, check_suits
from pipeline.recipe.experiments import Experiment
from pipeline.runs.checkpoint import newest_iteration
from pipeline.runs.run import Run, read_result
from pipeline.storage import Storage


@dataclass(frozen=True)
class PlanRequest:
    """The runs of a grid with what is left of each, in the order of experiments and seeds."""

    storage: Storage
    data: DatasetSummary
    amounts: dict[Run, Amount]
    datasets: list[DatasetSummary]
    """What the runs are on: of two halves of the paper, both."""

    @property
    def experiments(self) -> list[Experiment]:
        return list(dict.fromkeys(run.experiment for run in self.amounts))

    @property
    def left(self) -> dict[Run, Amount]:
        return {run: left for run, left in self.amounts.items() if not left.nothing}


def plan_request(
    storage: Storage,
    names: list[str],
    seeds: int,
    data: str | None,
    workers: int,
    iterations: int | None,
    settings: list[str],
    mixed: bool,
) -> PlanRequest:
    """What `grid` would be asked for; without `data` on the paper's own data for it.

    Where `mixed`, experiments of both halves of the paper are each on their own data, and the
    number of workers is the plan's to choose.

    Raises:
        InputError: what `grid` would refuse.
    """
    summary = cache(lambda name: dataset_summary(storage, name))
    own = datasets_of(names)[0] if mixed else dataset_of(names)
    named = summary(own if data is None else data)
    # The runs of a sweep are trained like any others, so a plan need not tell them apart.
    experiments, _ = sweeps.asked_for(names, settings, iterations, named.train_images)
    amounts, used = dict[Run, Amount](), dict[DatasetSummary, None]()
    for experiment in experiments:
        dataset = named
        if mixed and (experiment.family == "imagenet") != named.photographs:
            dataset = summary(experiment.dataset)
        used[dataset] = None
        check_suits(experiment, dataset.name, dataset.photographs)
        check_holdout(experiment, dataset.train_images)
        for seed in range(seeds):
            run = Run(experiment, dataset.id, dataset.key, seed)
            if not mixed:
                check_workers(run, workers)
            amounts[run] = _left(storage, run, dataset)
    if data is None and own != DEMO_DATASET:
        check_earlier_default(storage, experiments, range(seeds))
    return PlanRequest(storage, named, amounts, [*used])


def _left(storage: Storage, run: Run, dataset: DatasetSummary) -> Amount:
    # A dataset without an id is not prepared yet: no run on it can have begun.
    if dataset.id and read_result(storage, run) is not None:
        return Amount(0, 0.0)
    reached = newest_iteration(storage, run) if dataset.id else 0
    return amount(run.experiment, dataset.train_images, dataset.test_images, reached)
