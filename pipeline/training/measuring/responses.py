"""Standard deviations of the layers' responses: what Figure 7 shows (Sec. 4.2, "Analysis of Layer
Responses").

"The responses are the outputs of each 3x3 layer, after BN and before other nonlinearity
(ReLU/addition)." The paper does not say on which images, or over what the deviation is taken. Our
reading: the test images in their single original view, running statistics, one deviation over all
images, channels and places of a layer's output.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pipeline.recipe.experiments import Precision
from pipeline.training.feeding.views import Views
from pipeline.training.measuring.evaluate import batch_count, own_batches
from pipeline.training.step.networks import ResNet
from pipeline.training.step.precision import autocast
from pipeline.training.step.process_group import ProcessGroup


@torch.no_grad()
def response_stds(
    network: ResNet,
    layers: Sequence[str],
    images: Views,
    precision: Precision,
    process_group: ProcessGroup,
) -> list[float]:
    """The standard deviation of each layer's response over a split, in the order of `layers` (names
    of convolutions).

    Sums are taken in float64 batch by batch, and added in one order: the same bytes on any number
    of workers.
    """
    network.eval()
    sums = torch.zeros(
        batch_count(images), len(layers), 3, dtype=torch.float64, device=process_group.device
    )
    with responses_watched(network, layers) as seen:
        for number, x, _ in own_batches(images, process_group):
            with autocast(precision, x.device):
                network(x)
            sums[number] = torch.stack([seen[name] for name in layers])
    count, total, squares = process_group.sum_disjoint(sums).sum(0).T
    variance = squares / count - (total / count) ** 2
    return [float(std) for std in variance.clamp(min=0).sqrt()]


@contextmanager
def responses_watched(network: ResNet, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Count, sum and sum of squares (float64) of each layer's newest response, by its convolution's
    name.

    A layer's response is what comes out of its norm, or of the convolution where there is none.
    """
    seen: dict[str, Tensor] = {}

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def look(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            values = output.double()
            count = torch.tensor(float(values.numel()), dtype=torch.float64, device=values.device)
            seen[name] = torch.stack([count, values.sum(), values.square().sum()])

        return network.get_submodule(norm_of(name)).register_forward_hook(look)

    handles = [watch(name) for name in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def norm_of(convolution: str) -> str:
    """The module after a convolution of the main path: `layer1.0.conv2` is followed by
    `layer1.0.bn2`.
    """
    block, _, own = convolution.rpartition(".")
    return f"{block}.{own.replace('conv', 'bn')}" if block else own.replace("conv", "bn")
