"""`resnet-repro bench data`: photographs a second, decoded and augmented, against the usual way.

Also what other ways of decoding and storing would bring, what a network leaves of it, what the
order of ImageNet's photographs costs, and what threads and processes make of more processors. Both
sides see the same photographs with the same draws, and their views are compared first.
"""

import tracemalloc
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from benchmarks import measure
from benchmarks.photographs.feed_rate import BATCH, batch_of, feed_rates, print_rates
from benchmarks.photographs.standard_input import Drawn, InputSetting, StandardInput
from jobs.console.console import console, progress
from jobs.execution.processors import usable_cpus
from pipeline.data import sampling
from pipeline.data.decoders import Decoders
from pipeline.data.photo_decoding import colour_shift
from pipeline.data.photo_ingest import OFFICIAL_COUNTS, Reading, finish, ingest_part
from pipeline.data.photo_shards import Photos, open_photos
from pipeline.data.photo_sources import list_source
from pipeline.data.sampling import bounded, random_words_of
from pipeline.errors import InputError
from pipeline.memory import keep_freed_memory
from pipeline.recipe.experiments import EXPERIMENTS, Experiment
from pipeline.storage import Storage
from pipeline.training.feeding.photo_batches import PhotoFeed
from pipeline.training.step.networks import build_network
from pipeline.training.step.process_group import single_process
from pipeline.training.step.train_state import TrainState

EXPECTED = 1.6
"""The least that is expected of ours over the reference, on two cores."""
SCALED_TO = 480
Rates = dict[str, list[float]]
Next = Callable[[int], Tensor]


def bench(storage: Storage, dataset_id: str, rounds: int, batches: int) -> dict[str, float]:
    """Measure and print; returns the median of each ratio.

    Raises:
        InputError: too few photographs.
    """
    photos = open_photos(storage, dataset_id, None)
    if len(photos.train) < BATCH:
        raise InputError(
            f"{photos.spec.name} has {len(photos.train)} training photographs; {BATCH} are needed "
            "at least"
        )
    keep_freed_memory()
    experiment = EXPERIMENTS["resnet18"]
    # First that both sides do the same work, then which setting is the reference's best, and only
    # then rates.
    with progress("measuring") as report, TemporaryDirectory() as folder:
        difference = _greatest_difference(experiment, photos)
        setting, probed = _best_setting(experiment, photos, batches)
        smaller = scaled_down(photos, (batches + 8) * BATCH, Path(folder))
        rates = _rates(experiment, photos, smaller, setting, rounds, batches, report)
    reference, ours = list(rates)[:2]
    ratios = {
        name: measure.ratios(values, rates[reference])
        for name, values in rates.items()
        if name != reference
    }
    what = f"{photos.spec.name}, {len(photos.train):,} photographs, crop {experiment.crop}"
    table = measure.table(what, "input side", "images/s", "min to max", "over the reference")
    for name, values in rates.items():
        over = f"{median(ratios[name]):.2f}" if name in ratios else ""
        table.add_row(name, *measure.spread(values, ",.0f"), over)
    console.print(table)
    share, bound = _fed_share(experiment, photos, rounds)
    seconds, megabytes = order_cost()
    photographs = OFFICIAL_COUNTS["train"]
    tried = "; ".join(f"{each}: {rate:,.0f}" for each, rate in probed.items())
    print(
        f"Ours over the reference: {median(ratios[ours]):.2f} (expected on two cores: {EXPECTED}). "
        f"Their views differ by at most {difference[0]:.0f} grey levels, {difference[1]:.2f} on "
        "average.\n"
        f"resnet18 trained at crop {experiment.crop} with loading on reaches {share:.2f} of its "
        f"rate with a constant batch; the bottleneck is the {bound}.\n"
        f"The order of an epoch of {photographs:,} photographs: {1000 * seconds:.0f} ms, "
        f"{megabytes:.0f} MB at most; the index adds {photographs * 12 / 1e6:.0f} MB that are "
        "mapped from its file.\n"
        f"{measure.taken_on('torch')}: medians of {rounds} rounds x {batches} batches of {BATCH}, "
        f"interleaved, another first in each round. Ours: {usable_cpus()} decoders. Reference: "
        f"{setting}, the best of a probe ({tried}). No library that is kept up decodes only a "
        "crop's part of a JPEG; such a mode is not measured."
    )
    by_decoders = feed_rates(
        experiment, storage, dataset_id, torch.device("cpu"), rounds, seconds=batches / 7
    )
    print_rates(by_decoders, "views a second by the number of decoders (medians)")
    return {name: median(values) for name, values in ratios.items()}


