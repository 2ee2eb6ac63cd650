"""A complete study without its hours: the paper's digitised curves with noise, seed by seed.

Its folders are those that training would have written. Nothing in it was measured.
"""

from collections.abc import Iterable
from dataclasses import replace
from random import Random

import numpy as np

from analysis.paper import reported
from analysis.tables.table_6 import references
from pipeline.data.catalogue.cifar10 import CIFAR10
from pipeline.data.datasets import Dataset, Images, canonical_dataset
from pipeline.data.stored import write_dataset
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.metrics import LR, TEST_ERR, TRAIN_CLEAN_ERR, TRAIN_ERR, Point
from pipeline.recipe.schedule import lr_at
from pipeline.runs.checkpoint import Checkpoint, save_checkpoint
from pipeline.runs.history import History
from pipeline.runs.run import Run, start_run, write_result
from pipeline.storage import Storage

CURVES = {"plain20": "fig6_left", "plain56": "fig6_left"}
CURVES |= {"resnet20": "fig6_middle", "resnet56": "fig6_middle"}
"""Experiments, with the panel of the paper that shows their curves."""
NOISE = 0.16
"""Points from seed to seed: the one deviation that the paper states."""
STARTED_MS = 1_700_000_000_000
ATTEMPT = {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False, "device": "cpu"}
ATTEMPT |= {"threads": 1, "world_size": 2, "hardware": "2 cores of a CPU", "versions": {}}


def paper_study(
    storage: Storage, seeds: int = 5, experiments: Iterable[str] = tuple(CURVES)
) -> list[Run]:
    """Write finished runs of some of `CURVES` on images that count as the paper's CIFAR-10."""
    dataset = _dataset()
    write_dataset(storage, dataset, {"kind": "embedded"})
    runs = [
        Run(EXPERIMENTS[name], dataset.id, dataset.key, seed)
        for name in experiments
        for seed in range(seeds)
    ]
    for run in runs:
        write_run(storage, run)
    return runs


def write_run(storage: Storage, run: Run) -> None:
    """Write a finished run with the paper's curves, moved by the seed's own noise."""
    name, end = run.experiment.name, run.experiment.iterations
    finals = {each.experiment: each.number for each in references()}
    start_run(storage, run, 1)
    noise, history = Random(f"{name} {run.seed}"), History(iteration=end, attempts=[dict(ATTEMPT)])
    for split, metric in (("train", TRAIN_ERR), ("test", TEST_ERR)):
        shown = reported.curve(CURVES[name], name, split)
        for step, error in zip(shown.iteration[shown.iteration < end], shown.error, strict=False):
            _add(history, int(step), metric, float(error) + noise.gauss(0, 5 * NOISE))
    for step in range(4_000, end + 1, 4_000):
        _add(history, step, LR, lr_at(run.experiment, step - 1, None))
    for metric in (TEST_ERR, TRAIN_CLEAN_ERR):
        _add(history, end, metric, finals[name] + noise.gauss(0, NOISE))
    files = {"history.json": history.to_json(), "weights.safetensors": b"no weights"}
    save_checkpoint(storage, run, Checkpoint(end, files))
    facts = {"iterations": end, "final": history.last(), "attempts": history.attempts}
    write_result(storage, run, "finished", facts)


def _add(history: History, iteration: int, metric: str, value: float) -> None:
    point = Point(iteration, metric, max(value, 0.0), STARTED_MS + iteration)
    history.points.append(point)


def _dataset() -> Dataset:
    """A few images of noise that have CIFAR-10's name and rank."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(20, dtype=np.uint8) % 10
    halves = (Images(pixels[:10], labels[:10]), Images(pixels[10:], labels[10:]))
    return canonical_dataset(replace(CIFAR10.spec, comparable=True), *halves)
