"""Photographs on their way into the network: decoded in threads ahead of training (Sec. 3.4).

For a GPU, threads hand over uint8 squares that are normalised there; for the CPU they normalise
them too, one at a time while they are in its cache. A view depends on the photograph and its own
random words alone, so neither the threads' number nor their order shows. No lock is needed: each
thread writes its own part of a batch, and training reads a batch once all its tasks are done.
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
"""Batches after the present one that are decoded before training asks for them."""
STRIDE = 8
"""Photographs a thread takes at a time."""


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
        self, pixels: NDArray[np.uint8], shift: NDArray[np.float32] | None = None
    ) -> Tensor:
        """Pixels [n, height, width, 3] as views [n, 3, height, width] (channels last in memory).

        `shift` [n, 3] is the colour augmentation's, where white is 1.
        """
        # Shares memory with the caller's array, which nobody writes to any more.
        host_pixels = torch.from_numpy(pixels)
        # From pinned memory the copy runs beside the GPU's work: no synchronisation point.
        if self.offset.is_cuda:
            host_pixels = host_pixels.pin_memory()
        # uint8 crosses the bus, a quarter of float32's bytes; the arithmetic is the device's.
        views = host_pixels.to(self.offset.device, non_blocking=True).float()
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


@dataclass(frozen=True)
class PendingBatch:
    """A batch that threads are filling; its views may be read once all `tasks` are done.

    `views` [n, crop, crop, 3] are uint8, or normalised float32 where the CPU trains; `shift` [n, 3]
    is None where the row has no colour augmentation.
    """

    batch: Batch
    shift: NDArray[np.float32] | None
    views: NDArray[Any]
    tasks: list[Future[None]]


class PhotoFeed:
    """The training batches of one worker, decoded ahead in the order of iterations.

    `batch_of` says which samples an iteration has on this worker, `last` is the last iteration
    worth decoding ahead for, and `threads` decode.
    """

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
        self.normalise_on_cpu = device.type == "cpu"
        self.pool = ThreadPoolExecutor(threads, "decode")
        self.pending: dict[int, PendingBatch] = {}
        """Batches begun, by iteration: the one asked for last and up to `AHEAD` after it."""
        self.waited = 0.0
        """Seconds that training stood still for pixels."""
        self._prepared: tuple[Tensor, Tensor] | None = None

    def batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Views [n, 3, crop, crop] and labels [n] of an iteration; those after it are begun.

        Any iteration may be asked for at any time, again too: only its waiting time differs.
        """
        # Drop what is out of reach: batches used, or begun before the caller went elsewhere.
        distant = [begun for begun in self.pending if not iteration <= begun <= iteration + AHEAD]
        for number in distant:
            for task in self.pending.pop(number).tasks:
                task.cancel()

        # Begin this batch and the next ones in order, so that the nearest is decoded first. After
        # the run's last iteration only what is asked for is decoded.
        for number in range(iteration, max(iteration, min(iteration + AHEAD, self.last)) + 1):
            if number not in self.pending:
                self.pending[number] = self._begin(self.batch_of(number))

        # Wait for the threads; an exception in one of them is raised here.
        pending_batch = self.pending[iteration]
        started = perf_counter()
        for task in pending_batch.tasks:
            task.result()
        self.waited += perf_counter() - started

        # Hand the batch over. It stays pending until training moves on: it may be measured first.
        labels = torch.from_numpy(self.split.labels[pending_batch.batch.ids].astype(np.int64))
        if self.normalise_on_cpu:
            return torch.from_numpy(pending_batch.views).permute(0, 3, 1, 2), labels
        views = self.normalise(pending_batch.views, pending_batch.shift)
        return views, labels.to(self.normalise.offset.device)

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
        """Give a batch to the threads, `STRIDE` photographs to a task, and return at once."""
        size, side, shift = len(batch.ids), self.experiment.crop, None
        # The colour's draws have a purpose of their own, so they leave the crops' draws alone.
        if self.experiment.augmentation != "none" and self.experiment.colour:
            shift = colour_shift(
                random_words_of(self.seed, batch.epochs, "colour", batch.ids),
                self.experiment.colour,
            )
        dtype = np.float32 if self.normalise_on_cpu else np.uint8
        views = np.empty((size, side, side, 3), dtype=dtype)

        def fill(start: int) -> None:
            # In a thread: decode, crop and resize, which leave the interpreter lock to others.
            for position in range(start, min(start + STRIDE, size)):
                content = self.split.encoded(batch.ids[position])
                pixels = training_view(content, batch.random_words[position], self.experiment)
                if self.normalise_on_cpu:
                    self.normalise.into(
                        views[position], pixels, None if shift is None else shift[position]
                    )
                else:
                    views[position] = pixels

        # Tasks start in order of submission, so an earlier batch is never behind a later one.
        return PendingBatch(
            batch, shift, views, [self.pool.submit(fill, start) for start in range(0, size, STRIDE)]
        )

    def close(self) -> None:
        """End the threads without waiting; what they have not begun is dropped."""
        self.pool.shutdown(wait=False, cancel_futures=True)


class CentralViews:
    """Photographs `ids` of a split as they are tested during training: their normalised centres."""

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
        """Number, views [n, 3, crop, crop] and labels [n] of batches; the next is being decoded."""

        def view(sample: int) -> NDArray[np.uint8]:
            image = decode(self.split.encoded(sample))
            # No JPEG is decoded at a reduced size here, whatever the row's `decoding` is.
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
    """Yield batches' numbers, their samples' ids and what `view` makes of each, one batch ahead.

    Batch `number` has the samples ids[number * size : (number + 1) * size], whoever asks for it;
    `view` is called with a sample's id in one of `threads` threads.
    """
    # Leaving the context waits for the threads, also where the caller stops early.
    with ThreadPoolExecutor(threads, "decode") as pool:
        waiting: list[tuple[int, NDArray[np.int64], list[Future[Any]]]] = []
        for number in numbers:
            batch_ids = np.array(ids[number * size : (number + 1) * size], dtype=np.int64)
            waiting.append((number, batch_ids, [pool.submit(view, sample) for sample in batch_ids]))
            # A batch is handed over once the next one is with the threads.
            if len(waiting) > 1:
                yield _results(waiting.pop(0))
        for batch in waiting:
            yield _results(batch)


def _results(
    batch: tuple[int, NDArray[np.int64], list[Future[Any]]],
) -> tuple[int, NDArray[np.int64], list[Any]]:
    """A batch with its tasks' results in the samples' order; waits for them."""
    number, ids, tasks = batch
    return number, ids, [task.result() for task in tasks]
