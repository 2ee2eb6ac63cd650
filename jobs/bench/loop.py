"""Our step against itself on one constant batch, and against the standard loop: images a second, interleaved.

(a) our step fed by the data plane, (b) our step on one batch, (c) `jobs.bench.standard_loop` with its best setting.
Every round times each of them once, beginning with another one each time; ratios are taken within a round.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter, sleep

import torch
from PIL import Image

from jobs import screen
from jobs.bench import measure
from jobs.bench.standard_loop import CifarResNet, PILImages, Setting, StandardLoop, train_transform
from jobs.grids import check_trainable
from pipeline import ranks
from pipeline.augment import TrainImages
from pipeline.datasets import Dataset, read_dataset
from pipeline.errors import InputError
from pipeline.experiments import Experiment, Precision
from pipeline.networks import build_network
from pipeline.overrides import experiment_named
from pipeline.provenance import hardware
from pipeline.sampling import batch_at
from pipeline.schedule import lr_at
from pipeline.step import Trainee
from pipeline.storage import Storage

WARM_STEPS = 2
IDLE_SECONDS = 0.3
"""Longer than DataLoader workers take to fill their queues: then they sleep, and take no CPU from the next contestant."""
EPOCH_IMAGES = 50_000
"""A small dataset is repeated to CIFAR-10's length for (c), which would pay for each end of an epoch otherwise."""
PROBE_ROUNDS = 3
PROBE_STEPS = 8
STANDARD = "(c) standard loop"
WANTED = {"b": 0.95, "fp32": 1.4, "bf16": 2.2}
"""What resnet20 is to reach on two cores: (a)/(b), and (a)/(c) by precision."""

Rates = dict[str, list[float]]


@dataclass(frozen=True)
class Contestant:
    """Something that trains a step at a time; `warm` untimed steps begin each of its rounds, `idle` seconds end it."""

    name: str
    threads: int
    step: Callable[[], object]
    warm: int = WARM_STEPS
    idle: float = 0.0

    def seconds(self, steps: int) -> float:
        """Time `steps` steps."""
        torch.set_num_threads(self.threads)
        for _ in range(self.warm):
            self.step()
        start = perf_counter()
        for _ in range(steps):
            self.step()
        passed = perf_counter() - start
        sleep(self.idle)
        return passed


def bench(
    experiment: str, place: Storage, dataset_id: str, precision: str, rounds: int, steps: int, threads: int | None
) -> dict[str, float]:
    """Measure and print; returns the median of each ratio.

    Raises:
        InputError: an unknown row or precision, or bf16 on a CPU without it.
    """
    row = experiment_named(experiment)
    check_trainable(row)
    chosen = _precisions(precision)
    threads = threads or measure.cpus()
    if threads < 1:
        raise InputError(f"--threads {threads}: at least 1 is needed")
    dataset = read_dataset(place, dataset_id)
    with _threads_kept(), screen.progress("measuring") as report:
        standard, probed = _best_standard(row, dataset, min(steps, PROBE_STEPS))
        contestants = [_standard_contestant(standard)]
        for seed, each in enumerate(chosen):
            contestants += _ours(replace(row, precision=each), dataset, seed, threads)
        rates = _rates(contestants, rounds, steps, row.global_batch_size, report)
        standard.close()
    found = _ratios(rates, chosen)
    _print_tables(row, dataset, rates, found)
    print(_how_it_was_taken(standard.setting, probed, threads, rounds, steps))
    return {name: median(values) for name, values in found.items()}


def _precisions(precision: str) -> tuple[Precision, ...]:
    if not precision:
        return measure.PRECISIONS if measure.native_bf16() else ("fp32",)
    chosen = measure.checked_precision(precision)
    if chosen == "bf16" and not measure.native_bf16():
        raise InputError("--precision bf16: this CPU has no bf16 of its own; its speed would mean nothing")
    return (chosen,)


@contextmanager
def _threads_kept() -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _ours(row: Experiment, dataset: Dataset, seed: int, threads: int) -> list[Contestant]:
    """(a) and (b) of a precision, each with a network of its own."""
    size, single = row.global_batch_size, ranks.single()
    images = TrainImages(row, dataset, single.device)
    fed, constant = (Trainee(row, build_network(row, seed, dataset.row.classes), single.device) for _ in range(2))
    one_batch = images.batch(batch_at(seed, images.count, 0, size, 0, size))
    done = {"a": 0, "b": 0}

    def step_fed() -> None:
        batch = images.batch(batch_at(seed, images.count, done["a"], size, 0, size))
        fed.step(batch, lr_at(row, done["a"], None), single)
        done["a"] += 1

    def step_constant() -> None:
        constant.step(one_batch, lr_at(row, done["b"], None), single)
        done["b"] += 1

    names = _names(row.precision)
    return [Contestant(names[0], threads, step_fed), Contestant(names[1], threads, step_constant)]


