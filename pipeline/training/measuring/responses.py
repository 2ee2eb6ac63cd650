"""Standard deviations of the layers' responses: what Figure 7 shows (Sec. 4.2).

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
    """The standard deviation of each layer's response over a split; all ranks take part.

    `layers` are names of convolutions, and the result has their order. Sums are taken in float64
    batch by batch, and added in one order: the same bytes on any number of workers.
    """
    network.eval()
    # [batches, layers, (count, sum, sum of squares)]; this rank fills the rows of its batches.
    sums = torch.zeros(
        batch_count(images), len(layers), 3, dtype=torch.float64, device=process_group.device
    )
    with responses_watched(network, layers) as response_sums:
        for number, x, _ in own_batches(images, process_group):
            with autocast(precision, x.device):
                network(x)
            sums[number] = torch.stack([response_sums[name] for name in layers])

    # Add the batches up and take the deviation of the population: E[x^2] - E[x]^2. The clamp is for
    # a layer that is constant, where rounding may leave a tiny negative number.
    count, total, squares = process_group.sum_disjoint(sums).sum(0).T
    variance = squares / count - (total / count) ** 2
    return [float(std) for std in variance.clamp(min=0).sqrt()]


@contextmanager
def responses_watched(network: ResNet, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Record [count, sum, sum of squares] (float64) of each layer's newest response.

    Yields them by the convolution's name; every forward pass inside the context replaces them. A
    layer's response is what comes out of its norm, or of the convolution where it has no norm.
    """
    response_sums: dict[str, Tensor] = {}

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        # The hook runs before the next operation, so before a ReLU overwrites the output in place.
        # It keeps three numbers instead of the output, and leaves them on the device.
        def record(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            values = output.double()
            count = torch.tensor(float(values.numel()), dtype=torch.float64, device=values.device)
            response_sums[name] = torch.stack([count, values.sum(), values.square().sum()])

        return network.get_submodule(norm_of(name)).register_forward_hook(record)

    # Take the hooks away in any case: left in place, they would slow every later step down.
    handles = [watch(name) for name in layers]
    try:
        yield response_sums
    finally:
        for handle in handles:
            handle.remove()


def norm_of(convolution: str) -> str:
    """The norm after a convolution of the main path: that of `layer1.0.conv2` is `layer1.0.bn2`.

    Where a network has no batch norm the module of that name is an identity.
    """
    block, _, name = convolution.rpartition(".")
    return f"{block}.{name.replace('conv', 'bn')}" if block else name.replace("conv", "bn")
