"""Photographs as they are tested: batches of views that are decoded ahead (Sec. 3.4)."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data.decoders import Decoders, StoredPhoto
from pipeline.data.photo_decoding import ProtocolViews
from pipeline.data.photo_shards import Photos, PhotoSplit
from pipeline.recipe.experiments import Experiment
from pipeline.training.feeding.normaliser import InFlight, Normaliser, stacked

AT_ONCE = 4
"""Photographs that a decoder is given at a time."""


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
        decoders: int,
    ) -> None:
        self.split, self.ids, self.device, self.decoders = split, ids, device, decoders
        self.views = ProtocolViews.of("center_crop", experiment)
        self.normalise = Normaliser.of(experiment, photos, device, experiment.crop)

    def __len__(self) -> int:
        return len(self.ids)

    def batches(self, numbers: Iterable[int]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Number, views [n, 3, crop, crop] and labels [n] of batches; the next is being decoded."""
        in_flight = InFlight(self.device)
        for number, ids, views in decoded_ahead(
            numbers, self.ids, self.batch_size, self.split, self.views, self.decoders
        ):
            labels = torch.from_numpy(self.split.labels[ids].astype(np.int64)).to(self.device)
            squares = stacked([square for (square,) in views], self.device)
            in_flight.wait()
            yield number, self.normalise(squares), labels
            in_flight.add()


def decoded_ahead(
    numbers: Iterable[int],
    ids: range,
    size: int,
    split: PhotoSplit,
    view: Callable[[StoredPhoto], Any],
    decoders: int,
) -> Iterator[tuple[int, NDArray[np.int64], list[Any]]]:
    """Yield batches' numbers, their samples' ids and what `view` makes of each, one batch ahead.

    Batch `number` has the samples ids[number * size : (number + 1) * size], whoever asks for it;
    `view` is called by one of so many decoders.
    """
    with closing(Decoders(decoders)) as pool:
        # Results of a process lie in memory that it uses again.
        keep = _copied if pool.in_processes else list[Any]

        def begin(number: int) -> tuple[int, NDArray[np.int64], list[Future[list[Any]]]]:
            batch_ids = np.array(ids[number * size : (number + 1) * size], dtype=np.int64)
            stored = [split.stored(sample) for sample in batch_ids]
            starts = range(0, len(stored), AT_ONCE)
            tasks = [pool.submit(view, stored[at : at + AT_ONCE], keep) for at in starts]
            return number, batch_ids, tasks

        waiting: list[tuple[int, NDArray[np.int64], list[Future[list[Any]]]]] = []
        for number in numbers:
            waiting.append(begin(number))
            # A batch is handed over once the next one is with the decoders.
            if len(waiting) > 1:
                yield _results(waiting.pop(0))
        for batch in waiting:
            yield _results(batch)


def _copied(made: Iterable[Any]) -> list[Any]:
    return deepcopy(list(made))


def _results(
    batch: tuple[int, NDArray[np.int64], list[Future[list[Any]]]],
) -> tuple[int, NDArray[np.int64], list[Any]]:
    """A batch with its tasks' results in the samples' order; waits for them."""
    number, ids, tasks = batch
    return number, ids, [made for task in tasks for made in task.result()]
