"""What a run is fed with and tested on, from whichever kind of dataset it has: small images in
memory, or photographs.

The one place that knows both kinds; the train loop sees batches and views.
"""

from typing import Protocol

import torch
from torch import Tensor

from pipeline.data.datasets import Dataset
from pipeline.data.photo_shards import Photos
from pipeline.data.sampling import Batch, batch_at
from pipeline.recipe import metrics
from pipeline.recipe.experiments import Experiment
from pipeline.runs.run import Run
from pipeline.training.feeding.image_batches import (
    DeviceBatches,
    TrainImages,
    held_out,
    single_views,
    training_split,
)
from pipeline.training.feeding.photo_batches import CentralViews, PhotoFeed
from pipeline.training.feeding.views import Views
from pipeline.training.step.process_group import ProcessGroup

AnyDataset = Dataset | Photos


class Feed(Protocol):
    """The training batches of one worker."""

    waited: float
    """Seconds that training stood still for images."""

    def prepare(self, iteration: int) -> None:
        """Do the host's part, so that `assemble` gives this iteration's batch."""
        ...

    def assemble(self, iteration: Tensor) -> tuple[Tensor, Tensor]:
        """The prepared batch, as `batch`, by operations on tensors that stay where they are."""
        ...

    def batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Views [n, 3, side, side] and labels [n] of this worker's share of iteration `iteration`
        (from 0).
        """
        ...

    def close(self) -> None: ...


def training_feed(run: Run, dataset: AnyDataset, process_group: ProcessGroup, threads: int) -> Feed:
    """This worker's share of every iteration's batch; photographs are decoded by so many threads."""
    experiment = run.experiment
    size = experiment.global_batch_size
    share = size // process_group.world_size
    count = len(dataset.train) - experiment.holdout

    first = process_group.rank * share
    if isinstance(dataset, Photos):

        def batch_of(iteration: int) -> Batch:
            return batch_at(run.seed, count, iteration, size, first, share)

        return PhotoFeed(
            experiment,
            dataset,
            process_group.device,
            run.seed,
            batch_of,
            experiment.iterations,
            threads,
        )
    images = TrainImages(experiment, dataset, process_group.device)
    return DeviceBatches(images, run.seed, size, first, share)


def evaluation_splits(
    experiment: Experiment, dataset: AnyDataset, device: torch.device, threads: int
) -> dict[metrics.Split, Views]:
    """The splits a run is scored on: `test`, `val` where images are held out, and the training set
    as it is.
    """
    if isinstance(dataset, Photos):
        keep, all_of = len(dataset.train) - experiment.holdout, len(dataset.train)
        parts: dict[metrics.Split, Views] = {
            "test": CentralViews(
                experiment, dataset, dataset.test, range(len(dataset.test)), device, threads
            )
        }
        if experiment.holdout:
            parts["val"] = CentralViews(
                experiment, dataset, dataset.train, range(keep, all_of), device, threads
            )
        return parts | {
            "train": CentralViews(experiment, dataset, dataset.train, range(keep), device, threads)
        }
    views: dict[metrics.Split, Views] = {
        "test": single_views(experiment, dataset, dataset.test, device)
    }
    val = held_out(experiment, dataset)
    if val is not None:
        views["val"] = single_views(experiment, dataset, val, device)
    views["train"] = single_views(experiment, dataset, training_split(experiment, dataset), device)
    return views
