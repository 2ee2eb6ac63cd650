"""How signals travel: each layer's forward variance and gradient norm, at a run's milestones.

Sec. 1 and 4.1: batch norm "ensures forward propagated signals to have non-zero variances", and "the
backward propagated gradients exhibit healthy norms". The paper shows no figure of it and does not
say how it was measured. Our reading: the first batch-norm group of the mini-batch that is trained
on next, in training mode; the variance of a layer's response (as Figure 7 has it) over images,
channels and places; the same before batch norm, where no norm keeps it from vanishing; the
Euclidean norm of the loss's gradient by the layer's weights. Weights, momentum and running
statistics stay as they are.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pipeline.recipe.layers import layout, main_path
from pipeline.recipe.metrics import (
    CONVOLUTION_VARIANCE,
    FORWARD_VARIANCE,
    GRADIENT_NORM,
    LayerValues,
)
from pipeline.training.measuring.responses import responses_watched
from pipeline.training.step.networks import ResNet
from pipeline.training.step.precision import autocast
from pipeline.training.step.train_state import TrainState


def signals(
    train_state: TrainState, batch: tuple[Tensor, Tensor], iteration: int
) -> list[LayerValues]:
    """The three quantities of every convolution of the main path, on the first group of a batch.

    `batch` is (images [n, 3, side, side], labels [n]). Rank 0 alone calls it, since its first group
    is the batch's, whatever the world size. A synchronisation point.
    """
    # Take the first batch-norm group: exactly the pass that the next iteration begins with.
    experiment, network = train_state.experiment, train_state.network
    layers = list(main_path(layout(experiment)))
    x, labels = (part[: experiment.bn_group] for part in batch)
    network.train()

    # Run forward and backward, without a step. What this leaves in the gradients and the group's
    # statistics is scratch space that the next iteration overwrites.
    with (
        responses_watched(network, layers) as response_sums,
        _convolutions_watched(network, layers) as convolution_variances,
        autocast(experiment.precision, x.device),
    ):
        train_state.forward_backward_group(x, labels)

    # Forward: the variance of each response, and of what batch norm made it from.
    count, total, squares = torch.stack([response_sums[name] for name in layers]).T
    variances = (squares / count - (total / count) ** 2).clamp(min=0)
    before_norm = torch.stack([convolution_variances[name] for name in layers])

    # Backward: the norm of each weight's gradient. The group's loss was divided by the number of
    # groups, so that groups add up to the batch: undone here.
    norms = [
        _gradient(network.get_parameter(f"{name}.weight")).norm() * experiment.groups
        for name in layers
    ]
    by_quantity = {
        FORWARD_VARIANCE: variances,
        CONVOLUTION_VARIANCE: before_norm,
        GRADIENT_NORM: torch.stack(norms),
    }
    return [
        LayerValues(iteration, quantity, layers, values.tolist())
        for quantity, values in by_quantity.items()
    ]


@contextmanager
def _convolutions_watched(network: ResNet, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Record the variance (float64) of each convolution's newest output, by its name.

    Over images and places, and the mean over channels: what differs between channels alone is the
    same for every image, and so carries no signal.
    """
    variances: dict[str, Tensor] = {}

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def record(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            variances[name] = output.detach().double().var(dim=(0, 2, 3), correction=0).mean()

        return network.get_submodule(name).register_forward_hook(record)

    # Take the hooks away in any case: left in place, they would slow every later step down.
    handles = [watch(name) for name in layers]
    try:
        yield variances
    finally:
        for handle in handles:
            handle.remove()


def _gradient(weight: Tensor) -> Tensor:
    # Never None: TrainState makes it a view of its flat gradient vector. float64 keeps the sum of
    # many small squares accurate.
    assert weight.grad is not None
    return weight.grad.double()
