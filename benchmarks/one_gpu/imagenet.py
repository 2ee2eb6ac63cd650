"""`bench gpu-imagenet`: what one GPU makes of ImageNet's rows, and what feeds it.

In one run: our iteration on one batch (groups one by one, in one pass, in one pass and compiled),
torchvision's network with its usual step, both also at the batch of one of eight workers; the feed
by its number of decoders; and a short training from photographs, with the share that it waited.
Contestants have the GPU one after the other, each anew in each round: two of them would not fit.
"""

import gc
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

from benchmarks import measure
from benchmarks.one_gpu.contestants import (
    GpuContestant,
    keep,
    print_rates,
    taken_on_gpu,
    torch_defaults,
)
from benchmarks.photographs.feed_rate import Rates, batch_of, counts_here, fed, feed_rates
from benchmarks.photographs.feed_rate import print_rates as print_feed_rates
from jobs.execution.experiment_timing import wait_for
from jobs.execution.processors import KernelSettings, compiler_missing, set_kernels, usable_cpus
from pipeline.data.decoders import Decoders
from pipeline.data.photo_shards import Photos, open_photos
from pipeline.errors import InputError
from pipeline.memory import keep_freed_memory
from pipeline.recipe.experiments import EXPERIMENTS, Decoding, Experiment
from pipeline.recipe.metrics import WINDOW
from pipeline.storage import Storage
from pipeline.training.feeding.constant_batch import ConstantBatch
from pipeline.training.feeding.device_decoding import DeviceDecodedFeed, check_decoder
from pipeline.training.feeding.photo_batches import PhotoFeed
from pipeline.training.step.iteration import Batches, Iteration
from pipeline.training.step.networks import build_network
from pipeline.training.step.process_group import single_process
from pipeline.training.step.train_state import TrainState

STOCK = {
    "resnet18": torchvision.models.resnet18,
    "resnet34-b": torchvision.models.resnet34,
    "resnet50": torchvision.models.resnet50,
    "resnet101": torchvision.models.resnet101,
    "resnet152": torchvision.models.resnet152,
}
CLASSES = 1000
SMALL_LR = 1e-6
"""Of measured steps: on one batch again and again the loss must not run away."""
FEED_SECONDS = 3.0


