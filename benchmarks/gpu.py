"""`bench gpu`: what one GPU makes of CIFAR's rows, as ratios against the loop people usually write.

In one run, interleaved: the usual loop at its best number of DataLoader workers, a stock network on
one constant batch, our exact iteration alone (captured and not, with and without deterministic
kernels) and several runs at once. And whether the bytes are what they should be.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter, time
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from benchmarks import measure
from benchmarks.standard_loop import CifarResNet, PILImages, StandardLoop, train_transform
from jobs.execution.determinism import set_kernels
from jobs.execution.processors import usable_cpus
from pipeline.data.datasets import Dataset
from pipeline.data.sampling import batch_at
from pipeline.errors import InputError
from pipeline.recipe.experiments import EXPERIMENTS, Experiment, Precision
from pipeline.recipe.metrics import WINDOW
from pipeline.recipe.schedule import lr_at
from pipeline.runs.provenance import hardware, source_commit, versions
from pipeline.training.feeding.device_batches import DeviceBatches
from pipeline.training.feeding.image_batches import TrainImages
from pipeline.training.step.iteration import Iteration
from pipeline.training.step.networks import build_network
from pipeline.training.step.process_group import single_process
from pipeline.training.step.train_state import TrainState

DEPTHS = {"resnet20": 20, "resnet56": 56, "resnet110": 110}
USUAL_WORKERS = (4, 8, 12)
PACKS = (2, 4, 8, 16)


@dataclass
class GpuContestant:
    """Something that trains `images` a step; `rates` are images a second, a round each."""

    name: str
    images: int
    step: Callable[[], object]
    rates: list[float]

    def measure(self, steps: int, device: torch.device) -> None:
        """Time so many steps, after two that warm it up."""
        for _ in range(2):
            self.step()
        _wait(device)
        began = perf_counter()
        for _ in range(steps):
            self.step()
        _wait(device)
        self.rates.append(steps * self.images / (perf_counter() - began))


class OneBatch:
    """A constant batch in the place of a data plane."""

    def __init__(self, batch: tuple[Tensor, Tensor]) -> None:
        self._batch = batch

    def prepare(self, iteration: int) -> None:
        """Nothing changes."""

    def assemble(self, iteration: Tensor) -> tuple[Tensor, Tensor]:
        return self._batch


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
    ) -> None:
        self.experiment, self.warmup_end, self.number = experiment, warmup_end, 0
        device = images.pixels.device
        self.stream = torch.cuda.Stream() if device.type == "cuda" else None
        with self._own_stream():
            network = build_network(experiment, seed, classes)
            self.state = TrainState(experiment, network, device)
            size = experiment.global_batch_size
            feed = DeviceBatches(images, seed, size, 0, size)
            batches = OneBatch(feed.batch(0)) if constant else feed
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
        InputError: there is no GPU.
    """
    if device_name == "cuda" and not torch.cuda.is_available():
        raise InputError("bench gpu: no GPU is here; `bench loop` measures CPUs")
    device = torch.device(device_name)
    kept: dict[str, Any] = {"taken": _taken(device), "bytes": {}, "images_per_second": {}}
    print(json.dumps(kept["taken"]), flush=True)
    if check:
        kept["bytes"] = check_bytes(dataset, precisions, device)
        _keep(kept, out)
    usual = _usual(dataset, device, steps)
    for name in names:
        for precision in precisions:
            experiment = replace(EXPERIMENTS[name], precision=precision)
            contestants = [usual] if name == "resnet20" else []
            for contestant in _contestants(experiment, dataset, device):
                contestants.append(contestant)
                print(f"{name}, {precision}: {contestant.name}", flush=True)
            for number in range(rounds):
                for contestant in measure.rotated(contestants, number):
                    contestant.measure(_fewer(contestant, steps), device)
                kept["images_per_second"][f"{name} {precision}"] = {
                    one.name: one.rates[-number - 1 :] for one in contestants
                }
                _keep(kept, out)
            _print(f"{name}, {precision}", contestants, rounds, usual)
            del contestants
            if device.type == "cuda":
                torch.cuda.empty_cache()
    print(f"kept in {out}")


def _fewer(contestant: GpuContestant, steps: int) -> int:
    """Steps of a contestant in a round: slower ones and packs make fewer."""
    return max(2, steps // 4) if "captured" not in contestant.name else steps


def _contestants(
    experiment: Experiment, dataset: Dataset, device: torch.device
) -> Iterator[GpuContestant]:
    """Ours in each way, and the stock network."""
    size, classes = experiment.global_batch_size, dataset.spec.classes
    images = TrainImages(experiment, dataset, device)

    def ours(name: str, deterministic: bool, **how: bool) -> GpuContestant:
        set_kernels(deterministic)
        run = OurRun(experiment, classes, images, **how)
        # Kernels are chosen by the first launches, under the settings of this contestant.
        for _ in range(2):
            run.step()
        _wait(device)
        return GpuContestant(name, size, run.step, [])

    yield ours("captured, fed, deterministic", True)
    yield ours("captured, one batch, deterministic", True, constant=True)
    yield ours("captured, fed, any kernels", False)
    yield ours("launched one by one, fed, deterministic", True, capture=False)
    yield _stock(experiment, device)
    set_kernels(True)
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
    return GpuContestant(f"captured, fed, {len(runs)} runs at once", size, step, [])


def _stock(experiment: Experiment, device: torch.device) -> GpuContestant:
    """A stock network on one batch: torch's defaults in fp32, channels last in bf16."""
    network = CifarResNet(DEPTHS[experiment.name]).to(device)
    size, bf16 = experiment.global_batch_size, experiment.precision == "bf16"
    x = torch.randn(size, 3, 32, 32, device=device)
    if bf16:
        network.to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (size,), device=device)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        with _torch_defaults():
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = network(x)
            F.cross_entropy(logits.float(), labels).backward()
            optimizer.step()

    return GpuContestant("stock network, one batch", size, step, [])


