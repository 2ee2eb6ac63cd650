"""`resnet-repro plan`: what a grid will take and cost, before anything of it is begun."""

import json
import re
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cache
from time import monotonic
from typing import Annotated, Any

import typer

from jobs.console.console import console
from jobs.execution.launch import Execution, check_workers
from jobs.grids import grids, sweeps
from jobs.planning import rates as speed
from jobs.planning.estimate import Cluster, Estimate, Plan, estimate
from jobs.planning.printing import chosen, facts, show
from jobs.planning.probe import ProbeTiming, probe
from jobs.planning.saved_plans import keep
from jobs.planning.workload import BACKWARD, Amount, amount, iteration_flops
from jobs.requests.dry_run import DatasetSummary, dataset_summary
from jobs.requests.options import (
    AddressOption,
    DataOption,
    Device,
    DeviceOption,
    IterationsOption,
    JsonOption,
    NamesArgument,
    OnePassOption,
    SetOption,
    StorageOption,
    ThreadsOption,
    WorkersOption,
    workers_of,
    writable,
)
from jobs.requests.requested_runs import check_holdout, check_suits
from pipeline.data.datasets import IMAGENET
from pipeline.data.lookup import check_named
from pipeline.errors import InputError
from pipeline.recipe.experiments import Experiment
from pipeline.runs.checkpoint import newest_iteration
from pipeline.runs.run import Run, read_result
from pipeline.storage import Storage

START_SECONDS = 20.0
"""Assumed of a cluster that is only described: what a run takes besides computing."""
FIXED_SECONDS = 15.0
"""Of a grid command: the time before its first run and after its last one, in which Ray, Tune and
the report have their turn.
"""
WIDTHS = (1, 2, 4, 8)
"""Workers of ImageNet's runs on a described cluster, as tried, and"""
SHARED = (1, 2, 4)
"""how many of CIFAR's runs share a GPU of it: what ends first is taken."""


