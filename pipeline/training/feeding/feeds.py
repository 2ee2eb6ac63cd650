"""What a run is trained and tested on, whichever kind of dataset it has.

Small images in memory or photographs: this module alone knows both kinds. The train loop sees
batches (`Feed`), evaluation sees views (`Views`).
"""

from typing import Protocol

import torch
from torch import Tensor

from pipeline.data.datasets import Dataset
from pipeline.data.decoders import Decoders
from pipeline.data.photo_shards import Photos
from pipeline.data.sampling import Batch, batch_at
from pipeline.recipe import metrics
from pipeline.recipe.experiments import Experiment
from pipeline.runs.run import Run
from pipeline.training.feeding.central_views import CentralViews
from pipeline.training.feeding.device_batches import DeviceBatches
from pipeline.training.feeding.device_decoding import DeviceDecodedFeed, require_gpu
from pipeline.training.feeding.image_batches import (
    TrainImages,
    held_out,
    single_views,
    training_split,
)
from pipeline.training.feeding.photo_batches import PhotoFeed
from pipeline.training.feeding.views import Views
from pipeline.training.step.iteration import Batches
from pipeline.training.step.process_group import ProcessGroup

AnyDataset = Dataset | Photos


class Feed(Batches, Protocol):
    """The training batches of one worker."""

    waited: float
    """Seconds that training stood still for images."""

    def batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Views [n, 3, side, side] and labels [n]: this worker's share of an iteration (from 0)."""
        ...

    def close(self) -> None:
        """End what works in the background."""
        ...


def training_feed(run: Run, dataset: AnyDataset, process_group: ProcessGroup, threads: int) -> Feed:
    """This worker's share of every iteration's batch.

    `threads` decode photographs, or as many processes (`pipeline.data.decoders`).
    """
    # The global batch in equal, consecutive shares by rank. Shares hold whole batch-norm groups, so
    # ranks in order are groups in order: what the tree of sums needs to be exact.
    experiment = run.experiment
    size = experiment.global_batch_size
    share = size // process_group.world_size
    # Images held out (`val`) are the last ones, so training permutes the first `count`.
    count = len(dataset.train) - experiment.holdout

    first = process_group.rank * share
    if isinstance(dataset, Photos):
        # Stateless: a restarted worker asks for its iteration and replays nothing.
        def batch_of(iteration: int) -> Batch:
            return batch_at(run.seed, count, iteration, size, first, share)

        kind = PhotoFeed
        if experiment.decoding == "gpu":
            require_gpu(process_group.device)
            kind = DeviceDecodedFeed
        return kind(
            experiment,
            dataset,
            process_group.device,
            run.seed,
            batch_of,
            experiment.iterations,
            Decoders(threads),
        )
    images = TrainImages(experiment, dataset, process_group.device)
    return DeviceBatches(images, run.seed, size, first, share)


def evaluation_splits(
    experiment: Experiment, dataset: AnyDataset, device: torch.device, threads: int
) -> dict[metrics.Split, Views]:
    """The splits a run is scored on: `test`, `val` where images are held out, and clean `train`.

    Clean means the images trained on, without augmentation. All ranks evaluate the splits in this
    order; each takes every `world_size`-th batch.
    """
    # Photographs: ranges of ids, decoded whenever they are evaluated.
    if isinstance(dataset, Photos):
        trained_on, count = len(dataset.train) - experiment.holdout, len(dataset.train)
        splits: dict[metrics.Split, Views] = {
            "test": CentralViews(
                experiment, dataset, dataset.test, range(len(dataset.test)), device, threads
            )
        }
        if experiment.holdout:
            splits["val"] = CentralViews(
                experiment, dataset, dataset.train, range(trained_on, count), device, threads
            )
        return splits | {
            "train": CentralViews(
                experiment, dataset, dataset.train, range(trained_on), device, threads
            )
        }

    # Small images: each split is copied to the device once.
    views: dict[metrics.Split, Views] = {
        "test": single_views(experiment, dataset, dataset.test, device)
    }
    val = held_out(experiment, dataset)
    if val is not None:
        views["val"] = single_views(experiment, dataset, val, device)
    views["train"] = single_views(experiment, dataset, training_split(experiment, dataset), device)
    return views
