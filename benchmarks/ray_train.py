"""What Ray Train costs, and how a grid's trials should share the CPUs: rates of whole runs.

Every round trains the same run bare in a process of its own and as a Ray Train worker group, both
with all CPUs as threads, and checks that the weights are the same bytes; and as many runs at once
as there are CPUs, one thread each. Rates are steady ones: over the time in SGD steps of all but a
run's first quarter, in which processes warm up and Ray's own are still starting. All of it happens
in a throwaway storage.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from statistics import median
from tempfile import TemporaryDirectory
from time import sleep
from typing import Any

from benchmarks import measure
from jobs.console.console import console, progress
from jobs.execution.processors import usable_cpus
from pipeline.data.datasets import Dataset
from pipeline.data.stored import read_dataset, write_dataset
from pipeline.recipe.experiments import EXPERIMENTS, Experiment, Precision
from pipeline.recipe.metrics import IMAGES_PER_SECOND
from pipeline.runs.checkpoint import newest_checkpoint, newest_history
from pipeline.runs.run import Run, read_result, start_run
from pipeline.storage import Storage

ROW = "resnet20"
SETTLE_SECONDS = 3.0
"""Given to Ray after its start and after its end, so that neither is timed."""
EXPECTED = 0.97
"""The least share of the bare rate that a Ray Train run is to keep."""

BARE, RAY, TOGETHER = "bare", "Ray Train", "at once"
Report = Callable[[int, int], None]


def bench(
    storage: Storage, manifest: dict[str, Any], iterations: int, rounds: int, precision: str
) -> dict[str, float]:
    """Measure and print; returns the median of each ratio.

    Raises:
        InputError: an unknown precision.
        RuntimeError: a run failed, or Ray's weights are not those of the bare run.
    """
    experiment = _row(iterations, measure.checked_precision(precision))
    dataset = read_dataset(storage, manifest["id"])
    with (
        TemporaryDirectory(prefix="resnet-repro-bench-") as folder,
        progress("measuring") as report,
    ):
        rates = _rounds(folder, experiment, dataset, rounds, report)
    ratios = {
        "Ray Train / bare": measure.ratios(rates[RAY], rates[BARE]),
        "at once / one at a time": measure.ratios(rates[TOGETHER], rates[BARE]),
    }
    _print_tables(experiment, dataset, rates, ratios)
    print(_how_it_was_taken(rounds, iterations))
    return {name: median(values) for name, values in ratios.items()}


def _row(iterations: int, precision: Precision) -> Experiment:
    """The row, shortened, with evaluations (and so rates) at the ends of its quarters."""
    # Rates are recorded at evaluations: four of them, and the first quarter warms up.
    quarters = tuple(iterations * part // 4 for part in (2, 3))
    return replace(
        EXPERIMENTS[ROW].scaled_to(iterations),
        lr_drops=quarters,
        eval_every=iterations // 4,
        precision=precision,
    )


def _rounds(
    folder: str, experiment: Experiment, dataset: Dataset, rounds: int, report: Report
) -> dict[str, list[float]]:
    """Images a second of each way in each round, beginning with another one each time."""
    cpus = usable_cpus()
    rates: dict[str, list[float]] = {BARE: [], RAY: [], TOGETHER: []}
    # A storage for each way: in one, the second to train a run would find it finished.
    storages = {way: _storage(f"{folder}/{way.replace(' ', '-')}", dataset) for way in rates}
    for number in range(rounds):
        run = Run(experiment, dataset.id, dataset.key, seed=number)
        # Seeds that no round has had, as runs that are finished would not be trained again.
        runs = [replace(run, seed=rounds + number * cpus + k) for k in range(cpus)]
        ways: list[tuple[str, Callable[[], float]]] = [
            (BARE, partial(_run_bare, storages[BARE], [run], cpus)),
            (RAY, partial(_run_on_ray, storages[RAY], run, cpus)),
            (TOGETHER, partial(_run_bare, storages[TOGETHER], runs, 1)),
        ]
        for step, (name, measured) in enumerate(measure.rotated(ways, number), 1):
            rates[name].append(measured())
            report(number * len(ways) + step, rounds * len(ways))
        _check_same_weights(storages[BARE], storages[RAY], run)
    return rates


def _storage(folder: str, dataset: Dataset) -> Storage:
    storage = Storage(folder)
    write_dataset(storage, dataset, {"kind": "benchmark"})
    return storage


def _run_bare(storage: Storage, runs: list[Run], threads: int) -> float:
    """Total images a second of runs in parallel processes."""
    # Fresh processes, as Ray's workers are: a forked one would share this one's threads.
    context = get_context("spawn")
    processes = [
        context.Process(target=bare, args=(storage.uri, run, threads), daemon=True) for run in runs
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    # A run that failed has no rate; its message is above.
    for run, process in zip(runs, processes, strict=True):
        if process.exitcode:
            raise RuntimeError(f"{run}: its process ended with exit code {process.exitcode}")
    return total_rate(storage, runs)


def bare(uri: str, run: Run, threads: int, checkpoint_seconds: float = 30.0) -> None:
    """A run in this process, with nothing of Ray."""
    import torch

    from pipeline.memory import keep_freed_memory
    from pipeline.runs.execution import Execution
    from pipeline.training.loop import train
    from pipeline.training.step.process_group import single_process

    keep_freed_memory()  # as a Ray Train worker does
    torch.set_num_threads(threads)
    storage = Storage(uri)
    start_run(storage, run, threads)
    train(
        run,
        read_dataset(storage, run.dataset_id),
        storage,
        single_process(),
        Execution(checkpoint_seconds=checkpoint_seconds),
    )


def _run_on_ray(storage: Storage, run: Run, threads: int) -> float:
    """A run on a Ray cluster of this machine's own, which is there for its time alone."""
    from jobs.execution.cluster import connected
    from jobs.execution.launch import run_on_ray
    from pipeline.runs.execution import Execution

    # A cluster that the environment names would be measured instead of this machine.
    address = os.environ.pop("RAY_ADDRESS", None)
    try:
        # Ray's own processes take CPU while they start and while they end: both are waited for,
        # outside of what is timed.
        with connected(None, trains=True):
            sleep(SETTLE_SECONDS)
            run_on_ray(run, Execution(storage=storage.uri, threads=threads))
    finally:
        if address is not None:
            os.environ["RAY_ADDRESS"] = address
    sleep(SETTLE_SECONDS)
    return total_rate(storage, [run])


