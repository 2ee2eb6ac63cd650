"""Seconds of an experiment's iterations on a worker, alone and several runs at once, timed with
random images.
"""

from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

from pipeline.recipe.experiments import Experiment
from pipeline.recipe.metrics import WINDOW
from pipeline.runs.execution import Execution

STEPS = 12
"""At most this many iterations are timed, and"""
SECONDS = 4.0
"""for at most this long, but two in any case."""

RUNS_AT_ONCE = (1, 2, 4, 8, 16)
"""How many runs are tried at once on a GPU, as long as"""
WORTHWHILE = 1.05
"""the next number makes so many times the rate of the one before."""
MEMORY = 0.8
"""The share of a GPU's free memory that runs may take."""


def kind_of(experiment: Experiment) -> tuple[str, str]:
    """Experiments of one kind compare in speed.

    A family's images are of one size, and a precision's units of one speed.
    """
    return experiment.family, experiment.precision


@dataclass(frozen=True)
class Timing:
    """What was measured of an experiment: seconds of its iterations and of an image, and where."""

    steps: tuple[float, ...]
    image: float
    """Seconds of an image that only goes forward."""
    setup: float
    """Seconds until the first iteration had been made."""
    hardware: str

    @property
    def step(self) -> float:
        return median(self.steps)


@dataclass(frozen=True)
class RunsAtOnce:
    """What a GPU makes of several runs at once."""

    rates: dict[int, float]
    """Images a second of all together, by their number."""
    bytes_each: int
    """Memory that a run takes on the device."""
    bytes_free: int
    """Memory that was free for all of them."""

    @property
    def best(self) -> int:
        """The fewest runs with which the GPU is as good as full."""
        best = 1
        for count in self.rates:
            if self.rates[count] >= WORTHWHILE * self.rates[best]:
                best = count
        return best

    def fitting(self, times_larger: float, more_bytes: int) -> int:
        """How many runs fit of a network so many times larger, each with so many bytes more."""
        each = self.bytes_each * times_larger + more_bytes
        return max(1, min(self.best, int(MEMORY * self.bytes_free / max(each, 1))))


def time_experiment(experiment: Experiment, side: int, execution: Execution) -> Timing:
    """Set an experiment up on this worker and time a worker's share of its iterations.

    Images have `side` pixels; 0 is a photograph's side, and its crop is used.
    """
    began = perf_counter()
    # Loading torch is a part of the setup that is timed.
    import torch

    from pipeline.runs.provenance import hardware
    from pipeline.training.step.precision import autocast

    device = _prepared(experiment, execution)
    run = _run_on_one_batch(experiment, side, execution, device)
    iteration, train_state, (images, _) = run.iteration, run.train_state, run.batch

    # The first iteration is setup: it lays out memory and, on a GPU, chooses kernels and captures.
    iteration.run(0, experiment.lr)
    wait_for(device)
    setup, steps = perf_counter() - began, list[float]()
    # Two of the slowest, twelve of the fastest: medians of more say little more.
    while len(steps) < 2 or (len(steps) < STEPS and sum(steps) < SECONDS):
        now = perf_counter()
        iteration.run(len(steps) + 1, experiment.lr)
        wait_for(device)
        steps.append(perf_counter() - now)

    train_state.network.eval()
    image = 0.0
    for _ in range(2):  # the first time memory is still being laid out
        now = perf_counter()
        with torch.no_grad(), autocast(experiment.precision, device):
            train_state.network(images)
        wait_for(device)
        image = (perf_counter() - now) / len(images)
    # Named as a run's attempts are, so that earlier runs on the same hardware are found.
    kind = torch.cuda.get_device_name(device) if execution.use_gpu else "cpu"
    return Timing(tuple(steps), image, setup, f"{kind}, {hardware()}")


def time_at_once(experiment: Experiment, side: int, execution: Execution, most: int) -> RunsAtOnce:
    """Train more and more runs at once on this worker's GPU, until it is full or they reach `most`.

    Each has a stream and, captured, its iteration, as in a pack (`pipeline.training.packs`).
    """
    import torch

    device = _prepared(experiment, execution)
    free = _free_bytes(device)
    runs, rates = list[Any](), dict[int, float]()
    for count in RUNS_AT_ONCE:
        used = free - _free_bytes(device)
        if count >= 2 * most or (runs and used / len(runs) * count > MEMORY * free):
            break
        try:
            while len(runs) < count:
                stream = torch.cuda.Stream(device) if device.type == "cuda" else None
                with torch.cuda.stream(stream):
                    runs.append((stream, _run_on_one_batch(experiment, side, execution, device)))
            images = count * experiment.global_batch_size
            rates[count] = max(images / _seconds_of_all(runs, device) for _ in range(3))
        except torch.OutOfMemoryError:
            if not rates:
                raise
            break
        if count > 1 and rates[count] < WORTHWHILE * rates[count // 2]:
            break
    return RunsAtOnce(rates, (free - _free_bytes(device)) // len(runs), free)


def _seconds_of_all(runs: list[Any], device: Any) -> float:
    """Seconds of an iteration of each run, all launched in turn."""
    import torch

    number = WINDOW if device.type == "cuda" else 1
    began = perf_counter()
    for _ in range(number):
        for stream, run in runs:
            with torch.cuda.stream(stream):
                run.iteration.run(0, 0.1)
    wait_for(device)
    return (perf_counter() - began) / number


def _free_bytes(device: Any) -> int:
    """Memory of the device that nobody has taken, in bytes; on a CPU nothing is counted."""
    import torch

    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0


def _prepared(experiment: Experiment, execution: Execution) -> Any:
    """Set this process as a run's worker is set: allocator, threads and kernels; its device."""
    import torch

    from jobs.execution.processors import kernel_settings, set_kernels
    from pipeline.memory import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(execution.threads)
    set_kernels(kernel_settings(experiment, execution))
    return torch.device("cuda", 0) if execution.use_gpu else torch.device("cpu")


@dataclass(frozen=True)
class _TimedRun:
    train_state: Any
    batch: tuple[Any, Any]
    iteration: Any


def _run_on_one_batch(
    experiment: Experiment, side: int, execution: Execution, device: Any
) -> _TimedRun:
    """A worker's share of a run that gets one batch of random images again and again."""
    import torch

    from pipeline.training.feeding.constant_batch import ConstantBatch
    from pipeline.training.step.iteration import Iteration
    from pipeline.training.step.networks import build_network
    from pipeline.training.step.process_group import single_process
    from pipeline.training.step.train_state import TrainState

    # Photographs are of ImageNet's 1,000 classes; the last layer's size matters little for ten.
    network = build_network(experiment, 0, 1000 if side == 0 else 10)
    train_state = TrainState(experiment, network, device, execution.one_pass, execution.compiled)
    window = torch.zeros(WINDOW, 2, device=device)
    count, size = experiment.global_batch_size // execution.workers, side or experiment.crop
    images = torch.randn(count, 3, size, size, device=device)
    labels = torch.randint(0, 10, (count,), device=device)
    batches = ConstantBatch(images, labels)
    iteration = Iteration(train_state, batches, single_process(device), window, 0)
    return _TimedRun(train_state, (images, labels), iteration)


def wait_for(device: Any) -> None:
    """Wait until the device has done what it was told: a GPU works on after the call returns."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
