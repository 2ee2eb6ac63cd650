"""`bench gpu`: what one GPU makes of CIFAR's rows, as ratios against the loop people usually write.

In one run, interleaved: the usual loop at its best number of DataLoader workers, a stock network on
one constant batch, our exact iteration alone (captured and not, with and without deterministic
kernels) and several runs at once. And whether the bytes are what they should be.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from benchmarks import measure
from benchmarks.one_gpu.contestants import (
    GpuContestant,
    device_named,
    keep,
    print_rates,
    taken_on_gpu,
    torch_defaults,
)
from benchmarks.standard_loop import CifarResNet, PILImages, StandardLoop, train_transform
from jobs.execution.experiment_timing import RUNS_AT_ONCE, wait_for
from jobs.execution.processors import KernelSettings, set_kernels, usable_cpus
from pipeline.data.datasets import Dataset
from pipeline.data.sampling import batch_at
from pipeline.errors import InputError
from pipeline.recipe.experiments import EXPERIMENTS, Experiment, Precision
from pipeline.recipe.metrics import WINDOW
from pipeline.recipe.schedule import lr_at
from pipeline.training.feeding.constant_batch import ConstantBatch
from pipeline.training.feeding.device_batches import DeviceBatches
from pipeline.training.feeding.image_batches import TrainImages
from pipeline.training.step.iteration import Iteration
from pipeline.training.step.networks import build_network
from pipeline.training.step.process_group import single_process
from pipeline.training.step.train_state import TrainState

DEPTHS = {"resnet20": 20, "resnet56": 56, "resnet110": 110}
USUAL_WORKERS = (4, 8, 12)
PACKS = RUNS_AT_ONCE[1:]


class OurRun:
    """One run in training: its state, its batches, and its iteration."""

    def __init__(
        self,
        experiment: Experiment,
        classes: int,
        images: TrainImages,
        seed: int = 0,
        constant: bool = False,
        capture: bool = True,
        warmup_end: int | None = 0,
        lanes: int | None = None,
    ) -> None:
        self.experiment, self.warmup_end, self.number = experiment, warmup_end, 0
        device = images.pixels.device
        self.stream = torch.cuda.Stream() if device.type == "cuda" else None
        with self._own_stream():
            network = build_network(experiment, seed, classes)
            self.state = TrainState(experiment, network, device, lanes=lanes)
            size = experiment.global_batch_size
            feed = DeviceBatches(images, seed, size, 0, size)
            batches = ConstantBatch(*feed.batch(0)) if constant else feed
            self.window = torch.zeros(WINDOW, 2, device=device)
            self.iteration = Iteration(
                self.state, batches, single_process(device), self.window, 0, capture
            )

    def _own_stream(self) -> Any:
        return torch.cuda.stream(self.stream) if self.stream else nullcontext()

    def step(self) -> None:
        """Launch the next iteration."""
        with self._own_stream():
            lr = lr_at(self.experiment, self.number, self.warmup_end)
            self.iteration.run(self.number, lr)
            self.number += 1

    def bytes(self) -> list[Tensor]:
        """Everything that training changes, copied."""
        if self.stream:
            self.stream.synchronize()
        parts = (self.state.weights, self.state.momentum, self.state.running, self.window)
        return [part.clone() for part in parts]


def bench(
    dataset: Dataset,
    names: Sequence[str],
    precisions: Sequence[Precision],
    rounds: int,
    steps: int,
    out: Path,
    device_name: str,
    check: bool = True,
) -> None:
    """Measure, print tables, and write `out` as JSON.

    Raises:
        InputError: there is no GPU, or a name is not one of `DEPTHS`.
    """
    for name in names:
        if name not in DEPTHS:
            raise InputError(f"--experiments {name}: expected some of {', '.join(DEPTHS)}")
    device = device_named(device_name, "bench gpu")
    # Before anything computes: cuBLAS reads its workspace's setting once in a process.
    set_kernels(KernelSettings(deterministic=True, tf32=False))
    kept: dict[str, Any] = {"taken": taken_on_gpu(device), "bytes": {}, "images_per_second": {}}
    print(json.dumps(kept["taken"]), flush=True)
    if check:
        kept["bytes"] = check_bytes(dataset, precisions, device)
        keep(kept, out)
    images = _pil_images(dataset)
    workers = _best_workers(images, dataset.spec.classes, device, steps)
    for name in names:
        for precision in precisions:
            experiment = replace(EXPERIMENTS[name], precision=precision)
            usual = _usual(images, DEPTHS[name], dataset.spec.classes, workers, device)
            found = kept["images_per_second"][f"{name} {precision}"] = dict[str, list[float]]()
            for contestant in _measured(experiment, dataset, device, usual, rounds, steps):
                found[contestant.name] = contestant.rates
                keep(kept, out)
            print_rates(f"{name}, {precision}", found, usual.name, "the usual loop")
    print(f"kept in {out}")


def _measured(
    experiment: Experiment,
    dataset: Dataset,
    device: torch.device,
    usual: GpuContestant,
    rounds: int,
    steps: int,
) -> Iterator[GpuContestant]:
    """Each contestant after each round; they go with this function, and their memory with them."""
    contestants = [usual]
    for contestant in _contestants(experiment, dataset, device):
        contestants.append(contestant)
        print(f"{experiment.name}, {experiment.precision}: {contestant.name}", flush=True)
    for number in range(rounds):
        for contestant in measure.rotated(contestants, number):
            contestant.measure(steps, device)
            yield contestant


def _contestants(
    experiment: Experiment, dataset: Dataset, device: torch.device
) -> Iterator[GpuContestant]:
    """Ours in each way, and the stock network."""
    size, classes = experiment.global_batch_size, dataset.spec.classes
    images = TrainImages(experiment, dataset, device)
    tf32 = experiment.precision == "tf32"

    def ours(name: str, deterministic: bool, **how: Any) -> GpuContestant:
        set_kernels(KernelSettings(deterministic, tf32))
        run = OurRun(experiment, classes, images, **how)
        # Kernels are chosen by the first launches, under the settings of this contestant.
        for _ in range(2):
            run.step()
        wait_for(device)
        return GpuContestant(name, size, run.step, 1.0 if run.iteration.captured else 0.25)

    yield ours("captured, fed, deterministic", True)
    yield ours("captured, fed, deterministic, groups in turn", True, lanes=1)
    yield ours("captured, one batch, deterministic", True, constant=True)
    yield ours("captured, fed, any kernels", False)
    yield ours("launched one by one, fed, deterministic", True, capture=False)
    yield _stock(experiment, dataset, device)
    set_kernels(KernelSettings(True, tf32))
    # The largest pack's runs are those of the smaller ones too.
    runs = [OurRun(experiment, classes, images, seed=seed) for seed in range(max(PACKS))]
    for count in PACKS:
        yield _pack(runs[:count])


def _pack(runs: list[OurRun]) -> GpuContestant:
    """Several runs at once, a stream and a graph each, launched in turn."""

    def step() -> None:
        for run in runs:
            run.step()

    size = len(runs) * runs[0].experiment.global_batch_size
    return GpuContestant(f"captured, fed, {len(runs)} runs at once", size, step, 1 / len(runs))


def _stock(experiment: Experiment, dataset: Dataset, device: torch.device) -> GpuContestant:
    """A stock network on one batch: torch's defaults unless bf16, channels last in that."""
    side, classes = dataset.spec.side, dataset.spec.classes
    network = CifarResNet(DEPTHS[experiment.name], classes).to(device)
    size, bf16 = experiment.global_batch_size, experiment.precision == "bf16"
    x = torch.randn(size, 3, side, side, device=device)
    if bf16:
        network.to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
    labels = torch.randint(0, classes, (size,), device=device)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        with torch_defaults():
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = network(x)
            F.cross_entropy(logits.float(), labels).backward()
            optimizer.step()

    return GpuContestant("stock network, one batch", size, step, 0.25)