class _torch_defaults:
    """Kernels as torch chooses them by itself: TF32 convolutions, nothing deterministic."""

    def __enter__(self) -> None:
        self._tf32 = torch.backends.cudnn.allow_tf32
        self._deterministic = torch.are_deterministic_algorithms_enabled()
        self._cudnn = torch.backends.cudnn.deterministic
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.deterministic = False
        torch.use_deterministic_algorithms(False)

    def __exit__(self, *_: object) -> None:
        torch.backends.cudnn.allow_tf32 = self._tf32
        torch.backends.cudnn.deterministic = self._cudnn
        torch.use_deterministic_algorithms(self._deterministic)


def _usual(dataset: Dataset, device: torch.device, steps: int) -> GpuContestant:
    """The usual loop with the number of DataLoader workers that is fastest here."""
    pictures = [Image.fromarray(image) for image in dataset.train.pixels]
    row, labels = dataset.spec, dataset.train.labels.astype(int).tolist()
    images = PILImages(pictures, labels, train_transform(row.side, row.pad, row.flip))
    found: list[tuple[float, StandardLoop]] = []
    for workers in USUAL_WORKERS if device.type == "cuda" else (1,):
        if workers > usable_cpus():
            continue
        loop = StandardLoop(images, CifarResNet(20).to(device), 128, workers)
        with _torch_defaults():
            for _ in range(20 if device.type == "cuda" else 1):
                next(loop.steps)
            began, count = perf_counter(), max(2, 2 * steps)
            for _ in range(count):
                next(loop.steps)
        rate = 128 * count / (perf_counter() - began)
        print(f"the usual loop, {workers} DataLoader workers: {rate:,.0f} images/s", flush=True)
        found.append((rate, loop))
    _, best = max(found, key=lambda pair: pair[0])

    def step() -> None:
        with _torch_defaults():
            next(best.steps)

    return GpuContestant(f"the usual loop, {best.loader.num_workers} workers", 128, step, [])


def check_bytes(
    dataset: Dataset, precisions: Sequence[Precision], device: torch.device
) -> dict[str, bool]:
    """Whether captured equals uncaptured, twice is the same, and batches are the CPU's."""
    steps = 12 if device.type == "cpu" else 450
    found: dict[str, bool] = {}
    # Within so many iterations: an epoch's border, a drop of the rate, the end of a warm-up.
    drops = (steps - 5, 900)
    small = replace(EXPERIMENTS["resnet110"], depth=20, iterations=1000, lr_drops=drops)
    images, cpu = (TrainImages(small, dataset, each) for each in (device, torch.device("cpu")))
    classes = dataset.spec.classes
    for precision in precisions:
        experiment = replace(small, precision=precision)
        set_kernels(True)
        ended = {}
        for name, capture in (("captured", True), ("again", True), ("uncaptured", False)):
            run = OurRun(experiment, classes, images, capture=capture, warmup_end=steps // 2)
            for _ in range(steps):
                run.step()
            ended[name] = run.bytes()
            if capture and device.type == "cuda":
                found[f"{precision}: was captured"] = run.iteration.captured
        for name in ("again", "uncaptured"):
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


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _print(title: str, contestants: list[GpuContestant], rounds: int, usual: GpuContestant) -> None:
    print(f"\n{title}: images a second, median of {rounds} rounds (lowest to highest)")
    for one in contestants:
        rates = one.rates[-rounds:]
        against = f"{median(rates) / median(usual.rates):6.2f} x usual" if usual.rates else ""
        print(
            f"  {one.name:<42} {median(rates):>10,.0f}  "
            f"({min(rates):,.0f} to {max(rates):,.0f}) {against}"
        )
    print(flush=True)


def _taken(device: torch.device) -> dict[str, Any]:
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "none"
    return {
        "gpu": gpu,
        "cpu": hardware(),
        "cpus": usable_cpus(),
        "versions": versions() | {"cudnn": str(torch.backends.cudnn.version())},
        "commit": source_commit(),
        "time": int(time()),
    }


def _keep(kept: dict[str, Any], out: Path) -> None:
    out.write_text(json.dumps(kept, indent=1) + "\n")