def _names(precision: Precision) -> tuple[str, str]:
    return f"(a) our step, data plane, {precision}", f"(b) our step, one batch, {precision}"


def _standard_contestant(loop: StandardLoop) -> Contestant:
    """As many warm steps as the DataLoader keeps batches ready (two a worker), so that none made earlier is timed."""
    workers = loop.setting.workers
    warm = max(WARM_STEPS, 2 * workers)
    return Contestant(STANDARD, loop.setting.threads, lambda: next(loop.steps), warm, IDLE_SECONDS if workers else 0.0)


def _best_standard(row: Experiment, dataset: Dataset, steps: int) -> tuple[StandardLoop, dict[Setting, float]]:
    """The standard loop with the setting that is fastest here, and the images a second of each that was tried."""
    count = measure.cpus()
    settings = {Setting(0, count): None, Setting(1, count): None, Setting(2, count): None, Setting(1, count - 1): None}
    images = _pil_images(dataset)
    loops = [_standard(row, dataset, images, setting) for setting in settings if setting.threads]
    seconds: dict[Setting, list[float]] = {loop.setting: [] for loop in loops}
    for number in range(PROBE_ROUNDS):
        for loop in measure.rotated(loops, number):
            seconds[loop.setting].append(_standard_contestant(loop).seconds(steps))
    best = min(loops, key=lambda loop: median(seconds[loop.setting]))
    for loop in loops:
        if loop is not best:
            loop.close()
    images_timed = steps * row.global_batch_size
    return best, {setting: images_timed / median(times) for setting, times in seconds.items()}


def _pil_images(dataset: Dataset) -> PILImages:
    train, repeats = dataset.train, -(-EPOCH_IMAGES // len(dataset.train))
    images = [Image.fromarray(pixels) for pixels in train.pixels]
    transform = train_transform(dataset.row.side, dataset.row.pad, dataset.row.flip)
    return PILImages(images * repeats, train.labels.tolist() * repeats, transform)


def _standard(row: Experiment, dataset: Dataset, images: PILImages, setting: Setting) -> StandardLoop:
    model = CifarResNet(row.depth, dataset.row.classes, residual=row.shortcut != "none")
    return StandardLoop(images, model, row.global_batch_size, setting)


def _rates(
    contestants: list[Contestant], rounds: int, steps: int, batch: int, report: Callable[[int, int], None]
) -> Rates:
    """Images a second of each contestant in each round."""
    rates: Rates = {contestant.name: [] for contestant in contestants}
    for number in range(rounds):
        for contestant in measure.rotated(contestants, number):
            rates[contestant.name].append(steps * batch / contestant.seconds(steps))
        report(number + 1, rounds)
    return rates


def _ratios(rates: Rates, precisions: tuple[Precision, ...]) -> Rates:
    found: Rates = {}
    for precision in precisions:
        fed, constant = _names(precision)
        found[f"(a)/(b) {precision}"] = measure.ratios(rates[fed], rates[constant])
        found[f"(a)/(c) {precision}"] = measure.ratios(rates[fed], rates[STANDARD])
    return found


def _wanted(row: Experiment, ratio: str) -> str:
    """The least that is wanted of a ratio; it is stated for resnet20 alone."""
    if row.name != "resnet20":
        return ""
    return f"{WANTED['b' if '(b)' in ratio else ratio.split()[-1]]:.2f}"


def _print_tables(row: Experiment, dataset: Dataset, rates: Rates, found: Rates) -> None:
    what = f"{row.name}, batch {row.global_batch_size}, {dataset.row.name} {dataset.row.side}x{dataset.row.side}"
    table = measure.table(what, "contestant", "images/s", "min to max")
    for name, values in rates.items():
        table.add_row(name, *measure.spread(values, ",.0f"))
    screen.console.print(table)
    table = measure.table("ratios", "ratio", "median", "min to max", "wanted on two cores")
    for name, values in found.items():
        table.add_row(name, *measure.spread(values, ".3f"), _wanted(row, name))
    screen.console.print(table)


def _how_it_was_taken(setting: Setting, probed: dict[Setting, float], threads: int, rounds: int, steps: int) -> str:
    tried = "; ".join(f"{each}: {rate:,.0f} images/s" for each, rate in probed.items())
    return (
        f"Taken on {hardware()}, {measure.cpus()} CPUs, torch {torch.__version__}: medians of {rounds} rounds x {steps} "
        f"steps each, interleaved in one process, a different one first in each round, warm steps before each; a ratio "
        f"is taken within each round. Ours: {threads} threads. (c): fp32, {setting}, the best of a probe ({tried}); "
        f"its workers idle while the others are timed."
    )
