"""Photographs on their way into training: decoded ahead of it by a worker's decoders (Sec. 3.4).

For a GPU, decoders hand over uint8 squares that are normalised there; for the CPU threads normalise
them too, one at a time while they are in its cache. A view depends on the photograph and its own
random words alone, so neither the decoders' number, kind nor order shows. No lock is needed: each
task writes its own part of a batch, and training reads a batch once all its tasks are done.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data.decoders import Decoders
from pipeline.data.photo_decoding import Pixels, TrainingViews, colour_shift
from pipeline.data.photo_shards import Photos
from pipeline.data.sampling import Batch, random_words_of
from pipeline.recipe.experiments import Experiment
from pipeline.training.feeding.normaliser import InFlight, Normaliser, host_pixels

AHEAD = 3
"""Batches after the present one that are decoded before training asks for them."""
STRIDE = 8
"""Photographs that a decoder is given at a time, at most."""


@dataclass(frozen=True)
class PendingBatch:
    """A batch that decoders are filling; its views may be read once all `tasks` are done.

    `views` [n, crop, crop, 3] are uint8, or normalised float32 where the CPU trains; `shift` [n, 3]
    is None where the row has no colour augmentation.
    """

    batch: Batch
    shift: NDArray[np.float32] | None
    views: Tensor
    tasks: list[Future[None]]
    parts: dict[int, Pixels] = field(default_factory=dict)
    """What a feed keeps of each photograph instead of views, by its position."""


class PhotoFeed:
    """The training batches of one worker, decoded ahead in the order of iterations.

    `batch_of` says which samples an iteration has on this worker, `last` is the last iteration
    worth decoding ahead for, and `decoders` end with the feed.
    """

    def __init__(
        self,
        experiment: Experiment,
        photos: Photos,
        device: torch.device,
        seed: int,
        batch_of: Callable[[int], Batch],
        last: int,
        decoders: Decoders,
    ) -> None:
        self.experiment, self.split, self.seed, self.last = experiment, photos.train, seed, last
        self.batch_of = batch_of
        self.view: Callable[[Any], Pixels] = TrainingViews(experiment)
        self.normalise = Normaliser.of(experiment, photos, device, experiment.crop)
        self.normalise_on_cpu = device.type == "cpu"
        self.decoders = decoders
        self.pending: dict[int, PendingBatch] = {}
        """Batches begun, by iteration: the one asked for last and up to `AHEAD` after it."""
        self.waited = 0.0
        """Seconds that training stood still for pixels."""
        self._prepared: tuple[Tensor, Tensor] | None = None
        self.in_flight = InFlight(device)

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

        # Wait for the decoders; an exception in one of them is raised here.
        pending_batch = self.pending[iteration]
        started = perf_counter()
        for task in pending_batch.tasks:
            task.result()
        self.waited += perf_counter() - started

        # Hand the batch over. It stays pending until training moves on: it may be measured first.
        labels = torch.from_numpy(self.split.labels[pending_batch.batch.ids].astype(np.int64))
        if self.normalise_on_cpu:
            return pending_batch.views.permute(0, 3, 1, 2), labels
        views = self.normalise(self._pixels(pending_batch), pending_batch.shift)
        return views, labels.to(self.normalise.offset.device)

    def prepare(self, iteration: int) -> None:
        """Have the iteration's batch where `assemble` finds it: on a GPU, in memory that stays."""
        self.in_flight.wait()
        batch = self.batch(iteration)
        if not batch[0].is_cuda:
            self._prepared = batch
            return
        if self._prepared is None:
            self._prepared = (torch.empty_like(batch[0]), torch.empty_like(batch[1]))
        for fixed, made in zip(self._prepared, batch, strict=True):
            fixed.copy_(made, non_blocking=True)
        self.in_flight.add()

    def assemble(self, iteration: Tensor) -> tuple[Tensor, Tensor]:
        """The batch that was prepared last, as `batch`."""
        assert self._prepared is not None, "prepare comes first"
        return self._prepared

    def _begin(self, batch: Batch) -> PendingBatch:
        """Give a batch to the decoders, a few photographs to a task, and return at once."""
        size, side, shift = len(batch.ids), self.experiment.crop, None
        # The colour's draws have a purpose of their own, so they leave the crops' draws alone.
        if self.experiment.augmentation != "none" and self.experiment.colour:
            shift = colour_shift(
                random_words_of(self.seed, batch.epochs, "colour", batch.ids),
                self.experiment.colour,
            )
        views = self._memory((size, side, side, 3))
        items = self._items(batch)
        # Small enough that each decoder has two tasks within the batches that are ahead.
        stride = max(1, min(STRIDE, AHEAD * size // (2 * self.decoders.count)))
        pending = PendingBatch(batch, shift, views, [])
        # Tasks start in order of submission, so an earlier batch is never behind a later one.
        for start in range(0, size, stride):
            receive = partial(self._receive, pending, start)
            task = self.decoders.submit(self.view, items[start : start + stride], receive)
            pending.tasks.append(task)
        return pending

    def _memory(self, shape: tuple[int, ...]) -> Tensor:
        """Memory for what the decoders make of a batch."""
        if self.normalise_on_cpu:
            return torch.empty(shape)
        return host_pixels(shape, self.normalise.offset.device)

    def _items(self, batch: Batch) -> list[Any]:
        """What `view` is given of each sample."""
        return [
            (self.split.stored(sample), words)
            for sample, words in zip(batch.ids, batch.random_words, strict=True)
        ]

    def _pixels(self, pending: PendingBatch) -> Tensor:
        """A batch's squares [n, crop, crop, 3] in uint8, once its tasks are done."""
        return pending.views

    def _receive(self, pending: PendingBatch, start: int, squares: Iterable[Pixels]) -> None:
        """In a thread: lay squares down in a batch from position `start` on."""
        views = pending.views.numpy()
        for position, pixels in enumerate(squares, start):
            if self.normalise_on_cpu:
                shift = None if pending.shift is None else pending.shift[position]
                self.normalise.into(views[position], pixels, shift)
            else:
                views[position] = pixels

    def close(self) -> None:
        """End the decoders without waiting; what they have not begun is dropped."""
        self.decoders.close()
