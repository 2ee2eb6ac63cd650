"""Batches assembled from an iteration's number are those that the host makes from its draws."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.data.datasets import Dataset, Images
from pipeline.data.sampling import batch_at
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.training.feeding.device_batches import DeviceBatches
from pipeline.training.feeding.image_batches import TrainImages
from tests.pipeline.training.small_runs import digits_once

CPU = torch.device("cpu")
RESNET20 = EXPERIMENTS["resnet20"]


def cut(count: int, flip: bool = True) -> Dataset:
    """The digits with `count` training images, mirrored ones too where `flip`."""
    digits = digits_once()
    train = Images(digits.train.pixels[:count], digits.train.labels[:count])
    return replace(digits, train=train, spec=replace(digits.spec, flip=flip))


def assert_same(images: TrainImages, feed: DeviceBatches, iteration: int, size: int) -> None:
    """An iteration's batch, by its number on the device, against order and draws of the host."""
    expected = images.batch(batch_at(3, images.count, iteration, size, 0, size))
    feed.prepare(iteration)
    views, labels = feed.assemble(torch.tensor(iteration))
    assert torch.equal(views, expected[0]) and torch.equal(labels, expected[1])
    assert views.stride() == expected[0].stride()  # channels last in memory, as convolutions want


@pytest.mark.parametrize("augmentation", ["pad_crop_flip", "none"])
def test_a_run_of_iterations_over_borders_of_epochs(augmentation: str) -> None:
    experiment = replace(RESNET20, augmentation=augmentation)
    images = TrainImages(experiment, cut(1000), CPU)
    feed = DeviceBatches(images, 3, 128, 0, 128)
    for iteration in range(40):  # five epochs; batch 7 begins in the first and ends in the second
        assert_same(images, feed, iteration, 128)


@pytest.mark.parametrize("count", [128, 127, 129, 64, 50, 7, 1])
def test_a_batch_may_run_over_several_epochs(count: int) -> None:
    images = TrainImages(RESNET20, cut(count), CPU)
    feed = DeviceBatches(images, 3, 128, 0, 128)
    for iteration in range(12):
        assert_same(images, feed, iteration, 128)


def test_a_resumed_run_and_a_step_back_find_their_epoch() -> None:
    images = TrainImages(RESNET20, cut(300), CPU)
    feed = DeviceBatches(images, 3, 128, 0, 128)
    for iteration in (63_999, 0, 31_999, 32_000, 5, 4):
        assert_same(images, feed, iteration, 128)


def test_workers_share_a_batch_by_rank() -> None:
    images = TrainImages(RESNET20, cut(300), CPU)
    whole = DeviceBatches(images, 3, 128, 0, 128)
    halves = [DeviceBatches(images, 3, 128, first, 64) for first in (0, 64)]
    for iteration in range(6):
        views, labels = whole.batch(iteration)
        parts = [feed.batch(iteration) for feed in halves]
        assert torch.equal(torch.cat([part[0] for part in parts]), views)
        assert torch.equal(torch.cat([part[1] for part in parts]), labels)


def test_buffers_stay_where_they_are() -> None:
    """A captured iteration reads these addresses: epochs are copied into them, never replaced."""
    images = TrainImages(RESNET20, cut(300), CPU)
    feed = DeviceBatches(images, 3, 128, 0, 128)
    before = (feed.orders.data_ptr(), feed.windows.data_ptr())
    for iteration in range(20):
        feed.batch(iteration)
    assert (feed.orders.data_ptr(), feed.windows.data_ptr()) == before
    assert sorted(np.unique(feed.orders[0])) == list(range(300))
