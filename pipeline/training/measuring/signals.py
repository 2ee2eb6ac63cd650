"""How signals travel: each layer's forward variance and gradient norm, at the start of training and
at its milestones.

Sec. 1 and 4.1: batch norm "ensures forward propagated signals to have non-zero variances", and "the
backward propagated gradients exhibit healthy norms". The paper shows no figure of it and does not
say how it was measured. Our reading: the first batch-norm group of the mini-batch that is trained
on next, in training mode; the variance of a layer's response (as Figure 7 has it) over images,
channels and places; the Euclidean norm of the loss's gradient by the layer's weights. Nothing that
is trained is touched.
"""

from dataclasses import replace

import torch
from torch import Tensor

from pipeline.recipe.layers import layout, main_path
from pipeline.recipe.metrics import FORWARD_VARIANCE, GRADIENT_NORM, LayerValues
from pipeline.training.measuring.responses import responses_watched
from pipeline.training.step.precision import autocast
from pipeline.training.step.train_state import TrainState


def signals(
    train_state: TrainState, batch: tuple[Tensor, Tensor], iteration: int
) -> list[LayerValues]:
    """Both quantities for every convolution of the main path, on the first group of `batch`
    (images, labels).
    """
    experiment, network = train_state.experiment, train_state.network
    layers = list(main_path(layout(experiment)))
    x, labels = (part[: experiment.bn_group] for part in batch)
    network.train()
    with (
        responses_watched(network, layers) as seen,
        autocast(experiment.precision, x.device),
    ):
        train_state.forward_backward_group(x, labels)
    count, total, squares = torch.stack([seen[name] for name in layers]).T
    variances = (squares / count - (total / count) ** 2).clamp(min=0)
    # The group's loss is divided by the number of groups, so that groups add up to the batch:
    # undone here.
    norms = [
        _gradient(network.get_parameter(f"{name}.weight")).norm() * experiment.groups
        for name in layers
    ]
    forward = LayerValues(iteration, FORWARD_VARIANCE, layers, variances.tolist())
    return [forward, replace(forward, quantity=GRADIENT_NORM, values=torch.stack(norms).tolist())]


def _gradient(weight: Tensor) -> Tensor:
    assert weight.grad is not None  # a view of the trainee's flat gradients
    return weight.grad.double()
