"""How fast rows train on GPUs that nobody has probed: as measured on such a card, or by a model.

What was measured stands in `gpu_rates.csv`, all runs of a line together, with where it is from. The
model is of an iteration that is replayed as a CUDA graph: so much for each convolution with its
norm and ReLU, unless computing takes longer. It is within 4 % of what it was made of. Of
photographs, networks with the same blocks as a measured one go by it in proportion, and others by
data sheets; a run is never faster than its photographs are decoded.
"""

import csv
from dataclasses import dataclass, replace
from functools import cache
from math import sqrt
from pathlib import Path

from jobs.planning.rates import Rate, Source
from jobs.planning.workload import BACKWARD, convolutions, iteration_flops
from pipeline.recipe.experiments import EXPERIMENTS, Experiment

RATES_FILE = Path(__file__).with_name("gpu_rates.csv")


@dataclass(frozen=True)
class Card:
    """A GPU nobody has probed: peak FLOP/s by its vendor's data sheet, dense."""

    fp32: float
    bf16: float


CARDS = {
    "V100": Card(15.7e12, 125e12),
    "T4": Card(8.1e12, 65e12),
    "A10G": Card(31.2e12, 125e12),
    "L4": Card(30.3e12, 121e12),
    "A100": Card(19.5e12, 312e12),
    "H100": Card(66.9e12, 989e12),
    "H200": Card(66.9e12, 989e12),
}
SUSTAINED = {"fp32": 0.45, "tf32": 0.45, "bf16": 0.18}
"""Share of a card's peak that training reaches; fp32 is assumed, and tf32 counted like it.

bf16: NVIDIA's 2,470 images/s of ResNet-50 on an A100 (mixed precision, DeepLearningExamples).
"""
LAYER_SECONDS = {"fp32": 138e-6, "tf32": 138e-6, "bf16": 39e-6}
"""A convolution, its norm and ReLU, forward and backward on a group of 64, in a replayed graph.

bf16: the slope between ResNet-20 and plain-56 on an H200, two groups side by side. fp32: between
ResNet-20 and ResNet-110 on an H100, groups in turn, so too slow; tf32 is counted like it.
"""
ITERATION_SECONDS = {"fp32": 0.25e-3, "tf32": 0.25e-3, "bf16": 0.43e-3}
"""What an iteration takes besides, on the same line."""
MOST_GAIN = 2.05
"""Total rate of many runs at once over that of one, on an H200 with up to four."""
SCALING = 0.944
"""Share of the rate that is left at each doubling of workers.

NVIDIA's 16,621 images/s on 8 A100 are 0.84 of 8 times one: three doublings.
"""
VIEWS_PER_SECOND = 16 * 0.9 * 273
"""Photographs decoded a second for each GPU: 16 processors, as the measured machine had for one.

273 is what one thread made there. 0.9 of their sum is the feed's aim in processes, unmeasured.
"""


@dataclass(frozen=True)
class MeasuredRate:
    """A line of the file: images/s of all runs together."""

    card: str
    precision: str
    experiment: str
    way: str
    """`captured`, or launched one by one: `exact`, or in `one pass` over all groups."""
    runs_at_once: int
    images_per_second: float


@cache
def measured_rates() -> tuple[MeasuredRate, ...]:
    """Every rate that was measured."""
    with RATES_FILE.open(newline="") as file:
        return tuple(
            MeasuredRate(
                line["card"],
                line["precision"],
                line["experiment"],
                line["way"],
                int(line["runs_at_once"]),
                float(line["images_per_second"]),
            )
            for line in csv.DictReader(file)
        )


