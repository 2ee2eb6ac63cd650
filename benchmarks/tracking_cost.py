"""What following a run for MLflow costs its training: the same run with and without a publisher.

The training runs bare in a process of its own; the publisher runs in this one, as it does in a
run's driver, into SQLite, which costs it more than a server does. Two things are said: the rates'
ratio, which on a small machine is mostly noise, and the publisher's own CPU time as a share of all
CPU time there was, which bounds what it can have taken away.
"""

from dataclasses import replace
from multiprocessing import get_context
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic, process_time
from typing import Any

from benchmarks import measure
from benchmarks.ray_train import bare, total_rate
from jobs.console.console import console, progress
from jobs.execution.processors import usable_cpus
from jobs.tracking.run_publisher import Publisher
from jobs.tracking.store import open_store
from pipeline.data.datasets import Dataset
from pipeline.data.stored import read_dataset, write_dataset
from pipeline.recipe.experiments import EXPERIMENTS, Experiment
from pipeline.runs.run import Run
from pipeline.storage import Storage

ROW = "resnet20"
CHECKPOINT_SECONDS = 5.0
"""More often than by default, so that the publisher has something to send throughout."""
EXPECTED = 0.01
"""The most that tracking may cost."""


def bench(
    storage: Storage, manifest: dict[str, Any], iterations: int, rounds: int, precision: str
) -> dict[str, float]:
    """Measure and print; returns the medians.

    Raises:
        InputError: an unknown precision.
        RuntimeError: a run failed.
    """
    experiment = replace(
        EXPERIMENTS[ROW].scaled_to(iterations),
        eval_every=max(1, iterations // 8),
        precision=measure.checked_precision(precision),
    )
    dataset = read_dataset(storage, manifest["id"])
    rates: dict[str, list[float]] = {"alone": [], "followed": []}
    shares: list[float] = []
    with (
        TemporaryDirectory(prefix="resnet-repro-bench-") as folder,
        progress("measuring") as report,
    ):
        # A throwaway storage, as all of these runs are.
        scratch = Storage(folder)
        write_dataset(scratch, dataset, {"kind": "benchmark"})
        tracking = f"sqlite:///{folder}/mlflow.db"
        open_store(tracking, scratch)  # making the database is done once, and not timed
        for number in range(rounds):
            # Alone and followed in turn, each with a seed that no run has had.
            for step, way in enumerate(measure.rotated(list(rates), number), 1):
                run = Run(experiment, dataset.id, dataset.key, seed=2 * number + step)
                # In this process, as in a driver; training is in another one, as on a worker.
                publisher = Publisher(tracking, scratch, run, {}) if way == "followed" else None
                # The share of an unfollowed run says nothing.
                rate, share = _train(scratch, run, publisher)
                rates[way].append(rate)
                shares += [share] if publisher else []
                report(2 * number + step, 2 * rounds)
    _print_tables(experiment, dataset, rates, shares)
    print(_how_it_was_taken(rounds, iterations))
    return {
        "followed / alone": median(measure.ratios(rates["followed"], rates["alone"])),
        "CPU share": median(shares),
    }


def _train(storage: Storage, run: Run, publisher: Publisher | None) -> tuple[float, float]:
    """A run's steady rate, and this process's share of the CPU time there was."""
    process = get_context("spawn").Process(
        target=bare, args=(storage.uri, run, usable_cpus(), CHECKPOINT_SECONDS), daemon=True
    )
    # process_time() is this process's alone, in which nothing but the publisher works.
    started, used = monotonic(), process_time()
    process.start()
    if publisher is not None:
        publisher.start()
    process.join()
    # Without the publisher's last words: a run has ended by then.
    seconds, mine = monotonic() - started, process_time() - used
    if publisher is not None and not publisher.stop("FINISHED"):
        raise RuntimeError(f"{run}: could not be published")
    return total_rate(storage, [run]), mine / (seconds * usable_cpus())


def _print_tables(
    experiment: Experiment, dataset: Dataset, rates: dict[str, list[float]], shares: list[float]
) -> None:
    size = experiment.global_batch_size
    what = f"{experiment.name}, batch {size}, {experiment.precision}, {dataset.spec.name}"
    table = measure.table(what, "run", "images/s", "min to max")
    for way, values in rates.items():
        table.add_row(way, *measure.spread(values, ",.0f"))
    console.print(table)
    table = measure.table("cost", "measure", "median", "min to max", "expected")
    ratios = measure.ratios(rates["followed"], rates["alone"])
    table.add_row("followed / alone", *measure.spread(ratios, ".3f"), "")
    table.add_row(
        "publisher's share of the CPU time",
        *measure.spread(shares, ".2%"),
        f"at most {EXPECTED:.0%}",
    )
    console.print(table)


def _how_it_was_taken(rounds: int, iterations: int) -> str:
    return (
        f"{measure.taken_on('torch', 'MLflow')}: medians of "
        f"{rounds} rounds of fresh runs of {iterations:,} iterations in a process of their own "
        f"with all CPUs as threads, a checkpoint every {CHECKPOINT_SECONDS:g} s; the publisher "
        "follows in another process, into SQLite that was made before."
    )
