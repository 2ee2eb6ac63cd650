"""How the paper tests finished ImageNet networks: centre crop, ten crops and multi-scale.

Ten crops (Tables 2 and 3): "the standard 10-crop testing [21]"; softmax scores are averaged, as the
authors' released code does. Multi-scale (Table 4): "the fully-convolutional form as in [41, 13],
and average the scores at multiple scales (images are resized such that the shorter side is in {224,
256, 384, 480, 640})"; here softmax at each place, mean over places, then over scales, without
mirror images, which the paper does not mention. Each photograph counts once on any number of
workers.

Photographs are decoded and cut into views in threads on the CPU, scored on the device, and only
counts of errors are exchanged.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.data.photo_decoding import ProtocolViews, ViewsOfEach, decode
from pipeline.data.photo_shards import Photos
from pipeline.recipe.experiments import Experiment, Protocol
from pipeline.recipe.layers import layout
from pipeline.training.feeding.central_views import decoded_ahead
from pipeline.training.feeding.normaliser import InFlight, stacked
from pipeline.training.feeding.preprocessing import Preprocessing
from pipeline.training.step.networks import ResNet
from pipeline.training.step.precision import autocast
from pipeline.training.step.process_group import ProcessGroup

BATCH, GPU_BATCH = 50, 200
"""Photographs that are decoded, and handed to a worker, together. More on a GPU: their views at a
scale have many shapes, and only those of one shape go through the network together."""
PIXELS, GPU_PIXELS = 64 * 224 * 224, 256 * 224 * 224
"""Pixels that go through the network at once, unless a single view has more: bounds its memory."""


@dataclass(frozen=True)
class Errors:
    """Percent of `count` photographs whose class is not the first, or not among the first five."""

    top1_err: float
    top5_err: float
    count: int
    photographs_per_second: float = field(default=0.0, compare=False)
    """Over all ranks, decoding included."""


class Scorer:
    """A protocol for one experiment: a photograph's views, and a network's mean scores of them."""

    def __init__(
        self,
        protocol: Protocol,
        experiment: Experiment,
        trained_on: Photos | Preprocessing,
        device: torch.device,
    ) -> None:
        self.experiment, self.device = experiment, device
        self.looks_at = ProtocolViews.of(protocol, experiment)
        """What makes a photograph's views; scorers of equal ones share them."""
        # Views of multi-scale have any size, so their mean image is the average over all places.
        prepared = (
            trained_on
            if isinstance(trained_on, Preprocessing)
            else Preprocessing.of(experiment, trained_on)
        )
        self.normalise = prepared.normaliser(
            1 if protocol == "multi_scale" else experiment.crop, device
        )
        self.places = layout(experiment, image_size=experiment.crop).blocks[-1].convs[-1].size_out
        """Side of the last map for a crop, in places: what the global average pool sees."""

    def views(self, content: bytes) -> list[NDArray[np.uint8]]:
        """The views [height, width, 3] of an encoded photograph: crops, or all of it at scales."""
        return self.views_of(decode(content))

    def views_of(self, image: Image.Image) -> list[NDArray[np.uint8]]:
        """The views of one that is decoded."""
        return self.looks_at.of_image(image)

    def scores(self, network: ResNet, views: list[list[NDArray[np.uint8]]]) -> Tensor:
        """Mean softmax scores [n, classes] float64 of n photographs, each given by its views."""
        # Score views of one shape together, whichever photograph they are of.
        flat = [view for photo_views in views for view in photo_views]
        classes, device = network.fc.out_features, self.device
        scores = torch.empty(len(flat), classes, dtype=torch.float64, device=device)
        pixels = GPU_PIXELS if device.type == "cuda" else PIXELS
        for numbers in _same_shape_batches(flat, pixels):
            x = self.normalise(stacked([flat[number] for number in numbers], self.device))
            with autocast(self.experiment.precision, x.device):
                logits = network.dense(x, self.places)
            # Softmax at each place, then the mean over places; a crop has a single place.
            mean = logits.float().softmax(1).double().mean((2, 3))
            # Back in the order of the views.
            scores.index_copy_(0, torch.tensor(numbers, device=device), mean)

        # Each photograph's mean; all have equally many views.
        return scores.unflatten(0, (-1, len(views[0]))).mean(1)