def _feed(experiment: Experiment, photos: Photos) -> PhotoFeed:
    return PhotoFeed(
        experiment,
        photos,
        torch.device("cpu"),
        0,
        partial(batch_of, photos),
        1 << 40,
        Decoders(usable_cpus()),
    )


def _standard(
    experiment: Experiment, photos: Photos, setting: InputSetting, batches: int
) -> StandardInput:
    """The reference on the same photographs in the same order, with the same draws."""
    # The draws are ours, turned into shares of what there is: the reference knows nothing of them.
    encoded, drawn = [], []
    for number in range(batches):
        batch = batch_of(photos, number)
        # The same 64-bit words that our views are made of, mapped as ours are.
        picks = bounded(batch.random_words, 1 << 32)
        low, high = experiment.scale
        shifts = colour_shift(
            random_words_of(0, batch.epochs, "colour", batch.ids), experiment.colour
        )
        for sample, (scale, across, down, mirrored), shift in zip(
            batch.ids, picks.tolist(), shifts, strict=True
        ):
            encoded.append(photos.train.encoded(sample))
            shorter = low + (scale * (high - low + 1) >> 32)
            drawn.append(
                Drawn(
                    shorter,
                    down / 2**32,
                    across / 2**32,
                    bool(mirrored >> 31),
                    tuple(shift.tolist()),
                )
            )
    # Ours subtracts a mean image of the crop's size; so must the reference.
    mean = torch.tensor(photos.mean(experiment.crop) / 255).permute(2, 0, 1)
    return StandardInput(encoded, drawn, mean, experiment.crop, BATCH, setting)


def _greatest_difference(experiment: Experiment, photos: Photos) -> tuple[float, float]:
    """How far the two sides' first batch differs, in grey levels: at most, and on average."""
    with (
        closing(_feed(experiment, photos)) as feed,
        closing(_standard(experiment, photos, InputSetting(0, True), 1)) as standard,
    ):
        # Not bytes: PIL and our decoder round differently. A few grey levels are allowed for.
        ours, theirs = feed.batch(0)[0], standard.batch()
    difference = 255 * (ours - theirs).abs()
    return float(difference.max()), float(difference.mean())


def _best_setting(
    experiment: Experiment, photos: Photos, batches: int
) -> tuple[InputSetting, dict[InputSetting, float]]:
    tried = [
        InputSetting(workers, normalised_in_workers)
        for workers in (1, 2, 3, 4)
        for normalised_in_workers in (True, False)
    ]
    probed = {}
    for setting in tried:
        with closing(_standard(experiment, photos, setting, batches)) as standard:
            probed[setting] = _rate(lambda _: standard.batch(), batches)
    return max(probed, key=lambda setting: probed[setting]), probed


def _rate(following: Next, batches: int) -> float:
    """Photographs a second; the first batches, in which everything starts, are not counted."""
    # Two: one on its way and one ready, whoever makes them.
    for number in range(2):
        following(number)
    started = perf_counter()
    for number in range(2, 2 + batches):
        following(number)
    return batches * BATCH / (perf_counter() - started)


