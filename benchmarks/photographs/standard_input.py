"""The input side people usually write for ImageNet, as the reference that ours is measured against.

PIL decode, torchvision's resize of the whole photograph, crop and mirror image on PIL images, in
DataLoader processes; then either a normalised float tensor a photograph there, or bytes that are
normalised as a batch. It uses nothing of this project, on purpose: what is drawn for each
photograph is handed in, so that both sides can be asked for the same views.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms


class Drawn(NamedTuple):
    """What augmentation drew for a photograph: places as shares of what there is, in [0, 1)."""

    shorter: int
    down: float
    across: float
    mirrored: bool
    shift: tuple[float, float, float]


@dataclass(frozen=True)
class InputSetting:
    """DataLoader workers, and whether they normalise each photograph or leave that to the batch."""

    workers: int
    normalised_in_workers: bool

    def __str__(self) -> str:
        where = "normalised there" if self.normalised_in_workers else "normalised as a batch"
        return f"{self.workers} DataLoader workers, {where}"


class Photographs(Dataset[tuple[Tensor, Tensor]]):
    """Encoded photographs, each with what is drawn for it."""

    def __init__(
        self,
        encoded: Sequence[bytes],
        drawn: Sequence[Drawn],
        mean: Tensor,
        crop: int,
        normalised: bool,
    ) -> None:
        self.encoded, self.drawn, self.mean, self.crop, self.normalised = (
            encoded,
            drawn,
            mean,
            crop,
            normalised,
        )

    def __len__(self) -> int:
        return len(self.drawn)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        drawn = self.drawn[number]
        # Fewer photographs than samples are kept: they come again, as epochs do.
        image = Image.open(BytesIO(self.encoded[number % len(self.encoded)])).convert("RGB")
        # The whole photograph is scaled before it is cropped: the usual way, and its main cost.
        image = transforms.resize(image, _rounded(image, drawn.shorter), InterpolationMode.BILINEAR)
        top = int(drawn.down * (image.height - self.crop + 1))
        left = int(drawn.across * (image.width - self.crop + 1))
        image = transforms.crop(image, top, left, self.crop, self.crop)
        if drawn.mirrored:
            image = transforms.hflip(image)
        # The colour of AlexNet: one shift for the whole photograph.
        shift = torch.tensor(drawn.shift)
        # As a float tensor made here, in parallel; or as bytes, a quarter of them to send.
        if self.normalised:
            return transforms.to_tensor(image) - self.mean + shift[:, None, None], shift
        return torch.from_numpy(np.array(image)), shift


def _rounded(image: Image.Image, shorter: int) -> list[int]:
    """Height and width with that shorter side, the longer one rounded as ours is.

    Asked for one side alone, torchvision cuts the other one off.
    """
    least = min(image.size)
    return [
        shorter if side == least else int(side * shorter / least + 0.5)
        for side in (image.height, image.width)
    ]


class StandardInput:
    """Batches without an end, from processes of their own."""

    name = "reference: PIL and torchvision in a DataLoader"

    def __init__(
        self,
        encoded: Sequence[bytes],
        drawn: Sequence[Drawn],
        mean: Tensor,
        crop: int,
        batch: int,
        setting: InputSetting,
    ) -> None:
        self.mean, self.setting = mean, setting
        data = Photographs(encoded, drawn, mean, crop, setting.normalised_in_workers)
        # More workers than CPUs are tried on purpose.
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        self.loader = DataLoader(
            data,
            batch,
            num_workers=setting.workers,
            persistent_workers=setting.workers > 0,
            drop_last=True,
        )
        self.batches = self._endless()

    def _endless(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self.loader

    def batch(self) -> Tensor:
        """The next batch [n, 3, crop, crop], normalised."""
        # Whoever normalises, batches come out equal.
        pixels, shift = next(self.batches)
        if self.setting.normalised_in_workers:
            return pixels
        views: Tensor = (
            pixels.permute(0, 3, 1, 2)
            .float()
            .div_(255)
            .sub_(self.mean)
            .add_(shift[:, :, None, None])
        )
        return views

    def close(self) -> None:
        """Stop the processes."""
        # The iterator holds the workers; both have to go.
        del self.batches, self.loader