@dataclass(frozen=True)
class ImagenetBench:
    """What is asked for; `batch` is a row's global batch, `crop` its side in pixels."""

    names: Sequence[str]
    batch: int
    crop: int
    rounds: int
    steps: int
    compiled: bool
    device: torch.device

    def experiment(self, name: str) -> Experiment:
        """The row in bf16 at that batch and crop."""
        experiment = EXPERIMENTS[name]
        low, high = (self.crop * shorter // experiment.crop for shorter in experiment.scale)
        return replace(
            experiment,
            precision="bf16",
            global_batch_size=self.batch,
            crop=self.crop,
            scale=(low, high),
        )


def bench(asked: ImagenetBench, storage: Storage, dataset_id: str, out: Path) -> None:
    """Measure, print tables, and write `out` as JSON.

    Raises:
        InputError: a name is not one of `STOCK`, or something is missing.
    """
    for name in asked.names:
        if name not in STOCK:
            raise InputError(f"--experiments {name}: expected some of {', '.join(STOCK)}")
    groups = asked.batch // 32
    if asked.batch % 32 or groups & (groups - 1):
        raise InputError(f"--batch {asked.batch}: expected 32 times a power of two")
    if missing := compiler_missing(asked.compiled):
        raise InputError(missing.replace("train without --compile", "give --no-compiled"))
    photos = open_photos(storage, dataset_id, None)
    if len(photos.train) < asked.batch:
        raise InputError(f"--batch {asked.batch}: there are {len(photos.train)} photographs only")
    # Before anything computes: cuBLAS reads its workspace's setting once in a process.
    keep_freed_memory()
    set_kernels(KernelSettings(deterministic=True, tf32=False))
    kept: dict[str, Any] = {
        "taken": taken_on_gpu(asked.device),
        "images_per_second": {},
        "training": {},
    }
    print(json.dumps(kept["taken"]), flush=True)
    for name in asked.names:
        found = kept["images_per_second"].setdefault(name, {})
        for contestant in _measured(asked, asked.experiment(name)):
            found.setdefault(contestant.name, []).extend(contestant.rates)
            keep(kept, out)
        _print_steps(name, asked, found)
    first = asked.experiment(asked.names[0])
    kept["feed"] = _feeds(first, storage, dataset_id, asked)
    keep(kept, out)
    for name in asked.names:
        kept["training"][name] = _trained(asked, asked.experiment(name), photos)
        keep(kept, out)
    print(f"kept in {out}")


Way = tuple[str, int, Callable[[Tensor, Tensor], Callable[[], object]], float]
"""A contestant's name, images, what makes its step of one batch, and its share of the steps."""


def _ways(asked: ImagenetBench, experiment: Experiment) -> Iterator[Way]:
    """Every contestant of a row; a worker of eight has one group."""
    group = experiment.bn_group
    ours = partial(_our_step, experiment, asked.device)
    stock = partial(_stock_step, experiment.name, asked.device)
    yield f"torchvision, batch {asked.batch}", asked.batch, stock, 1.0
    yield f"groups one by one, batch {asked.batch}", asked.batch, partial(ours, False, False), 0.5
    yield f"one pass, batch {asked.batch}", asked.batch, partial(ours, True, False), 1.0
    if asked.compiled:
        yield f"one pass, compiled, batch {asked.batch}", asked.batch, partial(ours, True, True), 1
    yield f"torchvision, batch {group}", group, stock, 4.0
    yield f"one group, batch {group}", group, partial(ours, False, False), 4.0
    if asked.compiled:
        yield f"one group, compiled, batch {group}", group, partial(ours, False, True), 4.0


def _measured(asked: ImagenetBench, experiment: Experiment) -> Iterator[GpuContestant]:
    """Each contestant after each round; it goes before the next one comes."""
    ways = list(_ways(asked, experiment))
    for number in range(asked.rounds):
        for name, images, make, share in measure.rotated(ways, number):
            began = perf_counter()
            contestant = GpuContestant(name, images, make(*_batch(asked, images)), share)
            contestant.measure(asked.steps, asked.device)
            seconds = perf_counter() - began
            line = f"{experiment.name}: {name}: {contestant.rates[0]:,.0f} images/s"
            print(f"{line} ({seconds:.0f} s with its start)", flush=True)
            yield replace(contestant, step=int)
            del contestant
            _release(asked.device)


def _batch(asked: ImagenetBench, images: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(images, 3, asked.crop, asked.crop, device=asked.device)
    labels = torch.randint(0, CLASSES, (images,), device=asked.device)
    return x.contiguous(memory_format=torch.channels_last), labels


def _release(device: torch.device) -> None:
    """Give the memory of contestants that are gone to the next one, which compiles anew."""
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _our_iteration(
    experiment: Experiment, device: torch.device, one_pass: bool, compiled: bool, batches: Batches
) -> Callable[[], object]:
    """Our iteration as a run makes it: captured on a GPU."""
    network = build_network(experiment, 0, CLASSES)
    state = TrainState(experiment, network, device, one_pass, compiled)
    window = torch.zeros(WINDOW, 2, device=device)
    iteration, number = Iteration(state, batches, single_process(device), window, 0), 0
    if device.type == "cuda" and not iteration.captured:
        print("  (without a CUDA graph)", flush=True)

    def step() -> None:
        nonlocal number
        iteration.run(number, SMALL_LR)
        number += 1

    return step


def _our_step(
    experiment: Experiment,
    device: torch.device,
    one_pass: bool,
    compiled: bool,
    x: Tensor,
    labels: Tensor,
) -> Callable[[], object]:
    return _our_iteration(experiment, device, one_pass, compiled, ConstantBatch(x, labels))


def _stock_step(name: str, device: torch.device, x: Tensor, labels: Tensor) -> Callable[[], object]:
    """torchvision's network as it is usually trained: eager, bf16 autocast, channels last."""
    network = STOCK[name](num_classes=CLASSES).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), SMALL_LR, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        with torch_defaults():
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16):
                loss = F.cross_entropy(network(x), labels)
            loss.backward()
            optimizer.step()

    return step


