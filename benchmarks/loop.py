"""Our step against itself on one constant batch, and against the standard loop: images a second.

(a) our step fed by the data plane, (b) our step on one batch, (c) `benchmarks.standard_loop` with
its best setting, (d) as (a) in as many runs at once as there are CPUs, a thread each: what a grid
does, so its rate is that of all runs. Every round times each of them once, beginning with another
one each time; ratios are taken within a round.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from statistics import median

import torch

from benchmarks import measure
from benchmarks.contestants import (
    STANDARD,
    Contestant,
    best_standard,
    our_names,
    our_steps,
    runs_at_once,
)
from benchmarks.standard_loop import Setting
from jobs.console.console import console, progress
from jobs.execution.processors import usable_cpus
from jobs.requests.requested_runs import check_suits
from pipeline.data.datasets import Dataset
from pipeline.data.photo_shards import holds_photographs
from pipeline.data.stored import read_dataset, require_stored
from pipeline.memory import keep_freed_memory
from pipeline.recipe.experiments import Experiment, Precision
from pipeline.recipe.overrides import experiment_named
from pipeline.runs.provenance import hardware
from pipeline.storage import Storage

EXPECTED = {
    "(a)/(b) fp32": 0.95,
    "(a)/(b) bf16": 0.95,
    "(a)/(c) fp32": 1.4,
    "(a)/(c) bf16": 2.2,
    "(d)/(c) bf16": 2.6,
}
"""What resnet20 is to reach on two cores."""

Rates = dict[str, list[float]]


def bench(
    experiment_name: str,
    storage: Storage,
    dataset_id: str,
    precision: str,
    rounds: int,
    steps: int,
    threads: int | None,
) -> dict[str, float]:
    """Measure and print; returns the median of each ratio.

    Raises:
        InputError: an unknown row or precision, or bf16 on a CPU without it.
    """
    experiment = experiment_named(experiment_name)
    chosen = measure.precisions(precision)
    threads = threads or usable_cpus()
    check_suits(experiment, dataset_id, holds_photographs(require_stored(storage, dataset_id)))
    dataset = read_dataset(storage, dataset_id)
    keep_freed_memory()  # as a Ray Train worker does

    # All contestants are there throughout, idle but for the one that is timed.
    with _threads_kept(), progress("measuring") as report, ExitStack() as processes:
        standard, setting, probed = best_standard(experiment, storage, dataset_id, steps)
        # The standard loop first: its probe needs the machine for itself.
        contestants: list[Contestant] = [processes.enter_context(closing(standard))]
        # A network for each precision: they must not warm up each other's memory.
        for seed, each in enumerate(chosen):
            ours = replace(experiment, precision=each)
            contestants += our_steps(ours, dataset, seed, threads)
            contestants.append(
                processes.enter_context(closing(runs_at_once(ours, storage, dataset_id)))
            )
        rates = _rates(contestants, rounds, steps, experiment.global_batch_size, report)
    ratios = _ratios(rates, chosen)
    _print_tables(experiment, dataset, rates, ratios)
    print(_how_it_was_taken(setting, probed, threads, rounds, steps))
    return {name: median(values) for name, values in ratios.items()}


@contextmanager
def _threads_kept() -> Iterator[None]:
    """Give torch its threads back: contestants in this process change them as they go."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _rates(
    contestants: Sequence[Contestant],
    rounds: int,
    steps: int,
    batch: int,
    report: Callable[[int, int], None],
) -> Rates:
    """Images a second of each contestant in each round, in all of its runs."""
    for contestant in contestants:
        contestant.seconds(1)  # all are up before any is timed
    rates: Rates = {contestant.name: [] for contestant in contestants}
    # Another contestant begins in each round, and nobody is always second.
    for number in range(rounds):
        for contestant in measure.rotated(list(contestants), number):
            rates[contestant.name].append(
                contestant.runs * steps * batch / contestant.seconds(steps)
            )
        report(number + 1, rounds)
    return rates


def _ratios(rates: Rates, precisions: tuple[Precision, ...]) -> Rates:
    ratios: Rates = {}
    for precision in precisions:
        # Against itself on one batch, which shows the data plane; and against the standard loop.
        fed, constant, at_once = our_names(precision)
        ratios[f"(a)/(b) {precision}"] = measure.ratios(rates[fed], rates[constant])
        ratios[f"(a)/(c) {precision}"] = measure.ratios(rates[fed], rates[STANDARD])
        ratios[f"(d)/(c) {precision}"] = measure.ratios(rates[at_once], rates[STANDARD])
    return ratios


def _expected(experiment: Experiment, ratio: str) -> str:
    """The least that is expected of a ratio; it is stated for resnet20 alone."""
    # Other rows have other shares of convolution, so other ratios are to be expected.
    return f"{EXPECTED[ratio]:.2f}" if experiment.name == "resnet20" and ratio in EXPECTED else ""


def _print_tables(experiment: Experiment, dataset: Dataset, rates: Rates, ratios: Rates) -> None:
    what = f"{experiment.name}, batch {experiment.global_batch_size}, {measure.pixels_of(dataset)}"
    table = measure.table(what, "contestant", "images/s", "min to max")
    for name, values in rates.items():
        table.add_row(name, *measure.spread(values, ",.0f"))
    console.print(table)
    table = measure.table("ratios", "ratio", "median", "min to max", "expected on two cores")
    for name, values in ratios.items():
        table.add_row(name, *measure.spread(values, ".3f"), _expected(experiment, name))
    console.print(table)


def _how_it_was_taken(
    setting: Setting, probed: dict[Setting, float], threads: int, rounds: int, steps: int
) -> str:
    tried = "; ".join(f"{each}: {rate:,.0f} images/s" for each, rate in probed.items())
    return (
        f"Taken on {hardware()}, {usable_cpus()} CPUs, torch {torch.__version__}: medians of "
        f"{rounds} rounds x {steps} steps each, interleaved, a different one first in each round, "
        "warm steps before each; a ratio is taken within each round. "
        f"(a), (b): {threads} threads, in a process set up as a worker's. "
        f"(c): fp32, {setting}, in a process of its own, the best of a probe ({tried}). "
        f"(d): {usable_cpus()} runs with one thread each, in processes set up as workers', timed "
        "together: the images of all over the time of the slowest. Processes of their own idle "
        "while others are timed."
    )
