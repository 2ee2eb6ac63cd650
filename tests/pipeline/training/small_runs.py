"""A run small enough to finish in a second or two: ResNet-8 on scikit-learn's digits."""

from dataclasses import replace
from functools import cache
from typing import Any

from pipeline.data.catalogue.digits import digits
from pipeline.data.datasets import Dataset
from pipeline.recipe.experiments import EXPERIMENTS, Experiment
from pipeline.runs.run import Run

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
