"""What `bench loop` measures: our step fed, on one batch and in many runs, and the standard loop.

(a) is our step fed by the data plane, (b) on one batch, (c) the standard loop, (d) our step in as
many runs at once as there are CPUs.

(a) and (b) share a process that is set up as a Ray Train worker's is, and each run of (d) has one.
The standard loop has a process of its own, as Python starts one, with the DataLoader workers and
threads that are fastest on this machine.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection
from statistics import median
from time import perf_counter, sleep
from typing import Protocol

import torch
from PIL import Image

from benchmarks import measure
from benchmarks.standard_loop import CifarResNet, PILImages, Setting, StandardLoop, train_transform
from jobs.execution.processors import usable_cpus
from pipeline.data.datasets import Dataset
from pipeline.data.stored import read_dataset
from pipeline.memory import keep_freed_memory
from pipeline.recipe.experiments import Experiment, Precision
from pipeline.recipe.metrics import WINDOW
from pipeline.recipe.schedule import lr_at
from pipeline.storage import Storage
from pipeline.training.feeding.constant_batch import ConstantBatch
from pipeline.training.feeding.device_batches import DeviceBatches
from pipeline.training.feeding.image_batches import TrainImages
from pipeline.training.step.iteration import Batches, Iteration
from pipeline.training.step.networks import build_network
from pipeline.training.step.process_group import single_process
from pipeline.training.step.train_state import TrainState

WARM_STEPS = 2
IDLE_SECONDS = 0.3
"""Longer than DataLoader workers take to fill their queues: then they sleep, and take no CPU."""
EPOCH_IMAGES = 50_000
"""A small dataset is repeated to CIFAR-10's length for (c), which pays for each end of an epoch."""
PROBE_ROUNDS = 3
PROBE_STEPS = 8
# Names by which rates are looked up, and which the tables show.
STANDARD = "(c) standard loop"

Step = Callable[[], object]
"""Trains one iteration, each time the next one."""


class Contestant(Protocol):
    """Something that trains a step at a time."""

    @property
    def name(self) -> str: ...

    @property
    def runs(self) -> int:
        """Runs that it trains at once: each takes all of the steps."""

    def seconds(self, steps: int) -> float:
        """Time `steps` steps, after untimed ones that warm it up."""


@dataclass(frozen=True)
class OurStep:
    """Our step in this process, on `threads` threads."""

    name: str
    threads: int
    step: Step
    runs: int = 1

    def seconds(self, steps: int) -> float:
        """Time `steps` steps after two warm ones."""
        # Set each time: other contestants of this process have other numbers.
        torch.set_num_threads(self.threads)
        _timed(self.step, WARM_STEPS)
        return _timed(self.step, steps)


class OwnProcesses:
    """A contestant in processes of its own, one for each function that makes a step there.

    Between calls they wait for the next one and take no CPU; `close` ends them.
    """

    def __init__(
        self,
        name: str,
        makes: Sequence[Callable[[], Step]],
        warm_steps: int = WARM_STEPS,
        idle_seconds: float = 0.0,
    ) -> None:
        self.name, self.runs = name, len(makes)
        self._warm_steps, self._idle_seconds = warm_steps, idle_seconds
        # Spawned, not forked: a forked process has this one's torch threads and their locks.
        context = get_context("spawn")
        pipes = [context.Pipe() for _ in makes]
        self._pipes = [ours for ours, _ in pipes]
        self._processes = [
            context.Process(target=_serve, args=(theirs, make))
            for (_, theirs), make in zip(pipes, makes, strict=True)
        ]
        for process, (_, theirs) in zip(self._processes, pipes, strict=True):
            process.start()
            theirs.close()  # or the end of the process would not be the end of the pipe

    def seconds(self, steps: int) -> float:
        """Time `steps` steps in all processes at once, the slowest of them, after warm ones.

        Raises:
            RuntimeError: a process has ended.
        """
        # The warm steps bring back what the pause has put to sleep: caches, clocks, workers.
        self._at_once(self._warm_steps)
        slowest = self._at_once(steps)
        sleep(self._idle_seconds)
        return slowest

    def _at_once(self, steps: int) -> float:
        # All are told before any is waited for: they are measured while they disturb each other.
        try:
            for pipe in self._pipes:
                pipe.send(steps)
            return max([float(pipe.recv()) for pipe in self._pipes])
        except (EOFError, OSError) as error:
            raise RuntimeError(f"{self.name}: its process ended; its error is above") from error

    def close(self) -> None:
        """End the processes, and those that they started."""
        for pipe in self._pipes:
            pipe.close()
        # A process ends when its pipe does, with the DataLoader workers it has started; one that
        # hangs is killed.
        for process in self._processes:
            process.join(timeout=20)
            if process.is_alive():
                process.kill()


def _serve(pipe: Connection, make: Callable[[], Step]) -> None:
    """Answer each number of steps with the seconds that they took, until the other end closes."""
    # Made here and not handed over: datasets and networks would be copied through the pipe.
    step = make()
    while True:
        try:
            steps = pipe.recv()
        except EOFError:
            return
        pipe.send(_timed(step, steps))


def _timed(step: Step, steps: int) -> float:
    start = perf_counter()
    for _ in range(steps):
        step()
    return perf_counter() - start


def our_names(precision: Precision) -> tuple[str, str, str]:
    """What (a), (b) and (d) of a precision are called."""
    return (
        f"(a) our step, data plane, {precision}",
        f"(b) our step, one batch, {precision}",
        f"(d) as many runs at once as CPUs, one thread each, {precision}",
    )


