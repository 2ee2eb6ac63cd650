"""A run small enough to finish in a second or two: ResNet-8 on scikit-learn's digits."""

from dataclasses import replace
from functools import cache
from typing import Any

from pipeline.data.catalogue.digits import digits
from pipeline.data.datasets import Dataset
from pipeline.recipe.experiments import EXPERIMENTS, Experiment
from pipeline.recipe.metrics import IMAGES_PER_SECOND
from pipeline.runs.checkpoint import newest_checkpoint
from pipeline.runs.history import History
from pipeline.runs.run import Run
from pipeline.storage import Storage

digits_once = cache(digits)


def small_row(**changes: Any) -> Experiment:
    """ResNet-20's recipe on eight layers, 30 iterations of two groups of 8 images."""
    recipe: dict[str, Any] = dict(
        depth=8, iterations=30, lr_drops=(15, 23), eval_every=10, global_batch_size=16, bn_group=8
    )
    return replace(EXPERIMENTS["resnet20"], **(recipe | changes))


def small_run(seed: int = 0, **changes: Any) -> Run:
    """A run of `small_row` on digits."""
    dataset: Dataset = digits_once()
    return Run(small_row(**changes), dataset.id, dataset.key, seed)


def state(storage: Storage, run: Run) -> tuple[bytes, bytes, list]:
    """All that a run's end holds, without what depends on the hour or the machine."""
    end = newest_checkpoint(storage, run)
    assert end is not None
    assert end.iteration == run.experiment.iterations
    history = History.from_json(end.files["history.json"])
    measured: list = [
        (p.iteration, p.metric, p.value) for p in history.points if p.metric != IMAGES_PER_SECOND
    ]
    measured += [(v.iteration, v.quantity, v.values) for v in history.layers]
    return end.files["weights.safetensors"], end.files["momentum.safetensors"], measured