def _pil_images(dataset: Dataset) -> PILImages:
    """The training images as tutorials hold them."""
    spec, labels = dataset.spec, dataset.train.labels.astype(int).tolist()
    pictures = [Image.fromarray(image) for image in dataset.train.pixels]
    return PILImages(pictures, labels, train_transform(spec.side, spec.pad, spec.flip))


def _best_workers(images: PILImages, classes: int, device: torch.device, steps: int) -> int:
    """The number of DataLoader workers with which the usual loop is fastest here."""
    rates: dict[int, float] = {}
    for workers in sorted({min(number, usable_cpus()) for number in USUAL_WORKERS}):
        usual = _usual(images, 20, classes, workers, device)
        for _ in range(20 if device.type == "cuda" else 1):  # until the workers' queues are full
            usual.step()
        usual.measure(8 * steps, device)
        rates[workers] = usual.rates[0]
        print(f"{usual.name}: {rates[workers]:,.0f} images/s", flush=True)
    return max(rates, key=lambda workers: rates[workers])


def best_usual(dataset: Dataset, experiment: Experiment, device: torch.device) -> float:
    """Images a second of the usual loop on a row of `DEPTHS`, at its best number of workers."""
    images, depth = _pil_images(dataset), DEPTHS[experiment.name]
    steps = 200 if device.type == "cuda" else 1
    workers = _best_workers(images, dataset.spec.classes, device, steps)
    usual = _usual(images, depth, dataset.spec.classes, workers, device)
    for _ in range(3):
        usual.measure(4 * steps, device)
    return median(usual.rates)


