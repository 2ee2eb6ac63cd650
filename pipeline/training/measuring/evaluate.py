"""Exact evaluation: each image counts once, the same bytes on any number of workers (Sec. 4.2).

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
    """`wrong` of a split's `count` images, and `loss`, their mean cross-entropy in nats."""

    wrong: int
    count: int
    loss: float

    @property
    def top1_err(self) -> float:
        """The top-1 error in percent."""
        return 100 * self.wrong / self.count


def batch_count(images: Views) -> int:
    """The number of batches in a split; the last one may be short, and nothing is padded."""
    return -(-len(images) // images.batch_size)


def own_batches(images: Views, process_group: ProcessGroup) -> Iterator[tuple[int, Tensor, Tensor]]:
    """This rank's batches of a split: number, views [n, 3, side, side] and labels [n].

    Rank r takes batches r, r + world_size, ...; where a batch begins does not depend on the world
    size, because a batch of another size may round its logits otherwise.
    """
    return images.batches(range(process_group.rank, batch_count(images), process_group.world_size))


@torch.no_grad()
def evaluate(
    network: ResNet, images: Views, precision: Precision, process_group: ProcessGroup
) -> Score:
    """Score a network on a split; all ranks take part and get the same score."""
    # Running statistics, so that an image's logits do not depend on the others of its batch.
    network.eval()
    # A row for each batch of the whole split; this rank fills its own, the others' stay zero.
    sums = torch.zeros(batch_count(images), 2, dtype=torch.float64, device=process_group.device)
    for number, x, labels in own_batches(images, process_group):
        with autocast(precision, x.device):
            logits = network(x)
        # Counts and losses stay on the device: no batch is a synchronisation point.
        logits = logits.float()
        sums[number, 0] = (logits.argmax(1) != labels).sum()
        sums[number, 1] = F.cross_entropy(logits, labels, reduction="sum")
    # Gather the rows and add them in the order of batches on the host, the same on every rank: the
    # one synchronisation point.
    wrong, loss = (
        sum(column) for column in zip(*process_group.sum_disjoint(sums).tolist(), strict=True)
    )
    return Score(int(wrong), len(images), loss / len(images))
