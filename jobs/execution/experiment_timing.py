"""Seconds of an experiment's iterations on a worker, timed with random images."""

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


def time_experiment(experiment: Experiment, side: int, execution: Execution) -> Timing:
    """Set an experiment up on this worker and time a worker's share of its iterations.

    Images have `side` pixels; 0 is a photograph's side, and its crop is used.
    """
    began = perf_counter()
    # Loading torch is a part of the setup that is timed.
    import torch

    from jobs.execution.determinism import set_kernels
    from pipeline.memory import keep_freed_memory
    from pipeline.runs.provenance import hardware
    from pipeline.training.feeding.constant_batch import ConstantBatch
    from pipeline.training.step.iteration import Iteration
    from pipeline.training.step.networks import build_network
    from pipeline.training.step.precision import autocast
    from pipeline.training.step.process_group import single_process
    from pipeline.training.step.train_state import TrainState

    # As a run's worker does it: the same allocator, threads and precision.
    keep_freed_memory()
    torch.set_num_threads(execution.threads)
    set_kernels(execution.deterministic_kernels)
    device = torch.device("cuda", 0) if execution.use_gpu else torch.device("cpu")
    process_group = single_process(device)
    # Photographs are of ImageNet's 1,000 classes; the last layer's size matters little for ten.
    network = build_network(experiment, 0, 1000 if side == 0 else 10)
    train_state = TrainState(experiment, network, device, execution.one_pass)
    window = torch.zeros(WINDOW, 2, device=device)
    count, size = experiment.global_batch_size // execution.workers, side or experiment.crop
    images = torch.randn(count, 3, size, size, device=device)
    labels = torch.randint(0, 10, (count,), device=device)

    # The first iteration is setup: it lays out memory and, on a GPU, chooses kernels and captures.
    iteration = Iteration(train_state, ConstantBatch(images, labels), process_group, window, 0)
    iteration.run(0, experiment.lr)
    _wait(device)
    setup, steps = perf_counter() - began, list[float]()
    # Two of the slowest, twelve of the fastest: medians of more say little more.
    while len(steps) < 2 or (len(steps) < STEPS and sum(steps) < SECONDS):
        now = perf_counter()
        iteration.run(len(steps) + 1, experiment.lr)
        _wait(device)
        steps.append(perf_counter() - now)

    train_state.network.eval()
    image = 0.0
    for _ in range(2):  # the first time memory is still being laid out
        now = perf_counter()
        with torch.no_grad(), autocast(experiment.precision, device):
            train_state.network(images)
        _wait(device)
        image = (perf_counter() - now) / count
    # Named as a run's attempts are, so that earlier runs on the same hardware are found.
    kind = torch.cuda.get_device_name(device) if execution.use_gpu else "cpu"
    return Timing(tuple(steps), image, setup, f"{kind}, {hardware()}")


def _wait(device: Any) -> None:
    """Wait until the device has done what it was told: a GPU works on after the call returns."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
