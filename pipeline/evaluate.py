"""Exact evaluation: each image counts once on any number of workers, and the same bytes come out (Sec. 4.2).

Batches have fixed borders and go to ranks in turn; per-batch counts and loss sums are gathered and added in one order.
The view is the single original image; batch norm uses running statistics.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from pipeline.augment import OriginalImages
from pipeline.experiments import Precision
from pipeline.networks import ResNet
from pipeline.ranks import Ranks

BATCH = 250


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


@torch.no_grad()
def evaluate(network: ResNet, images: OriginalImages, precision: Precision, ranks: Ranks) -> Score:
    """Score a network on a split, over all ranks."""
    network.eval()
    starts = range(0, len(images), BATCH)
    sums = torch.zeros(len(starts), 2, dtype=torch.float64, device=ranks.device)
    for number, start in enumerate(starts):
        if number % ranks.world_size != ranks.rank:
            continue
        x, labels = images.batch(start, BATCH)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = network(x)
        logits = logits.float()
        sums[number, 0] = (logits.argmax(1) != labels).sum()
        sums[number, 1] = F.cross_entropy(logits, labels, reduction="sum")
    wrong, loss = (sum(column) for column in zip(*ranks.sum_disjoint(sums).tolist(), strict=True))
    return Score(int(wrong), len(images), loss / len(images))
