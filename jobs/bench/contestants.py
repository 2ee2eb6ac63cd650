"""What `bench loop` measures: (a) our step fed by the data plane, (b) our step on one batch, (c) the standard loop.

Ours share a process that is set up as a Ray Train worker's is. The standard loop has a process of its own, as Python
starts one, with the DataLoader workers and threads that are fastest on this machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from statistics import median
from time import perf_counter, sleep
from typing import Protocol

import torch
from PIL import Image

from jobs.bench import measure
from jobs.bench.standard_loop import CifarResNet, PILImages, Setting, StandardLoop, train_transform
from pipeline import ranks
from pipeline.augment import TrainImages
from pipeline.datasets import Dataset, read_dataset
from pipeline.experiments import Experiment, Precision
from pipeline.networks import build_network
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


class Contestant(Protocol):
    """Something that trains a step at a time."""

    @property
    def name(self) -> str: ...

    def seconds(self, steps: int) -> float:
        """Time `steps` steps, after untimed ones that warm it up."""


@dataclass(frozen=True)
class OurStep:
    """Our step in this process, on `threads` threads."""

    name: str
    threads: int
    step: Callable[[], object]

    def seconds(self, steps: int) -> float:
        """Time `steps` steps after two warm ones."""
        torch.set_num_threads(self.threads)
        for _ in range(WARM_STEPS):
            self.step()
        start = perf_counter()
        for _ in range(steps):
            self.step()
        return perf_counter() - start


def our_names(precision: Precision) -> tuple[str, str]:
    """What (a) and (b) of a precision are called."""
    return f"(a) our step, data plane, {precision}", f"(b) our step, one batch, {precision}"


def our_steps(row: Experiment, dataset: Dataset, seed: int, threads: int) -> list[OurStep]:
    """(a) and (b) of a row's precision, each with a network of its own."""
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

    names = our_names(row.precision)
    return [OurStep(names[0], threads, step_fed), OurStep(names[1], threads, step_constant)]


class StandardProcess:
    """The standard loop with one setting in a process of its own; `close` ends it."""

    name = STANDARD

    def __init__(self, row: Experiment, place: Storage, dataset_id: str, setting: Setting) -> None:
        self.setting = setting
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, row, place.uri, dataset_id, setting))
        self._process.start()
        theirs.close()

    def seconds(self, steps: int) -> float:
        """Time `steps` steps; its workers then idle until the next call.

        Raises:
            RuntimeError: the process has ended.
        """
        try:
            self._pipe.send(steps)
            passed = float(self._pipe.recv())
        except (EOFError, OSError) as error:
            raise RuntimeError(f"the standard loop with {self.setting} ended; its error is above") from error
        sleep(IDLE_SECONDS)
        return passed

    def close(self) -> None:
        """End the process and its workers."""
        self._pipe.close()
        self._process.join(timeout=20)
        if self._process.is_alive():
            self._process.kill()


def _serve(pipe: Connection, row: Experiment, uri: str, dataset_id: str, setting: Setting) -> None:
    """Answer each number of steps with the seconds that they took, until the other end closes."""
    torch.set_num_threads(setting.threads)
    dataset = read_dataset(Storage(uri), dataset_id)
    model = CifarResNet(row.depth, dataset.row.classes, residual=row.shortcut != "none")
    loop = StandardLoop(_pil_images(dataset), model, row.global_batch_size, setting.workers)
    # As many warm steps as the DataLoader keeps batches ready (two a worker), so that none made earlier is timed.
    warm = max(WARM_STEPS, 2 * setting.workers)
    while True:
        try:
            steps = pipe.recv()
        except EOFError:
            return
        for _ in range(warm):
            next(loop.steps)
        start = perf_counter()
        for _ in range(steps):
            next(loop.steps)
        pipe.send(perf_counter() - start)


def _pil_images(dataset: Dataset) -> PILImages:
    train, repeats = dataset.train, -(-EPOCH_IMAGES // len(dataset.train))
    images = [Image.fromarray(pixels) for pixels in train.pixels]
    transform = train_transform(dataset.row.side, dataset.row.pad, dataset.row.flip)
    return PILImages(images * repeats, train.labels.tolist() * repeats, transform)


def best_standard(
    row: Experiment, place: Storage, dataset_id: str, steps: int
) -> tuple[StandardProcess, dict[Setting, float]]:
    """The standard loop with the setting that is fastest here, and the images a second of each that was tried."""
    count = measure.cpus()
    settings = dict.fromkeys([Setting(0, count), Setting(1, count), Setting(2, count), Setting(1, count - 1)])
    loops = [StandardProcess(row, place, dataset_id, setting) for setting in settings if setting.threads]
    try:
        seconds: dict[Setting, list[float]] = {loop.setting: [] for loop in loops}
        for loop in loops:
            loop.seconds(1)  # all are up before any is timed
        for number in range(PROBE_ROUNDS):
            for loop in measure.rotated(loops, number):
                seconds[loop.setting].append(loop.seconds(min(steps, PROBE_STEPS)))
        best = min(loops, key=lambda loop: median(seconds[loop.setting]))
    except BaseException:
        for loop in loops:
            loop.close()
        raise
    for loop in loops:
        if loop is not best:
            loop.close()
    images_timed = min(steps, PROBE_STEPS) * row.global_batch_size
    return best, {setting: images_timed / median(times) for setting, times in seconds.items()}
