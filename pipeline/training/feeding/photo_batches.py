"""Photographs on their way into the network: decoded in threads ahead of training, normalised on
the device (Sec. 3.4).

For a GPU, threads hand over uint8 squares that are normalised there; for the CPU they normalise
them too, one at a time while they are in its cache. A view depends on the photograph and its own
random words alone, so neither the threads' number nor their order shows.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data.photo_decoding import centre, colour_shift, decode, training_view
from pipeline.data.photo_shards import Photos, PhotoSplit
from pipeline.data.sampling import Batch, random_words_of
from pipeline.recipe.experiments import Experiment
from pipeline.training.feeding.image_batches import TORCHVISION_MEAN, TORCHVISION_STD

AHEAD = 3
"""Batches that are decoded or being decoded before training asks for them."""
STRIDE = 8
"""Photographs a thread takes at a time."""


@dataclass(frozen=True)
class Normaliser:
    """What a network sees of uint8 pixels: (pixel - offset) * scale + shift, on its device."""

    offset: Tensor
    scale: Tensor

    @classmethod
    def of(
        cls, experiment: Experiment, photos: Photos, device: torch.device, side: int
    ) -> "Normaliser":
        """A row's for squares of `side` pixels; values end up about within [-1, 1], or with unit
        deviation per channel.
        """
        scale: NDArray[np.floating] = np.full(3, 1 / 255)
        offset = photos.mean(side)
        if experiment.normalisation == "none":
            offset = np.zeros_like(offset)
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
        return cls(
            torch.tensor(offset, device=device),
            torch.tensor(scale, device=device, dtype=torch.float32),
        )

    def __call__(
        self, pixels: NDArray[np.uint8], shift: NDArray[np.float32] | None = None
    ) -> Tensor:
        """Pixels [n, height, width, 3] as views [n, 3, height, width] (channels last in memory)."""
        given = torch.from_numpy(pixels)  # a new array in any case, so torch may have it
        if self.offset.is_cuda:
            given = given.pin_memory()
        views = given.to(self.offset.device, non_blocking=True).float()
        views.sub_(self.offset).mul_(self.scale)
        if shift is not None:
            views.add_(torch.from_numpy(shift).to(views.device)[:, None, None, :])
        return views.permute(0, 3, 1, 2)

    def into(
        self,
        view: NDArray[np.float32],
        pixels: NDArray[np.uint8],
        shift: NDArray[np.float32] | None,
    ) -> None:
        """The same of one square on the CPU: pixels [side, side, 3] and a shift [3] into `view`."""
        side = len(view)
        np.subtract(pixels, self.offset.numpy(), out=view, dtype=np.float32)
        lines = view.reshape(
            side, 3 * side
        )  # numpy is several times slower where its innermost axis is of three
        np.multiply(lines, np.tile(self.scale.numpy(), side), out=lines)
        if shift is not None:
            np.add(lines, np.tile(shift, side), out=lines)


@dataclass(frozen=True)
class PendingBatch:
    """A batch that threads fill: `views` [n, crop, crop, 3] are uint8, or on the CPU normalised
    float32.
    """

    batch: Batch
    shift: NDArray[np.float32] | None
    views: NDArray[Any]
    tasks: list[Future[None]]


class PhotoFeed:
    """The training batches of one worker, in the order of iterations."""

    def __init__(
        self,
        experiment: Experiment,
        photos: Photos,
        device: torch.device,
        seed: int,
        batch_of: Callable[[int], Batch],
        last: int,
        threads: int,
    ) -> None:
        self.experiment, self.split, self.seed, self.last = experiment, photos.train, seed, last
        self.batch_of = batch_of
        self.normalise = Normaliser.of(experiment, photos, device, experiment.crop)
        self.here = device.type == "cpu"
        self.pool = ThreadPoolExecutor(threads, "decode")
        self.coming: dict[int, PendingBatch] = {}
        self.waited = 0.0
        """Seconds that training stood still for pixels."""
        self._prepared: tuple[Tensor, Tensor] | None = None

    def batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Views [n, 3, crop, crop] and labels [n] of an iteration; those after it are begun."""
        for number in [
            known for known in self.coming if not iteration <= known <= iteration + AHEAD
        ]:
            for task in self.coming.pop(number).tasks:
                task.cancel()
        for number in range(iteration, max(iteration, min(iteration + AHEAD, self.last)) + 1):
            if number not in self.coming:
                self.coming[number] = self._begin(self.batch_of(number))
        coming = self.coming[iteration]
        started = perf_counter()
        for task in coming.tasks:
            task.result()
        self.waited += perf_counter() - started
        labels = torch.from_numpy(self.split.labels[coming.batch.ids].astype(np.int64))
        if self.here:
            return torch.from_numpy(coming.views).permute(0, 3, 1, 2), labels
        return self.normalise(coming.views, coming.shift), labels.to(self.normalise.offset.device)

    def prepare(self, iteration: int) -> None:
        """Have the iteration's batch where `assemble` finds it: on a GPU, in memory that stays."""
        batch = self.batch(iteration)
        if not batch[0].is_cuda:
            self._prepared = batch
            return
        if self._prepared is None:
            self._prepared = (torch.empty_like(batch[0]), torch.empty_like(batch[1]))
        for fixed, made in zip(self._prepared, batch, strict=True):
            fixed.copy_(made, non_blocking=True)

    def assemble(self, iteration: Tensor) -> tuple[Tensor, Tensor]:
        """The batch that was prepared last, as `batch`."""
        assert self._prepared is not None, "prepare comes first"
        return self._prepared

    def _begin(self, batch: Batch) -> PendingBatch:
        size, side, shift = len(batch.ids), self.experiment.crop, None
        if self.experiment.augmentation != "none" and self.experiment.colour:
            shift = colour_shift(
                random_words_of(self.seed, batch.epochs, "colour", batch.ids),
                self.experiment.colour,
            )
        views = np.empty((size, side, side, 3), dtype=np.float32 if self.here else np.uint8)

        def fill(start: int) -> None:
            for place in range(start, min(start + STRIDE, size)):
                content = self.split.encoded(batch.ids[place])
                pixels = training_view(content, batch.random_words[place], self.experiment)
                if self.here:
                    self.normalise.into(
                        views[place], pixels, None if shift is None else shift[place]
                    )
                else:
                    views[place] = pixels

        return PendingBatch(
            batch, shift, views, [self.pool.submit(fill, start) for start in range(0, size, STRIDE)]
        )

    def close(self) -> None:
        """Let go of the threads."""
        self.pool.shutdown(wait=False, cancel_futures=True)