def _usual(
    images: PILImages, depth: int, classes: int, workers: int, device: torch.device
) -> GpuContestant:
    """The usual loop on a network of this depth."""
    loop = StandardLoop(images, CifarResNet(depth, classes).to(device), 128, workers)

    def step() -> None:
        with torch_defaults():
            next(loop.steps)

    return GpuContestant(f"the usual loop, {workers} workers", 128, step, 0.25)


def check_bytes(
    dataset: Dataset, precisions: Sequence[Precision], device: torch.device
) -> dict[str, bool]:
    """Whether captured equals uncaptured, twice is the same, and batches are the CPU's."""
    steps = 12 if device.type == "cpu" else 450
    ways: dict[str, dict[str, Any]] = {
        "captured": {},
        "again": {},
        "uncaptured": {"capture": False},
        "groups in turn": {"lanes": 1},
    }
    found: dict[str, bool] = {}
    # Within so many iterations: an epoch's border, a drop of the rate, the end of a warm-up.
    drops = (steps - 5, 900)
    small = replace(EXPERIMENTS["resnet110"], depth=20, iterations=1000, lr_drops=drops)
    images, cpu = (TrainImages(small, dataset, each) for each in (device, torch.device("cpu")))
    classes = dataset.spec.classes
    for precision in precisions:
        experiment = replace(small, precision=precision)
        set_kernels(KernelSettings(deterministic=True, tf32=precision == "tf32"))
        ended = {}
        for name, how in ways.items():
            run = OurRun(experiment, classes, images, warmup_end=steps // 2, **how)
            for _ in range(steps):
                run.step()
            ended[name] = run.bytes()
            if device.type == "cuda" and "capture" not in how:
                found[f"{precision}, {name}: was captured"] = run.iteration.captured
        for name in list(ways)[1:]:
            same = all(map(torch.equal, ended["captured"], ended[name]))
            found[f"{precision}: {steps} captured iterations equal {name}"] = same
    feed, same = DeviceBatches(images, 1, 128, 0, 128), True
    border = len(dataset.train) // 128
    for number in (0, 1, border - 1, border, border + 1, 5 * border):
        expected = cpu.batch(batch_at(1, images.count, number, 128, 0, 128))
        made = feed.batch(number)
        same &= all(torch.equal(a.cpu(), b) for a, b in zip(made, expected, strict=True))
    found["batches equal the CPU's"] = same
    for what, is_so in found.items():
        print(f"{'ok   ' if is_so else 'WRONG'} {what}", flush=True)
    return found