def our_steps(experiment: Experiment, dataset: Dataset, seed: int, threads: int) -> list[OurStep]:
    """(a) and (b) of a row's precision, each with a network of its own."""
    fed_name, constant_name, _ = our_names(experiment.precision)
    return [
        OurStep(fed_name, threads, fed_step(experiment, dataset, seed)),
        OurStep(constant_name, threads, _constant_step(experiment, dataset, seed)),
    ]


def fed_step(experiment: Experiment, dataset: Dataset, seed: int) -> Step:
    """Our iteration on the batches of a run, as the data plane makes them."""
    return _step(experiment, dataset, seed, _feed(experiment, dataset, seed))


def _constant_step(experiment: Experiment, dataset: Dataset, seed: int) -> Step:
    """The same on one batch, made once: what the data plane costs is the difference."""
    batch = _feed(experiment, dataset, seed).batch(0)
    return _step(experiment, dataset, seed, ConstantBatch(*batch))


def _feed(experiment: Experiment, dataset: Dataset, seed: int) -> DeviceBatches:
    images = TrainImages(experiment, dataset, single_process().device)
    size = experiment.global_batch_size
    return DeviceBatches(images, seed, size, 0, size)


def _step(experiment: Experiment, dataset: Dataset, seed: int, batches: Batches) -> Step:
    process_group, numbers = single_process(), count()
    network = build_network(experiment, seed, dataset.spec.classes)
    train_state = TrainState(experiment, network, process_group.device)
    window = torch.zeros(WINDOW, 2)
    iteration = Iteration(train_state, batches, process_group, window, 0)

    def step() -> None:
        number = next(numbers)
        iteration.run(number, lr_at(experiment, number, None))

    return step


def runs_at_once(experiment: Experiment, storage: Storage, dataset_id: str) -> OwnProcesses:
    """(d) of a row's precision: a run with one thread for each CPU, as a grid trains them."""
    makes = [
        partial(_worker_step, experiment, storage.uri, dataset_id, seed)
        for seed in range(usable_cpus())
    ]
    return OwnProcesses(our_names(experiment.precision)[-1], makes)


def _worker_step(experiment: Experiment, uri: str, dataset_id: str, seed: int) -> Step:
    """Our step in a process that is set up as that of a Ray Train worker with one thread."""
    # As `jobs.execution.worker` sets its process up.
    keep_freed_memory()
    torch.set_num_threads(1)
    return fed_step(experiment, read_dataset(Storage(uri), dataset_id), seed)


def _standard(
    experiment: Experiment, storage: Storage, dataset_id: str, setting: Setting
) -> OwnProcesses:
    """(c) with one setting."""
    # As many warm steps as the DataLoader keeps batches ready (two a worker): none that was made
    # while nobody timed it counts.
    warm_steps = max(WARM_STEPS, 2 * setting.workers)
    make = partial(_standard_step, experiment, storage.uri, dataset_id, setting)
    return OwnProcesses(STANDARD, [make], warm_steps, IDLE_SECONDS)


def _standard_step(experiment: Experiment, uri: str, dataset_id: str, setting: Setting) -> Step:
    torch.set_num_threads(setting.threads)
    dataset = read_dataset(Storage(uri), dataset_id)
    # Of the same depth, plain or residual, as the row that is compared.
    model = CifarResNet(
        experiment.depth, dataset.spec.classes, residual=experiment.shortcut != "none"
    )
    loop = StandardLoop(_pil_images(dataset), model, experiment.global_batch_size, setting.workers)
    return partial(next, loop.steps)


def _pil_images(dataset: Dataset) -> PILImages:
    train, repeats = dataset.train, -(-EPOCH_IMAGES // len(dataset.train))
    images = [Image.fromarray(pixels) for pixels in train.pixels]
    transform = train_transform(dataset.spec.side, dataset.spec.pad, dataset.spec.flip)
    return PILImages(images * repeats, train.labels.tolist() * repeats, transform)


def best_standard(
    experiment: Experiment, storage: Storage, dataset_id: str, steps: int
) -> tuple[OwnProcesses, Setting, dict[Setting, float]]:
    """(c) with the setting that is fastest here, that setting, and each tried one's images/s."""
    cpus = usable_cpus()
    # Small machines: more workers than CPUs only wait for each other. fromkeys() drops what comes
    # out equal on one or two CPUs.
    settings = dict.fromkeys(
        [Setting(0, cpus), Setting(1, cpus), Setting(2, cpus), Setting(1, cpus - 1)]
    )
    loops = {
        each: _standard(experiment, storage, dataset_id, each) for each in settings if each.threads
    }
    # Interleaved, as the benchmark itself: a machine that slows down would choose for us. All but
    # the best end here, also when one fails.
    best: Setting | None = None
    try:
        seconds: dict[Setting, list[float]] = {setting: [] for setting in loops}
        for loop in loops.values():
            loop.seconds(1)  # all are up before any is timed
        for number in range(PROBE_ROUNDS):
            for setting in measure.rotated(list(loops), number):
                seconds[setting].append(loops[setting].seconds(min(steps, PROBE_STEPS)))
        best = min(loops, key=lambda setting: median(seconds[setting]))
    finally:
        for setting, loop in loops.items():
            if setting != best:
                loop.close()
    images = min(steps, PROBE_STEPS) * experiment.global_batch_size
    rates = {setting: images / median(times) for setting, times in seconds.items()}
    return loops[best], best, rates
