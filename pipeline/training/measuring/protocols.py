"""How the paper tests finished ImageNet networks: centre crop, ten crops, and fully convolutional
at several scales.

Ten crops (Tables 2 and 3): "the standard 10-crop testing [21]"; softmax scores are averaged, as the
authors' released code does. Multi-scale (Table 4): "the fully-convolutional form as in [41, 13],
and average the scores at multiple scales (images are resized such that the shorter side is in {224,
256, 384, 480, 640})"; here softmax at each place, mean over places, then over scales, without
mirror images, which the paper does not mention. Each photograph counts once on any number of
workers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data.photo_decoding import centre, decode, ten_windows, whole
from pipeline.data.photo_shards import Photos
from pipeline.recipe.experiments import Experiment, Protocol
from pipeline.recipe.layers import layout
from pipeline.training.feeding.photo_batches import Normaliser, decoded_ahead
from pipeline.training.step.networks import ResNet
from pipeline.training.step.precision import autocast
from pipeline.training.step.process_group import ProcessGroup

BATCH = 50
"""Photographs that are decoded, and handed to a worker, together."""
PIXELS = 64 * 224 * 224
"""At most so many go through the network at once, of one photograph at the least."""


@dataclass(frozen=True)
class Errors:
    """Percent of `count` photographs whose class is not the first, or not among the first five."""

    top1_err: float
    top5_err: float
    count: int


class Scorer:
    """A protocol's softmax scores of photographs: its views, made on the CPU, and what a network
    says of them.
    """

    def __init__(
        self, protocol: Protocol, experiment: Experiment, photos: Photos, device: torch.device
    ) -> None:
        self.protocol, self.experiment = protocol, experiment
        self.looks = (experiment.crop, experiment.test_side, experiment.test_sides)
        """What its views depend on, besides the photograph."""
        self.normalise = Normaliser.of(
            experiment, photos, device, 1 if protocol == "multi_scale" else experiment.crop
        )
        self.places = layout(experiment, image_size=experiment.crop).blocks[-1].convs[-1].size_out
        """Side of the last map for a crop: what the global average pool sees."""

    def views(self, content: bytes) -> list[NDArray[np.uint8]]:
        """What is looked at of a photograph: squares, or the whole of it at each scale."""
        image = decode(content)
        experiment = self.experiment
        match self.protocol:
            case "center_crop":
                return [centre(image.size, experiment.test_side, experiment.crop).of(image)]
            case "ten_crop":
                views = [
                    window.of(image)
                    for window in ten_windows(image.size, experiment.test_side, experiment.crop)
                ]
                return views + [view[:, ::-1] for view in views]
            case "multi_scale":
                return [whole(image, side) for side in experiment.test_sides]

    def scores(self, network: ResNet, views: list[list[NDArray[np.uint8]]]) -> Tensor:
        """Mean softmax scores [n, classes] float64 of photographs by their views."""
        flat = [view for one in views for view in one]
        found: dict[int, Tensor] = {}
        for chosen in _alike(flat):
            x = self.normalise(np.stack([flat[number] for number in chosen]))
            with autocast(self.experiment.precision, x.device):
                logits = network.dense(x, self.places)
            mean = logits.float().softmax(1).double().mean((2, 3))
            found |= dict(zip(chosen, mean, strict=True))
        each = len(views[0])
        return (
            torch.stack([found[number] for number in range(len(flat))])
            .unflatten(0, (-1, each))
            .mean(1)
        )


def _alike(views: list[NDArray[np.uint8]]) -> Iterator[list[int]]:
    """Numbers of views of one shape that fit through the network together."""
    shapes: dict[tuple[int, ...], list[int]] = {}
    for number, view in enumerate(views):
        shapes.setdefault(view.shape, []).append(number)
    for shape, numbers in shapes.items():
        size = max(1, PIXELS // (shape[0] * shape[1]))
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
    """A network's errors on the test split under a protocol; of several, those of the mean of their
    scores (Table 5).

    Photographs of fixed borders go to the ranks in turn, and what is counted is added up: exact on
    any number of workers.
    """
    for network in networks:
        network.eval()
    scorers = [
        Scorer(protocol, experiment, photos, process_group.device) for experiment in experiments
    ]
    split, batches = photos.test, -(-len(photos.test) // BATCH)
    wrong = torch.zeros(batches, 2, dtype=torch.float64, device=process_group.device)

    def view(sample: int) -> Any:
        content, made = split.encoded(sample), dict[Any, Any]()
        for scorer in scorers:  # networks of an ensemble that look alike share their views
            if scorer.looks not in made:
                made[scorer.looks] = scorer.views(content)
        return made

    own = range(process_group.rank, batches, process_group.world_size)
    for number, ids, views in decoded_ahead(own, range(len(split)), BATCH, view, threads):
        parts = [
            scorer.scores(network, [one[scorer.looks] for one in views])
            for scorer, network in zip(scorers, networks, strict=True)
        ]
        scores = torch.stack(parts).mean(0)
        labels = torch.from_numpy(split.labels[ids].astype(np.int64)).to(scores.device)
        wrong[number] = misses(scores, labels)
    first, five = process_group.sum_disjoint(wrong).sum(0).tolist()
    return Errors(100 * first / len(split), 100 * five / len(split), len(split))


def misses(scores: Tensor, labels: Tensor) -> Tensor:
    """How many of `scores` [n, classes] have another class first, and how many have not theirs
    among five: float64 [2].

    Of classes that score alike the one with the lower number comes first; a score that is no number
    is a miss.
    """
    own = scores.gather(1, labels[:, None])
    numbers = torch.arange(scores.shape[1], device=scores.device)
    before = (scores > own) | ((scores == own) & (numbers < labels[:, None])) | ~scores.isfinite()
    rank = before.sum(1)
    return torch.stack([(rank >= 1).sum(), (rank >= 5).sum()]).double()
