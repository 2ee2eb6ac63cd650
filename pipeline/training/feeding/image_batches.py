"""Images on their way into the network, a batch at a time on the training device (Sec. 4.2).

The per-pixel mean is subtracted first and zeros are padded after it; a crop or flip then moves
both. A view of an image depends on the image and its own random words alone.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pipeline.data.datasets import Dataset, Images
from pipeline.data.sampling import Batch, bounded
from pipeline.recipe.experiments import Augmentation, Experiment, Normalisation

TORCHVISION_MEAN, TORCHVISION_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What torchvision's weights were trained with, on pixels in [0, 1]."""


class TrainImages:
    """The training set on a device, which hands out augmented, normalised batches.

    It is one padded uint8 tensor.
    """

    def __init__(self, experiment: Experiment, dataset: Dataset, device: torch.device) -> None:
        train = training_split(experiment, dataset)
        self.count = len(train)
        self.spec = dataset.spec
        self.augmentation: Augmentation = experiment.augmentation
        self.pad = dataset.spec.pad if experiment.augmentation == "pad_crop_flip" else 0
        border = (0, 0, self.pad, self.pad, self.pad, self.pad)
        self.pixels = F.pad(torch.from_numpy(train.pixels).to(device), border)
        self.labels = torch.from_numpy(train.labels.astype(np.int64)).to(device)
        offset, scale = normalisation(experiment.normalisation, train)
        # Padding the offset with zeros makes "subtract, then pad" one gather and one subtraction.
        self.offset = F.pad(offset.to(device), border)
        # Repeated for each pixel, so that it is multiplied with a view as one contiguous row.
        self.scale = scale.to(device).repeat(self.spec.side**2)
        self.line = torch.arange(self.spec.side, device=device)

    def batch(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Views [n, 3, side, side] float32 (channels last in memory) and labels [n] of a batch."""
        windows = torch.from_numpy(self.windows(batch.random_words)).to(self.pixels.device)
        return self.views(torch.from_numpy(batch.ids).to(self.pixels.device), windows)

    def windows(self, random_words: NDArray[np.uint64]) -> NDArray[np.int64]:
        """What training looks at of padded images, by their random words [n, 4].

        Returns [n, 3]: the first row, the first column, and 1 where the view is mirrored.
        """
        windows = np.zeros((len(random_words), 3), dtype=np.int64)
        if self.augmentation != "none":
            windows[:, 0] = bounded(random_words[:, 0], 2 * self.pad + 1)
            windows[:, 1] = bounded(random_words[:, 1], 2 * self.pad + 1)
            if self.spec.flip:
                windows[:, 2] = bounded(random_words[:, 2], 2)
        return windows

    def views(self, ids: Tensor, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Views and labels, as `batch`, of images `ids` [n] at `windows` [n, 3], on the device.

        Integer arithmetic and gathers alone: the same bytes on any device.
        """
        side, width = self.spec.side, self.spec.side + 2 * self.pad
        top, left, mirrored = windows.unbind(1)
        rows = top[:, None] + self.line
        # A mirrored view reads its columns backwards: side-1-line where line is read else.
        reading = torch.where(mirrored[:, None] == 1, side - 1 - self.line, self.line)
        columns = left[:, None] + reading
        # Pixels are rows of three values in one long table: taking rows is several times faster
        # than indexing by axes.
        place = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
        table = (ids[:, None] * width**2 + place).flatten()
        views = self.pixels.view(-1, 3).index_select(0, table).view(len(ids), -1).float()
        views -= self.offset.view(-1, 3).index_select(0, place.flatten()).view(len(ids), -1)
        views *= self.scale
        return views.view(-1, side, side, 3).permute(0, 3, 1, 2), self.labels[ids]


def training_split(experiment: Experiment, dataset: Dataset) -> Images:
    """What a row trains on: all images but the last `holdout` in canonical (hash) order."""
    keep = len(dataset.train) - experiment.holdout
    return Images(dataset.train.pixels[:keep], dataset.train.labels[:keep])


def held_out(experiment: Experiment, dataset: Dataset) -> Images | None:
    """The `val` split, None where the row holds nothing out."""
    if not experiment.holdout:
        return None
    keep = len(dataset.train) - experiment.holdout
    return Images(dataset.train.pixels[keep:], dataset.train.labels[keep:])


def normalisation(kind: Normalisation, train: Images) -> tuple[Tensor, Tensor]:
    """(offset [side, side, 3] in pixel values, scale [3]): a network sees (pixel - offset) * scale.

    Means are taken in integer sums over the training images. Values end up in [-1, 1] (the paper
    does not say; batch norm takes the scale out again), or with unit deviation per channel for
    `channel_mean_std`.
    """
    shape = train.pixels.shape[1:]
    if kind == "torchvision":
        return 255 * torch.tensor(TORCHVISION_MEAN).expand(shape).clone(), 1 / (
            255 * torch.tensor(TORCHVISION_STD)
        )
    sums = train.pixels.sum(axis=0, dtype=np.int64)
    if kind == "none":
        return torch.zeros(shape), torch.full((3,), 1 / 255)
    if kind == "per_pixel_mean":
        return torch.from_numpy(sums / len(train)).float(), torch.full((3,), 1 / 255)
    count = len(train) * shape[0] * shape[1]
    mean = sums.sum(axis=(0, 1)) / count
    square_sums = np.zeros(3, dtype=np.int64)
    for start in range(0, len(train), 1000):
        square_sums += (train.pixels[start : start + 1000].astype(np.int64) ** 2).sum(
            axis=(0, 1, 2)
        )
    std = np.sqrt(square_sums / count - mean**2)
    return torch.from_numpy(mean).float().expand(shape).clone(), torch.from_numpy(1 / std).float()


def single_views(
    experiment: Experiment, dataset: Dataset, images: Images, device: torch.device
) -> "OriginalImages":
    """Images as they are tested: the single original view.

    It is normalised with the training set's constants.
    """
    offset, scale = normalisation(experiment.normalisation, training_split(experiment, dataset))
    return OriginalImages(images, offset, scale, device)


class OriginalImages:
    """A split on a device, handing out its images as they are, normalised.

    Batches are of 250 images on a CPU, where the rounding of a loss hangs on them, and larger on a
    GPU, where small ones would be bound by launches.
    """

    def __init__(self, images: Images, offset: Tensor, scale: Tensor, device: torch.device) -> None:
        self.pixels = torch.from_numpy(images.pixels).to(device)
        self.labels = torch.from_numpy(images.labels.astype(np.int64)).to(device)
        self.offset, self.scale = offset.to(device), scale.to(device)
        self.batch_size = 250 if device.type == "cpu" else 2500

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, numbers: Iterable[int]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Number, views and labels of batches (as `batch`)."""
        for number in numbers:
            yield number, *self.batch(number * self.batch_size, self.batch_size)

    def batch(self, start: int, size: int) -> tuple[Tensor, Tensor]:
        """Views [n, 3, side, side] and labels [n] of images [start, start + size)."""
        views = (self.pixels[start : start + size] - self.offset) * self.scale
        return views.permute(0, 3, 1, 2), self.labels[start : start + size]
