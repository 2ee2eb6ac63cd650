"""Small images' batches, assembled on the training device from an iteration's number (Sec. 4.2).

The host's work is a table of integers an epoch; everything else is operations on fixed tensors, as
a captured iteration needs them (`pipeline.training.step.iteration`).
"""

import numpy as np
import torch
from torch import Tensor

from pipeline.data.sampling import epoch_words, permutation
from pipeline.training.feeding.image_batches import TrainImages


class DeviceBatches:
    """One worker's batches, assembled on the device from an iteration's number.

    The order of an epoch and what is drawn for its images go to the device once an epoch, into
    buffers that stay where they are; a batch that runs on into the next epoch finds that one's
    beside it. Order and draws are those of `pipeline.data.sampling`.
    """

    waited = 0.0

    def __init__(
        self, images: TrainImages, seed: int, global_batch_size: int, first: int, size: int
    ) -> None:
        """Images [first, first + size) of each iteration's `global_batch_size`."""
        self.images, self.seed, self.global_batch_size = images, seed, global_batch_size
        device, count = images.pixels.device, images.count
        # As many epochs as one batch can touch, and at least the next one.
        self.epochs = 2 + (global_batch_size - 1) // count
        self.orders = torch.zeros(self.epochs, count, dtype=torch.int64, device=device)
        self.windows = torch.zeros(self.epochs, count, 3, dtype=torch.int64, device=device)
        self.loaded: list[int | None] = [None] * self.epochs
        """The epoch that each buffer holds."""
        self.lanes = torch.arange(first, first + size, device=device)

    def prepare(self, iteration: int) -> None:
        """Load the epochs that this iteration's batch comes from, and those that follow."""
        epoch = iteration * self.global_batch_size // self.images.count
        for number in range(epoch, epoch + self.epochs):
            # An epoch's buffer was that of an epoch before this batch's first: no launched
            # iteration still reads it, because copies and iterations keep their order.
            if self.loaded[number % self.epochs] != number:
                self._load(number)

    def _load(self, epoch: int) -> None:
        slot, count = epoch % self.epochs, self.images.count
        order = permutation(self.seed, epoch, count).astype(np.int64)
        windows = self.images.windows(epoch_words(self.seed, epoch, count))
        self.orders[slot].copy_(torch.from_numpy(order))
        self.windows[slot].copy_(torch.from_numpy(windows))
        self.loaded[slot] = epoch

    def assemble(self, iteration: Tensor) -> tuple[Tensor, Tensor]:
        """Views and labels of iteration number `iteration` [], as `TrainImages.batch`."""
        position = iteration * self.global_batch_size + self.lanes
        epoch = position.div(self.images.count, rounding_mode="floor")
        start = epoch % self.epochs * self.images.count
        place = start + position - epoch * self.images.count
        ids = self.orders.view(-1).index_select(0, place)
        windows = self.windows.view(-1, 3).index_select(0, start + ids)
        return self.images.views(ids, windows)

    def batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Views and labels of an iteration that the host names."""
        self.prepare(iteration)
        return self.assemble(torch.tensor(iteration, device=self.lanes.device))

    def close(self) -> None:
        """Nothing works in the background."""
