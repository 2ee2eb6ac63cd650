"""Pad, crop and flip against a plain loop; means of the training part alone; halves of a batch."""

from dataclasses import replace
from hashlib import blake2b

import numpy as np
import pytest
import torch

from pipeline.data.catalogue.cifar10 import CIFAR10
from pipeline.data.catalogue.table import DATASETS
from pipeline.data.datasets import Dataset, DatasetSpec, Images, canonical_dataset
from pipeline.data.sampling import Batch, batch_at
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.training.feeding.image_batches import (
    TrainImages,
    held_out,
    normalisation,
    single_views,
    training_split,
)
from tests.pipeline.training.small_runs import digits_once

RESNET20, CPU = EXPERIMENTS["resnet20"], torch.device("cpu")


def noise(spec: DatasetSpec = CIFAR10.spec, train: int = 53, test: int = 7) -> Dataset:
    rng = np.random.default_rng(0)
    splits = [
        Images(
            rng.integers(0, 256, (n, spec.side, spec.side, 3), dtype=np.uint8),
            rng.integers(0, 10, n).astype(np.uint8),
        )
        for n in (train, test)
    ]
    return canonical_dataset(spec, *splits)


def plain_loop(dataset: Dataset, batch: Batch) -> np.ndarray:
    """Sec. 4.2, an image at a time: subtract the mean, pad zeros, crop, flip."""
    spec, views = dataset.spec, []
    mean = (dataset.train.pixels.sum(axis=0, dtype=np.int64) / len(dataset.train)).astype(
        np.float32
    )
    for image, words in zip(batch.ids, batch.random_words, strict=True):
        centred = dataset.train.pixels[image].astype(np.float32) - mean
        padded = np.zeros((spec.side + 2 * spec.pad, spec.side + 2 * spec.pad, 3), dtype=np.float32)
        padded[spec.pad : -spec.pad, spec.pad : -spec.pad] = centred
        top, left = ((int(word) >> 32) * (2 * spec.pad + 1) >> 32 for word in words[:2])
        view = padded[top : top + spec.side, left : left + spec.side]
        if spec.flip and (int(words[2]) >> 32) * 2 >> 32:
            view = view[:, ::-1]
        views.append(view.transpose(2, 0, 1) * np.float32(1 / 255))
    return np.stack(views)


@pytest.mark.parametrize("name", ["cifar10", "digits"])
def test_a_batch_is_the_plain_loops(name: str) -> None:
    dataset = noise(DATASETS[name].spec)
    images = TrainImages(RESNET20, dataset, CPU)
    batch = batch_at(2, images.count, 0, 101, 0, 101)
    views, labels = images.batch(batch)
    assert np.array_equal(views.numpy(), plain_loop(dataset, batch))
    assert np.array_equal(labels.numpy(), dataset.train.labels[batch.ids])


def test_digits_are_never_flipped_and_cifar_about_half_the_time() -> None:
    for name, expected in [("digits", 0), ("cifar10", 500)]:
        spec = DATASETS[name].spec
        ramp = np.broadcast_to(
            np.arange(spec.side, dtype=np.uint8)[None, None, :, None], (1, spec.side, spec.side, 3)
        )
        dataset = canonical_dataset(
            spec,
            Images(ramp.copy(), np.zeros(1, np.uint8)),
            Images(ramp.copy(), np.zeros(1, np.uint8)),
        )
        images = TrainImages(replace(RESNET20, normalisation="none"), dataset, CPU)
        views, _ = images.batch(batch_at(0, 1, 0, 1000, 0, 1000))
        middle = spec.side // 2
        falling = (views[:, 0, middle, middle] < views[:, 0, middle, middle - 1]).sum().item()
        assert abs(falling - expected) <= (60 if expected else 0)


def test_augmentation_none_gives_the_original_images() -> None:
    dataset = noise()
    images = TrainImages(replace(RESNET20, augmentation="none"), dataset, CPU)
    batch = batch_at(0, images.count, 0, 53, 0, 53)
    views, _ = images.batch(batch)
    original, _ = single_views(RESNET20, dataset, dataset.train, CPU).batch(0, 53)
    assert torch.equal(views, original[torch.from_numpy(batch.ids)])


def test_a_holdout_leaves_disjoint_parts() -> None:
    dataset, experiment = noise(), replace(RESNET20, holdout=5)
    train, val = training_split(experiment, dataset), held_out(experiment, dataset)
    assert val is not None
    assert (len(train), len(val)) == (48, 5)
    assert np.array_equal(np.concatenate([train.pixels, val.pixels]), dataset.train.pixels)
    assert held_out(RESNET20, dataset) is None


def test_the_mean_is_of_the_training_part_alone() -> None:
    dataset, experiment = noise(), replace(RESNET20, holdout=5)
    view, _ = single_views(experiment, dataset, dataset.test, CPU).batch(0, 1)
    mean = dataset.train.pixels[:48].astype(np.float64).mean(axis=0)
    expected = (dataset.test.pixels[0] - mean) / 255
    np.testing.assert_allclose(view[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)


def test_channel_mean_std_gives_zero_mean_and_unit_deviation() -> None:
    dataset = digits_once()
    offset, scale = normalisation("channel_mean_std", dataset.train)
    seen = (torch.from_numpy(dataset.train.pixels).double() - offset) * scale
    torch.testing.assert_close(
        seen.mean((0, 1, 2)), torch.zeros(3, dtype=torch.float64), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        seen.std((0, 1, 2), unbiased=False), torch.ones(3, dtype=torch.float64), atol=1e-5, rtol=0
    )


def test_per_pixel_mean_is_zero_at_every_pixel() -> None:
    dataset = noise()
    offset, _ = normalisation("per_pixel_mean", dataset.train)
    assert (torch.from_numpy(dataset.train.pixels).double() - offset).mean(0).abs().max() < 1e-4


def test_golden_batch() -> None:
    images = TrainImages(RESNET20, digits_once(), CPU)
    views, labels = images.batch(batch_at(0, images.count, 0, 128, 0, 128))
    content = views.contiguous().numpy().tobytes() + labels.numpy().tobytes()
    assert blake2b(content, digest_size=8).hexdigest() == "e164e559ce51d243"
    assert views.is_contiguous(memory_format=torch.channels_last)


def test_two_workers_halves_are_the_whole_byte_for_byte() -> None:
    images = TrainImages(RESNET20, noise(), CPU)
    whole, labels = images.batch(batch_at(1, images.count, 3, 128, 0, 128))
    halves = [images.batch(batch_at(1, images.count, 3, 128, first, 64)) for first in (0, 64)]
    assert torch.equal(torch.cat([views for views, _ in halves]), whole)
    assert torch.equal(torch.cat([half for _, half in halves]), labels)
