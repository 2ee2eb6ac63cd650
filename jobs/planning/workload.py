"""How much a run computes, in images through its network: exact counts, not estimates."""

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
    """What is left of a run: SGD iterations, and images that only go forward."""

    iterations: int
    forward: float
    """In images of the training size; larger ones count by their area."""

    @property
    def nothing(self) -> bool:
        return self.iterations == 0


def amount(experiment: Experiment, train_images: int, test_images: int, reached: int = 0) -> Amount:
    """What a run has to compute after `reached` iterations, on a dataset of this size."""
    # Evaluations: at regular iterations, before each drop of the learning rate, and at the end. At
    # milestones the whole training set is gone through as well.
    regular = range(experiment.eval_every, experiment.iterations + 1, experiment.eval_every)
    evaluations = {*regular, *experiment.lr_drops, experiment.iterations}
    ahead = [iteration for iteration in evaluations if iteration > reached]
    kept = train_images - experiment.holdout
    forward = 0.0 + sum(
        test_images + experiment.holdout + kept * milestone(experiment, iteration)
        for iteration in ahead
    )
    # What is measured once, of the final network: the layers' responses, averaged statistics, and
    # each protocol of the paper's tables.
    if reached < experiment.iterations:
        forward += test_images + experiment.statistics_images
        views = (_views(experiment, protocol) for protocol in experiment.protocols)
        forward += test_images * sum(views)
    return Amount(experiment.iterations - reached, forward)


def _views(experiment: Experiment, protocol: str) -> float:
    """Images of the training size that a protocol makes of a photograph, by area."""
    # By area, as a convolution costs by the pixel.
    match protocol:
        case "ten_crop":
            return 10.0
        case "multi_scale":
            return sum(ASPECT * (side / experiment.crop) ** 2 for side in experiment.test_sides)
    return 1.0


def iteration_flops(experiment: Experiment) -> float:
    """Floating-point operations of an SGD iteration, two for each multiply-add."""
    return 2.0 * (1 + BACKWARD) * layout(experiment).multiply_adds * experiment.global_batch_size


def convolutions(experiment: Experiment) -> int:
    """Convolutions one after another, which bound how fast small images go through the network."""
    return 1 + sum(len(block.convs) for block in layout(experiment).blocks)