def total_rate(storage: Storage, runs: list[Run]) -> float:
    """The runs' steady images a second, added up."""
    total = 0.0
    for run in runs:
        # From the run's own history, as a report would have it, not from a stopwatch here.
        history = newest_history(storage, run)
        if read_result(storage, run) is None or history is None:
            raise RuntimeError(f"{run}: did not finish, so it has no rate")
        rates = [point.value for point in history.points if point.metric == IMAGES_PER_SECOND][1:]
        # The harmonic mean: quarters are equally long in images, not in time.
        total += len(rates) / sum(1 / rate for rate in rates)
    return total


def _check_same_weights(bare: Storage, on_ray: Storage, run: Run) -> None:
    """Refuse to compare two runs that did not compute the same."""
    # Momentum as well: it would show a difference a step before the weights do.
    one, other = newest_checkpoint(bare, run), newest_checkpoint(on_ray, run)
    for name in ("weights.safetensors", "momentum.safetensors"):
        if one is None or other is None or one.files[name] != other.files[name]:
            raise RuntimeError(
                f"{run}: bare and on Ray, {name} differs; their rates cannot be compared"
            )


def _print_tables(
    experiment: Experiment,
    dataset: Dataset,
    rates: dict[str, list[float]],
    ratios: dict[str, list[float]],
) -> None:
    count = usable_cpus()
    names = {
        BARE: f"bare, one run x {count} threads",
        RAY: f"Ray Train, one run x {count} threads",
        TOGETHER: f"bare, {count} runs at once x 1 thread",
    }
    size = experiment.global_batch_size
    what = f"{experiment.name}, batch {size}, {experiment.precision}, {dataset.spec.name}"
    table = measure.table(what, "runs", "images/s in all", "min to max")
    for way, values in rates.items():
        table.add_row(names[way], *measure.spread(values, ",.0f"))
    console.print(table)
    table = measure.table("ratios", "ratio", "median", "min to max", "expected")
    for name, values in ratios.items():
        expected = f"{EXPECTED:.2f}" if "Ray" in name else ""
        table.add_row(name, *measure.spread(values, ".3f"), expected)
    console.print(table)


def _how_it_was_taken(rounds: int, iterations: int) -> str:
    return (
        f"{measure.taken_on('torch', 'Ray')}: medians of "
        f"{rounds} rounds of fresh runs of {iterations:,} iterations, another way first in each "
        "round; rates are over the seconds in SGD steps (evaluation and saving left out) of the "
        "last three quarters of a run, added up for runs at once; Ray is up for its own runs only; "
        "the weights of each bare run and its Ray Train twin are the same bytes."
    )