def plan(
    names: NamesArgument,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0..K-1 of each row.")] = 1,
    data: DataOption = "digits",
    workers: WorkersOption = "1",
    threads: ThreadsOption = None,
    device: DeviceOption = Device.AUTO,
    gpus: Annotated[
        str, typer.Option(help="As of `grid`; or a cluster described, such as 8xA100.")
    ] = "1",
    price: Annotated[
        float | None,
        typer.Option(min=0, help="Of a GPU for an hour (of a CPU where none is used)."),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="What may be spent (hours of GPUs or CPUs without --price): rows are picked.",
        ),
    ] = None,
    one_pass: OnePassOption = False,
    iterations: IterationsOption = None,
    settings: SetOption = [],  # noqa: B006  (Typer reads it, nobody writes it)
    storage_uri: StorageOption = "results",
    address: AddressOption = None,
    probe_seconds: Annotated[
        float, typer.Option(min=0, help="At most about so long is measured on the cluster.")
    ] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Say what a grid would run, what is done, how long it takes and what it costs; trains nothing.

    On a cluster that is there, a minute of measuring and earlier runs say how fast it is. The plan
    is kept in storage, and the grid says at its end how long it took beside it. Examples:

    * `resnet-repro plan table6 --data cifar10 --seeds 5`

    * `resnet-repro plan paper imagenet --seeds 5 --gpus 64xA100 --price 2.5 --budget 5000`
    """
    if "demo" in names:
        iterations, settings = (
            iterations or grids.DEMO_ITERATIONS,
            [*grids.demo_settings(), *settings],
        )
    fewest, _ = workers_of(workers)
    described = re.fullmatch(r"(\d+)x(\w+)", gpus)
    storage = Storage(storage_uri)
    asked = _asked(
        storage, names, seeds, data, fewest, iterations, settings, mixed=described is not None
    )
    if described:
        made = _described(asked, int(described[1]), described[2], price)
        return _show(asked, made, budget, as_json, "")
    try:
        each = float(gpus)
    except ValueError:
        each = 0.0
    if not 0.01 <= each <= 1024:
        raise InputError(
            f"--gpus {gpus}: wanted is a number, as of `grid`, or a cluster such as 8xA100"
        )
    storage = writable(storage_uri)
    execution = Execution(storage.uri, "", fewest, each, one_pass=one_pass)
    made, found = _here(asked, execution, device, threads, address, price, probe_seconds)
    kept = keep(storage, made, {"command": names, **found}) if made.runs else ""
    _show(asked, made, budget, as_json, kept)


@dataclass(frozen=True)
class PlanRequest:
    """The runs of a grid with what is left of each, in the order of rows and seeds."""

    storage: Storage
    data: DatasetSummary
    amounts: dict[Run, Amount]

    @property
    def experiments(self) -> list[Experiment]:
        return list(dict.fromkeys(run.experiment for run in self.amounts))

    @property
    def left(self) -> dict[Run, Amount]:
        return {run: left for run, left in self.amounts.items() if not left.nothing}


def _asked(
    storage: Storage,
    names: list[str],
    seeds: int,
    data: str,
    workers: int,
    iterations: int | None,
    settings: list[str],
    mixed: bool,
) -> PlanRequest:
    """What `grid` would be asked for; where `mixed`, rows of both halves of the paper are each on
    their own data.
    """
    known = dataset_summary(storage, data)
    if not known.id:
        check_named(storage, data)
    experiments, _ = sweeps.asked_for(names, settings, iterations, known.train_images)
    amounts, elsewhere = dict[Run, Amount](), cache(lambda name: dataset_summary(storage, name))
    for experiment in experiments:
        on = known
        if mixed and (experiment.family == "imagenet") != known.photographs:
            on = elsewhere(IMAGENET.name if experiment.family == "imagenet" else "cifar10")
        check_suits(experiment, on.name, on.photographs)
        check_holdout(experiment, on.train_images)
        for seed in range(seeds):
            run = Run(experiment, on.id, on.key, seed)
            if not mixed:
                check_workers(run, workers)
            amounts[run] = _left(storage, run, on)
    return PlanRequest(storage, known, amounts)


def _left(storage: Storage, run: Run, on: DatasetSummary) -> Amount:
    if on.id and read_result(storage, run) is not None:
        return Amount(0, 0.0)
    reached = newest_iteration(storage, run) if on.id else 0
    return amount(run.experiment, on.train_images, on.test_images, reached)


def _here(
    asked: PlanRequest,
    execution: Execution,
    device: Device,
    threads: int | None,
    address: str | None,
    price: float | None,
    limit: float,
) -> tuple[Plan, dict[str, Any]]:
    """A plan for the cluster that is there, by what is measured on it; and what was."""
    from jobs.execution.cluster import connected, head_memory
    from jobs.execution.tune import max_concurrent_runs
    from jobs.requests.requested_runs import resolve_resources

    left, began = asked.left, monotonic()
    if not left:
        return Plan(Cluster(0, "CPU", price), [], 0.0), {}
    with connected(address), console.status("measuring for about a minute"):
        joining = monotonic() - began
        execution, nodes = resolve_resources(execution, device, threads, runs=len(left))
        most = max_concurrent_runs(nodes, execution, head_memory())
        at_once = min(len(left), most)
        measured = probe(
            asked.storage, _shares(left), asked.data.side, execution, at_once, limit - joining
        )
    hardware = next((timing.hardware for timing in measured.timings.values()), "")
    rates = speed.probed(measured.timings, execution.workers)
    rates |= speed.earlier(asked.storage, list(asked.amounts), execution, hardware)
    found = speed.rates(asked.experiments, rates)
    kind = "GPU" if execution.use_gpu else "CPU"
    of_run = execution.workers * execution.each_worker[kind]
    runs = [
        estimate(
            run, rest, found[run.experiment.fingerprint], measured.start, execution.workers, of_run
        )
        for run, rest in left.items()
    ]
    about = {
        "at_once": at_once,
        "threads": execution.threads,
        "probe": asdict(measured),
        "joining": joining,
    }
    there = sum(node.get(kind, 0) for node in nodes)
    return Plan(
        Cluster(most * of_run, kind, price, there), _longest_first(runs), FIXED_SECONDS + joining
    ), about


def _longest_first(runs: list[Estimate]) -> list[Estimate]:
    return sorted(runs, key=lambda one: -one.seconds)


def _shares(left: dict[Run, Amount]) -> list[ProbeTiming]:
    """Each row with how many runs of it are left, and its share of the work."""
    work = dict[Experiment, float]()
    for run, amount_left in left.items():
        experiment = run.experiment
        images = (
            1 + BACKWARD
        ) * amount_left.iterations * experiment.global_batch_size + amount_left.forward
        work[experiment] = (
            work.get(experiment, 0.0)
            + images * iteration_flops(experiment) / experiment.global_batch_size
        )
    runs = Counter(run.experiment for run in left)
    return [
        ProbeTiming(experiment, runs[experiment], part / sum(work.values()))
        for experiment, part in work.items()
    ]


def _described(asked: PlanRequest, count: int, kind: str, price: float | None) -> Plan:
    """The best plan for a cluster of so many GPUs of a kind, over how wide ImageNet's runs are and
    how small ones share.
    """
    card = speed.CARDS.get(kind.upper())
    if card is None or count < 1:
        raise InputError(
            f"--gpus {count}x{kind}: known are {', '.join(speed.CARDS)}; others are measured where "
            "they are"
        )
    cluster = Cluster(count, kind.upper(), price)
    choices = [(width, among) for width in WIDTHS if width <= count for among in SHARED]
    ways = [_published(asked.left, card, width, among) for width, among in choices]
    # No placement is shorter than the least work spread evenly, nor than the longest run at its
    # widest.
    least = sum(
        min(hours) for hours in zip(*([one.hours for one in way] for way in ways), strict=True)
    )
    longest = max(
        (min(times) for times in zip(*([one.seconds for one in way] for way in ways), strict=True)),
        default=0.0,
    )
    bound = FIXED_SECONDS + max(3600 * least / count, longest)
    plans = [
        Plan(
            cluster, _longest_first(way), FIXED_SECONDS, bound, least, _options(asked, width, among)
        )
        for way, (width, among) in zip(ways, choices, strict=True)
    ]
    return min(plans, key=lambda one: one.seconds)


def _options(asked: PlanRequest, width: int, among: int) -> str:
    families = {experiment.family for experiment in asked.experiments}
    says = [f"--workers {width} for ImageNet's rows"] if "imagenet" in families else []
    return ", ".join(
        says + ([f"--gpus {1 / among:g} for CIFAR's rows"] if "cifar" in families else [])
    )


def _published(left: dict[Run, Amount], card: speed.Card, width: int, among: int) -> list[Estimate]:
    """Each run, ImageNet's with up to `width` workers, CIFAR's `among` to a GPU, by what is
    published of the GPU.
    """
    found = list[Estimate]()
    for run, amount_left in left.items():
        experiment = run.experiment
        wide = min(width, experiment.groups) if experiment.family == "imagenet" else 1
        sharing = among if experiment.family == "cifar" else 1
        rate = speed.published(experiment, card, wide, sharing)
        found.append(estimate(run, amount_left, rate, START_SECONDS, wide, wide / sharing))
    return found


def _show(asked: PlanRequest, made: Plan, budget: float | None, as_json: bool, kept: str) -> None:
    choice = chosen(made, asked.amounts, budget) if budget is not None and made.runs else None
    if as_json:
        print(
            json.dumps(
                [{"runs": len(asked.amounts), **facts(made, choice), "kept": kept}], indent=1
            )
        )
        return
    print(
        f"{len(asked.amounts)} runs, {len(asked.amounts) - len(made.runs)} finished before",
        flush=True,
    )
    if made.runs:
        show(made, choice)
    if kept:
        print(f"kept in       {kept}")