class CentralViews:
    """A part of a split as it is tested throughout training: each photograph's centre, normalised."""

    batch_size = 100

    def __init__(
        self,
        experiment: Experiment,
        photos: Photos,
        split: PhotoSplit,
        ids: range,
        device: torch.device,
        threads: int,
    ) -> None:
        self.experiment, self.split, self.ids, self.threads = experiment, split, ids, threads
        self.normalise = Normaliser.of(experiment, photos, device, experiment.crop)

    def __len__(self) -> int:
        return len(self.ids)

    def batches(self, numbers: Iterable[int]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Number, views [n, 3, crop, crop] and labels [n] of batches; the next is decoded while one
        is looked at.
        """

        def view(sample: int) -> NDArray[np.uint8]:
            image = decode(self.split.encoded(sample))
            return centre(image.size, self.experiment.test_side, self.experiment.crop).of(image)

        for number, ids, pixels in decoded_ahead(
            numbers, self.ids, self.batch_size, view, self.threads
        ):
            labels = torch.from_numpy(self.split.labels[ids].astype(np.int64)).to(
                self.normalise.offset.device
            )
            yield number, self.normalise(np.stack(pixels)), labels


def decoded_ahead(
    numbers: Iterable[int], ids: range, size: int, view: Callable[[int], Any], threads: int
) -> Iterator[tuple[int, NDArray[np.int64], list[Any]]]:
    """Batch numbers with their samples' ids and what `view` makes of each, in threads that are one
    batch ahead.
    """
    with ThreadPoolExecutor(threads, "decode") as pool:
        waiting: list[tuple[int, NDArray[np.int64], list[Future[Any]]]] = []
        for number in numbers:
            chosen = np.array(ids[number * size : (number + 1) * size], dtype=np.int64)
            waiting.append((number, chosen, [pool.submit(view, sample) for sample in chosen]))
            if len(waiting) > 1:
                yield _done(waiting.pop(0))
        for batch in waiting:
            yield _done(batch)


def _done(
    batch: tuple[int, NDArray[np.int64], list[Future[Any]]],
) -> tuple[int, NDArray[np.int64], list[Any]]:
    number, ids, tasks = batch
    return number, ids, [task.result() for task in tasks]
