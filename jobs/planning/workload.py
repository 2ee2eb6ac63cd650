"""How much a run computes, in images through its network: exact counts from the row and the sizes
of its dataset.
"""

from dataclasses import dataclass

from pipeline.recipe.experiments import Experiment
from pipeline.recipe.layers import layout
from pipeline.recipe.schedule import milestone

BACKWARD = 2
"""A backward pass costs twice a forward one: it convolves with the weights and with the maps."""
ASPECT = 4 / 3
"""Of a photograph, for the fully convolutional test: its longer side over its shorter one."""


@dataclass(frozen=True)
class Amount:
    """What is left of a run: SGD iterations, and images of the training size that only go forward."""

    iterations: int
    forward: float

    @property
    def nothing(self) -> bool:
        return self.iterations == 0


def amount(row: Experiment, train_images: int, test_images: int, reached: int = 0) -> Amount:
    """What a run has to compute after `reached` iterations, on a dataset of so many images."""
    moments = set(range(row.eval_every, row.iterations + 1, row.eval_every)) | {
        *row.lr_drops,
        row.iterations,
    }
    ahead = [moment for moment in moments if moment > reached]
    kept = train_images - row.holdout
    forward = 0.0 + sum(
        test_images + row.holdout + kept * milestone(row, moment) for moment in ahead
    )
    if reached < row.iterations:
        forward += test_images + row.statistics_images  # the layers' responses; averaged statistics
        forward += test_images * sum(_views(row, protocol) for protocol in row.protocols)
    return Amount(row.iterations - reached, forward)


def _views(row: Experiment, protocol: str) -> float:
    """Images of the training size that a protocol makes of a photograph, by area."""
    match protocol:
        case "ten_crop":
            return 10.0
        case "multi_scale":
            return sum(ASPECT * (side / row.crop) ** 2 for side in row.test_sides)
    return 1.0


def iteration_flops(row: Experiment) -> float:
    """Floating-point operations of an SGD iteration: two for each multiply-add, forward and
    backward.
    """
    return 2.0 * (1 + BACKWARD) * layout(row).multiply_adds * row.global_batch_size


def convolutions(row: Experiment) -> int:
    """Convolutions one after another in the network, which bound how fast small images can go
    through it.
    """
    found = layout(row)
    return 1 + sum(len(block.convs) for block in found.blocks)