def _print_steps(name: str, asked: ImagenetBench, found: dict[str, list[float]]) -> None:
    """A table for each batch, against torchvision's step at that batch."""
    for size in (asked.batch, EXPERIMENTS[name].bn_group):
        of_size = {what: rates for what, rates in found.items() if what.endswith(f"batch {size}")}
        print_rates(f"{name}, bf16", of_size, f"torchvision, batch {size}", "torchvision's step")


def _feeds(
    experiment: Experiment, storage: Storage, dataset_id: str, asked: ImagenetBench
) -> dict[str, dict[str, list[float]]]:
    """Views a second of each decoding, by kind and number of decoders."""
    found: dict[str, dict[str, list[float]]] = {}
    cases: list[tuple[Decoding, list[int]]] = [
        ("exact", counts_here()),
        ("dct_scaled", [usable_cpus()]),
    ]
    for decoding, counts in cases:
        other = replace(experiment, decoding=decoding)
        seconds = min(FEED_SECONDS, 0.5 * asked.steps)
        rates: Rates = feed_rates(
            other, storage, dataset_id, asked.device, asked.rounds, seconds, counts
        )
        print_feed_rates(rates, f"decoding={decoding}: views a second (medians)")
        found[decoding] = {f"{count} {kind}": values for (count, kind), values in rates.items()}
    found["gpu"] = {"views a second": _decoded_on_device(experiment, storage, dataset_id, asked)}
    return found


def _decoded_on_device(
    experiment: Experiment, storage: Storage, dataset_id: str, asked: ImagenetBench
) -> list[float]:
    """Views a second where the device decodes, a value a round; none where it cannot."""
    try:
        check_decoder(asked.device)
    except InputError as error:
        print(error, flush=True)
        return []
    photos, rates = open_photos(storage, dataset_id, None), []
    experiment = replace(experiment, decoding="gpu")
    for _ in range(asked.rounds):
        batches, decoders = partial(batch_of, photos), Decoders(usable_cpus())
        feed = DeviceDecodedFeed(experiment, photos, asked.device, 0, batches, 1 << 40, decoders)
        rates.append(fed(feed, min(FEED_SECONDS, 0.5 * asked.steps)))
    print(f"decoding=gpu: {median(rates):,.0f} views a second (median)", flush=True)
    return rates


def _trained(asked: ImagenetBench, experiment: Experiment, photos: Photos) -> dict[str, float]:
    """A short training from photographs beside the same on one batch, and what it waited."""
    constant = _our_step(
        experiment, asked.device, True, asked.compiled, *_batch(asked, asked.batch)
    )
    alone = GpuContestant("constant", asked.batch, constant)
    alone.measure(asked.steps, asked.device)
    del constant
    _release(asked.device)
    decoders = Decoders(usable_cpus())
    batches = partial(batch_of, photos, size=asked.batch)
    feed = PhotoFeed(experiment, photos, asked.device, 0, batches, 1 << 40, decoders)
    with closing(feed):
        step = _our_iteration(experiment, asked.device, True, asked.compiled, feed)
        # What was decoded while the iteration was captured is used up first.
        for _ in range(6):
            step()
        wait_for(asked.device)
        feed.waited, began = 0.0, perf_counter()
        for _ in range(2 * asked.steps):
            step()
        wait_for(asked.device)
        seconds = perf_counter() - began
    rate, still = 2 * asked.steps * asked.batch / seconds, median(alone.rates)
    share, waited = rate / still, 100 * feed.waited / seconds
    held_by = "decoding" if waited > 5 else "the network"
    print(
        f"{experiment.name} trained from photographs: {rate:,.0f} images/s, {share:.2f} of its "
        f"rate on one batch ({still:,.0f}); it waited for {waited:.0f} % of the time: {held_by} "
        f"is the bottleneck ({decoders.count} decoders)",
        flush=True,
    )
    return {"images_per_second": rate, "constant": still, "waited_percent": waited}