def described(
    experiment: Experiment, card: str, workers: int, at_once: int, one_pass: bool = False
) -> Rate:
    """What is known of a card: `at_once` runs share it, or a run has `workers` of them."""
    if experiment.family == "imagenet":
        return _of_photographs(experiment, card, workers, at_once, one_pass)
    found = _measured_step(experiment, card, at_once) if workers == 1 else None
    if found is not None:
        return _rate(experiment, found, "measured on this card")
    step = _modelled_step(experiment, CARDS[card], at_once)
    # Each doubling of workers costs a share, as gradients take another exchange.
    doublings = (workers - 1).bit_length()
    like_it = any(
        line.card == card and line.precision == experiment.precision for line in measured_rates()
    )
    source: Source = "modelled" if like_it else "published"
    whole = _rate(experiment, step, source)
    return replace(whole, step=step / workers / SCALING**doublings)


def _of_photographs(
    experiment: Experiment, card: str, workers: int, at_once: int, one_pass: bool
) -> Rate:
    """A row of ImageNet: bound by its network and what workers exchange, or by decoding."""
    # With one group to a worker the exact step is one pass, too.
    way = "one pass" if one_pass or workers == experiment.groups else "exact"
    alone, source = _photograph_step(experiment, card, way)
    if workers > 1 and source == "measured on this card":
        source = "modelled"
    kept = SCALING ** (workers - 1).bit_length()
    computing = alone * at_once / workers / kept
    decoding = experiment.global_batch_size * at_once / workers / VIEWS_PER_SECOND
    limit = "network" if workers == 1 else f"network, exchange {1 - kept:.0%}"
    if decoding > computing:
        limit = "decoding"
    image = max(alone / experiment.global_batch_size / (1 + BACKWARD), 1 / VIEWS_PER_SECOND)
    return Rate(max(computing, decoding), image * at_once, source, limit)


def _photograph_step(experiment: Experiment, card: str, way: str) -> tuple[float, Source]:
    """Seconds of an iteration on one GPU, without decoding, and how that is known."""
    flops, size = iteration_flops(experiment), experiment.global_batch_size
    for line in measured_rates():
        other = EXPERIMENTS[line.experiment]
        if (line.card, line.precision, line.way) != (card, experiment.precision, way):
            continue
        if other.block == experiment.block:
            part = flops / iteration_flops(other)
            source: Source = "measured on this card" if part == 1 else "modelled"
            return part * size / line.images_per_second, source
    return _modelled_step(experiment, CARDS[card], 1), "published"


def gain(at_once: int) -> float:
    """The total rate of `at_once` runs on a GPU over that of one, where launches bound them."""
    return 1.0 if at_once == 1 else at_once / sqrt(1 + (at_once / MOST_GAIN) ** 2)


def _rate(experiment: Experiment, step: float, source: Source) -> Rate:
    return Rate(step, step / experiment.global_batch_size / (1 + BACKWARD), source, "network")


def _measured_step(experiment: Experiment, card: str, at_once: int) -> float | None:
    """Seconds of an iteration of each of the runs, where they were measured so."""
    for line in measured_rates():
        asked = (card, experiment.precision, "captured", at_once)
        same = (line.card, line.precision, line.way, line.runs_at_once) == asked
        # A plain network and its residual twin compute the same, whatever their names.
        if same and _work(EXPERIMENTS[line.experiment]) == _work(experiment):
            return experiment.global_batch_size * at_once / line.images_per_second
    return None


def _work(experiment: Experiment) -> tuple[float, int, int]:
    """What an iteration's time follows from."""
    return iteration_flops(experiment), convolutions(experiment), experiment.groups


def _modelled_step(experiment: Experiment, card: Card, at_once: int) -> float:
    """Seconds of an iteration of each of `at_once` runs on a card, by the model."""
    precision = experiment.precision
    peak = card.bf16 if precision == "bf16" else card.fp32
    computing = iteration_flops(experiment) / (peak * SUSTAINED[precision]) * at_once
    # A group at a time, because each batch-norm group is computed by itself.
    layers = convolutions(experiment) * experiment.groups * LAYER_SECONDS[precision]
    return max(computing, (ITERATION_SECONDS[precision] + layers) * at_once / gain(at_once))