def _same_shape_batches(views: list[NDArray[np.uint8]], pixels: int) -> Iterator[list[int]]:
    """Numbers of views of one shape, at most so many pixels at a time (or a single view)."""
    # In order of first appearance, which depends on the batch of photographs alone.
    shapes: dict[tuple[int, ...], list[int]] = {}
    for number, view in enumerate(views):
        shapes.setdefault(view.shape, []).append(number)
    for shape, numbers in shapes.items():
        size = max(1, pixels // (shape[0] * shape[1]))
        for start in range(0, len(numbers), size):
            yield numbers[start : start + size]


@torch.no_grad()
def errors_of(
    networks: list[ResNet],
    experiments: list[Experiment],
    protocol: Protocol,
    photos: Photos,
    process_group: ProcessGroup,
    threads: int,
) -> Errors:
    """A network's errors on the test split under a protocol; all ranks take part.

    Of several networks (an ensemble, Table 5) the scores are averaged; `experiments` are theirs, in
    the same order; `threads`, or as many processes, decode. Batches of fixed borders go to the
    ranks in turn, and what is counted is added up: exact on any number of workers.
    """
    for network in networks:
        network.eval()
    device = process_group.device
    scorers = [Scorer(protocol, experiment, photos, device) for experiment in experiments]
    began = perf_counter()
    size = GPU_BATCH if device.type == "cuda" else BATCH
    split, batches = photos.test, -(-len(photos.test) // size)
    # A row of [not first, not among five] for each batch; this rank fills its own.
    wrong = torch.zeros(batches, 2, dtype=torch.float64, device=device)

    # Decode a photograph once, however many networks of an ensemble look at it.
    kinds = tuple(dict.fromkeys(scorer.looks_at for scorer in scorers))

    # Score this rank's batches while the next one is decoded.
    own_batches = range(process_group.rank, batches, process_group.world_size)
    in_flight = InFlight(device)
    for number, ids, views in decoded_ahead(
        own_batches, range(len(split)), size, split, ViewsOfEach(kinds), threads
    ):
        in_flight.wait()
        parts = [
            scorer.scores(network, [of_each[kinds.index(scorer.looks_at)] for of_each in views])
            for scorer, network in zip(scorers, networks, strict=True)
        ]
        # An ensemble's score is the mean of its networks' softmax scores.
        scores = torch.stack(parts).mean(0)
        labels = torch.from_numpy(split.labels[ids].astype(np.int64)).to(scores.device)
        wrong[number] = misses(scores, labels)
        in_flight.add()

    # Add all ranks' counts up: integers in float64, so exact. A synchronisation point.
    top1_misses, top5_misses = process_group.sum_disjoint(wrong).sum(0).tolist()
    count = len(split)
    rate = count / (perf_counter() - began)
    return Errors(100 * top1_misses / count, 100 * top5_misses / count, count, rate)


def misses(scores: Tensor, labels: Tensor) -> Tensor:
    """How many photographs miss their class at top 1, and how many at top 5: float64 [2].

    `scores` are [n, classes], `labels` [n]. Of equal scores the class with the lower number comes
    first; a score that is not finite comes before all others, so a broken network misses.
    """
    # Count the classes that come before a photograph's own, instead of sorting: a sort may break
    # ties differently on another device.
    label_scores = scores.gather(1, labels[:, None])
    classes = torch.arange(scores.shape[1], device=scores.device)
    before = (
        (scores > label_scores)
        | ((scores == label_scores) & (classes < labels[:, None]))
        | ~scores.isfinite()
    )
    rank = before.sum(1)
    return torch.stack([(rank >= 1).sum(), (rank >= 5).sum()]).double()