def _rates(
    experiment: Experiment,
    photos: Photos,
    smaller: Photos,
    setting: InputSetting,
    rounds: int,
    batches: int,
    report: Callable[[int, int], None],
) -> Rates:
    """Photographs a second of each way in each round; each has the machine for itself."""
    # Other pixels than the recipe's: what they would bring is measured, the default stays exact.
    fast = replace(experiment, decoding="dct_scaled")

    def reference() -> float:
        with closing(_standard(experiment, photos, setting, batches)) as standard:
            return _rate(lambda _: standard.batch(), batches)

    def ours(experiment: Experiment, photos: Photos) -> float:
        with closing(_feed(experiment, photos)) as feed:
            return _rate(lambda number: feed.batch(number)[0], batches)

    ways: dict[str, Callable[[], float]] = {
        StandardInput.name: reference,
        "ours": partial(ours, experiment, photos),
        "ours, decoded at 1/2, 1/4 or 1/8 (other pixels)": partial(ours, fast, photos),
        f"ours, stored at shorter side {SCALED_TO} (other pixels)": partial(
            ours, experiment, smaller
        ),
        "ours, both": partial(ours, fast, smaller),
    }
    rates: Rates = {name: [] for name in ways}
    for number in range(rounds):
        for name in measure.rotated(list(ways), number):
            rates[name].append(ways[name]())
        report(number + 1, rounds)
    return rates


def scaled_down(photos: Photos, most: int, folder: Path) -> Photos:
    """At most `most` training photographs, as a dataset that scaled larger ones down at ingest."""
    source = folder / "source"
    source.mkdir()
    # Written as a parquet copy is, because that is a source that needs no archives.
    for split, name in ((photos.train, "train"), (photos.test, "validation")):
        rows = [
            {"image": {"bytes": split.encoded(i), "path": ""}, "label": int(split.labels[i])}
            for i in range(min(most, len(split)))
        ]
        pq.write_table(pa.Table.from_pylist(rows), source / f"{name}.parquet")
    # Through the ingest that users have, so that what is measured is what they would get.
    storage, listing, reading = (
        Storage(str(folder / "storage")),
        list_source(source),
        Reading(SCALED_TO),
    )
    for number, part in enumerate(listing.parts):
        ingest_part(storage, "bench", number, part, listing.classes, reading)
    manifest = finish(storage, "scaled", "bench", listing, reading, {}, False)
    return open_photos(storage, manifest["id"], None)


def _fed_share(experiment: Experiment, photos: Photos, rounds: int) -> tuple[float, str]:
    """A training's rate with loading over that with one batch again, and what holds it up."""
    experiment = replace(experiment, global_batch_size=BATCH)
    torch.set_num_threads(usable_cpus())
    network = build_network(experiment, 0, photos.spec.classes)
    train_state = TrainState(experiment, network, torch.device("cpu"))
    process_group = single_process()
    shares, steps = [], 3
    with closing(_feed(experiment, photos)) as feed:
        # In each round first a few steps on one batch, while the feed fills up, then as many with
        # its batches. The learning rate is next to nothing: the loss must not run away.
        for number in range(rounds):
            constant = feed.batch(steps * number)
            train_state.step(constant, 1e-6, process_group)
            started = perf_counter()
            for _ in range(steps):
                train_state.step(constant, 1e-6, process_group)
            # From here on the feed counts what it is waited for.
            alone, feed.waited = perf_counter() - started, 0.0
            started = perf_counter()
            for iteration in range(steps * number, steps * (number + 1)):
                train_state.step(feed.batch(iteration), 1e-6, process_group)
            shares.append(alone / (perf_counter() - started))
    # Waiting for less than half of the time that a step takes, the network holds it up.
    return median(shares), "network" if feed.waited < 0.5 * alone else "input side"


def order_cost() -> tuple[float, float]:
    """Seconds and peak megabytes that the order of a further epoch of ImageNet takes."""
    # Time without the tracing of memory, which slows numpy down, and after an epoch that warms up.
    count = OFFICIAL_COUNTS["train"]
    sampling.permutation(0, 0, count)
    started = perf_counter()
    sampling.permutation(0, 1, count)
    seconds = perf_counter() - started
    tracemalloc.start()
    for epoch in (2, 3, 4):
        sampling.permutation(0, epoch, count)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return seconds, peak / 1e6
