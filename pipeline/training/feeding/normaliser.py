"""Photographs' pixels as a network sees them: offset, scale and colour (Sec. 3.4).

`Normaliser` does it for a batch on its device; or for one square on the CPU, where a decoder's
thread does it while the square is in its cache.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data.photo_shards import Photos
from pipeline.recipe.experiments import Experiment
from pipeline.training.feeding.image_batches import TORCHVISION_MEAN, TORCHVISION_STD

IN_FLIGHT = 2
"""Batches that are on their way through a GPU at a time."""


@dataclass(frozen=True)
class Normaliser:
    """What a network sees of uint8 pixels: (pixel + 255 shift - offset) * scale, on its device.

    `offset` [side, side, 3] is in pixel values (0 to 255) and `scale` [3] multiplies what remains;
    with side 1 they fit photographs of any height and width. The colour's shift is added last, so
    `shift_scale` [3] makes it the views': 255 times `scale`, which is 1 for the paper's rows.
    """

    offset: Tensor
    scale: Tensor
    shift_scale: Tensor

    @classmethod
    def of(
        cls, experiment: Experiment, photos: Photos, device: torch.device, side: int
    ) -> "Normaliser":
        """The normaliser of an experiment for squares of `side` pixels.

        Values end up about within [-1, 1], or with unit deviation per channel where the row's
        normalisation has a standard deviation.
        """
        # The paper subtracts the mean image and says nothing of a scale: [-1, 1] is our reading.
        scale: NDArray[np.floating] = np.full(3, 1 / 255)
        offset = photos.mean(side)
        if experiment.normalisation == "none":
            offset = np.zeros_like(offset)
        # What peers do instead: one mean and deviation a channel, this dataset's or torchvision's.
        if experiment.normalisation == "channel_mean_std":
            offset, scale = (
                np.broadcast_to(photos.channel_mean, offset.shape),
                1 / photos.channel_std,
            )
        if experiment.normalisation == "torchvision":
            offset = np.broadcast_to(
                255 * np.array(TORCHVISION_MEAN, dtype=np.float32), offset.shape
            )
            scale = 1 / (255 * np.array(TORCHVISION_STD))
        # Copied to the device once, for as long as the run lasts.
        return cls(
            torch.tensor(offset, device=device),
            torch.tensor(scale, device=device, dtype=torch.float32),
            torch.tensor(255 * scale, device=device, dtype=torch.float32),
        )

    def __call__(
        self, pixels: Tensor | NDArray[np.uint8], shift: NDArray[np.float32] | None = None
    ) -> Tensor:
        """Pixels [n, height, width, 3] as views [n, 3, height, width] (channels last in memory).

        `shift` [n, 3] is the colour augmentation's, where white is 1. Pixels in memory of
        `host_pixels` cross to a GPU beside its work: no synchronisation point.
        """
        pixels = torch.as_tensor(pixels)
        # uint8 crosses the bus, a quarter of float32's bytes; the arithmetic is the device's.
        views = pixels.to(self.offset.device, non_blocking=True).float()
        views.sub_(self.offset).mul_(self.scale)
        if shift is not None:
            scaled = torch.from_numpy(shift).to(views.device) * self.shift_scale
            views.add_(scaled[:, None, None, :])
        return views.permute(0, 3, 1, 2)

    def into(
        self,
        view: NDArray[np.float32],
        pixels: NDArray[np.uint8],
        shift: NDArray[np.float32] | None,
    ) -> None:
        """The same for one square on the CPU: pixels [side, side, 3] and a shift [3] into `view`.

        Every operation is `__call__`'s, in the same order and in float32.
        """
        side = len(view)
        np.subtract(pixels, self.offset.numpy(), out=view, dtype=np.float32)
        # Whole lines, because numpy is several times slower where its innermost axis is three long.
        lines = view.reshape(side, 3 * side)
        np.multiply(lines, np.tile(self.scale.numpy(), side), out=lines)
        if shift is not None:
            np.add(lines, np.tile(shift * self.shift_scale.numpy(), side), out=lines)


def host_pixels(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Memory for pixels, uint8, on their way to a device: pinned where that is a GPU.

    Torch keeps pinned memory that nobody needs any more, copies under way included, and hands it
    out again: after the first few batches none is pinned anew.
    """
    return torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")


def stacked(squares: list[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """Pixels of one shape [height, width, 3], as one batch in memory of `host_pixels`."""
    batch = host_pixels((len(squares), *squares[0].shape), device)
    np.stack(squares, out=batch.numpy())
    return batch


class InFlight:
    """Bounds how far ahead of a GPU the host launches: two batches; a CPU needs no bound.

    Without one, decoders that are faster than the network would have memory pinned for everything
    that they decode.
    """

    def __init__(self, device: torch.device) -> None:
        self.is_gpu = device.type == "cuda"
        self.launched: deque[torch.cuda.Event] = deque()
        """The ends of what was launched last, oldest first."""

    def add(self) -> None:
        """Remember everything that was launched until now as one batch."""
        if self.is_gpu:
            self.launched.append(torch.cuda.Event())
            self.launched[-1].record()

    def wait(self) -> None:
        """Wait until there is room for another batch."""
        while len(self.launched) >= IN_FLIGHT:
            self.launched.popleft().synchronize()
