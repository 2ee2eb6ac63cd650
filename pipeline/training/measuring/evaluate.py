"""Exact evaluation: each image counts once on any number of workers, and the same bytes come out
(Sec. 4.2).

Batches have fixed borders and go to ranks in turn; per-batch counts and loss sums are gathered and
added in one order. The view is the single original image; batch norm uses running statistics.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.recipe.experiments import Precision
from pipeline.training.feeding.views import Views
from pipeline.training.step.networks import ResNet
from pipeline.training.step.precision import autocast
from pipeline.training.step.process_group import ProcessGroup


@dataclass(frozen=True)
class Score:
    """`wrong` of `count` images, and their mean cross-entropy in nats."""

    wrong: int
    count: int
    loss: float

    @property
    def top1_err(self) -> float:
        """Percent error."""
        return 100 * self.wrong / self.count


def batch_count(images: Views) -> int:
    """Batches in a split; the last one may be short."""
    return -(-len(images) // images.batch_size)


def own_batches(images: Views, process_group: ProcessGroup) -> Iterator[tuple[int, Tensor, Tensor]]:
    """The batches of a split that fall to this rank: number, views [n, 3, side, side] and labels
    [n].
    """
    return images.batches(range(process_group.rank, batch_count(images), process_group.world_size))


@torch.no_grad()
def evaluate(
    network: ResNet, images: Views, precision: Precision, process_group: ProcessGroup
) -> Score:
    """Score a network on a split, over all ranks."""
    network.eval()
    sums = torch.zeros(batch_count(images), 2, dtype=torch.float64, device=process_group.device)
    for number, x, labels in own_batches(images, process_group):
        with autocast(precision, x.device):
            logits = network(x)
        logits = logits.float()
        sums[number, 0] = (logits.argmax(1) != labels).sum()
        sums[number, 1] = F.cross_entropy(logits, labels, reduction="sum")
    wrong, loss = (
        sum(column) for column in zip(*process_group.sum_disjoint(sums).tolist(), strict=True)
    )
    return Score(int(wrong), len(images), loss / len(images))
