"""The feed of photographs by its number of decoders: threads, processes, and what could be had.

What could be had is as many independent processes of one thread as there are decoders, which decode
the same photographs at the same time and share nothing. Interleaved: each kind in each round.
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from functools import partial
from multiprocessing import get_context
from statistics import median
from time import perf_counter

import numpy as np
import torch

from benchmarks import measure
from jobs.console.console import console
from jobs.execution.processors import usable_cpus
from pipeline.data.decoders import Decoders
from pipeline.data.photo_decoding import TrainingViews
from pipeline.data.photo_shards import Photos, open_photos
from pipeline.data.sampling import Batch, batch_at
from pipeline.recipe.experiments import Experiment
from pipeline.storage import Storage
from pipeline.training.feeding.normaliser import Normaliser
from pipeline.training.feeding.photo_batches import AHEAD, PhotoFeed

BATCH = 64
KINDS = ("threads", "processes", "independent processes")
Rates = dict[tuple[int, str], list[float]]
"""Views a second of each number of decoders and kind, a value a round."""


def batch_of(photos: Photos, number: int, size: int = BATCH) -> Batch:
    """Batch `number` of a run of seed 0."""
    return batch_at(0, len(photos.train), number, size, 0, size)


def counts_here() -> list[int]:
    """1, 2, 4, ... and all of this machine's processors."""
    cpus = usable_cpus()
    return sorted({*(1 << power for power in range(cpus.bit_length())), cpus})


def feed_rates(
    experiment: Experiment,
    storage: Storage,
    dataset_id: str,
    device: torch.device,
    rounds: int,
    seconds: float,
    counts: Sequence[int] = (),
) -> Rates:
    """Measure every kind at every number of decoders, each for about so many seconds."""
    photos = open_photos(storage, dataset_id, None)
    counts = counts or counts_here()
    cases = [(count, kind) for count in counts for kind in KINDS]
    rates: Rates = {case: [] for case in cases}
    # Of spawned processes: this one may hold a GPU.
    with ProcessPoolExecutor(max(counts), get_context("spawn")) as alone:
        for number in range(rounds + 1):
            for count, kind in measure.rotated(cases, number):
                if kind == KINDS[2]:
                    work = partial(_alone, experiment, storage.uri, dataset_id, device.type)
                    tasks = [alone.submit(work, seconds, first) for first in range(count)]
                    rate = sum(task.result() for task in tasks)
                else:
                    decoders = Decoders(count, processes=kind == KINDS[1])
                    feed = PhotoFeed(
                        experiment, photos, device, 0, partial(batch_of, photos), 1 << 40, decoders
                    )
                    rate = fed(feed, seconds)
                # The first round starts processes and fills caches.
                if number:
                    rates[count, kind].append(rate)
    return rates


def fed(feed: PhotoFeed, seconds: float) -> float:
    """Views a second of a feed that is asked for one batch of 64 after the other; it is closed."""
    with closing(feed):
        # Until everything runs, and what was ready before is used up.
        for number in range(AHEAD + 1):
            feed.prepare(number)
        number, began = AHEAD + 1, perf_counter()
        while perf_counter() - began < seconds:
            feed.prepare(number)
            number += 1
        return (number - AHEAD - 1) * BATCH / (perf_counter() - began)


def _alone(
    experiment: Experiment, uri: str, dataset_id: str, device: str, seconds: float, first: int
) -> float:
    """In a process of its own: views a second of one thread that does what a decoder does."""
    photos = open_photos(Storage(uri), dataset_id, None)
    view = TrainingViews(experiment)
    cpu = torch.device("cpu")
    normalise = Normaliser.of(experiment, photos, cpu, experiment.crop)
    square = np.empty((experiment.crop, experiment.crop, 3), dtype=np.float32)
    done, number, began = 0, 100 * first, perf_counter()
    while True:
        batch = batch_of(photos, number)
        for sample, words in zip(batch.ids, batch.random_words, strict=True):
            pixels = view((photos.train.stored(sample), words))
            # For a CPU views are normalised by who decodes them, for a GPU they are not.
            if device == "cpu":
                normalise.into(square, pixels, np.zeros(3, dtype=np.float32))
            done += 1
            if perf_counter() - began > seconds:
                return done / (perf_counter() - began)
        number += 1


def print_rates(rates: Rates, title: str) -> None:
    """A table: a line for each number of decoders."""
    table = measure.table(title, "decoders", *KINDS, "threads, of them", "processes, of them")
    for count in sorted({count for count, _ in rates}):
        of_kind = [rates[count, kind] for kind in KINDS]
        shares = [median(measure.ratios(of_kind[number], of_kind[2])) for number in (0, 1)]
        cells = [format(median(values), ",.0f") for values in of_kind]
        table.add_row(str(count), *cells, *(f"{share:.2f}" for share in shares))
    console.print(table)
