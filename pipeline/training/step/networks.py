"""The paper's networks as one torch module built from a layer list (Sec. 3.3, 4.1, 4.2).

Figures 2, 3 and 5 show them; `pipeline.recipe.layers.layout` is the list, made from a row alone.
Plain or residual, basic or bottleneck, shortcuts A, B or C, batch norm or none: all are values of
the layout, none is a class of its own. State-dict names are torchvision's. Training and checkpoints
live elsewhere.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.recipe.experiments import Experiment
from pipeline.recipe.layers import BlockLayout, Conv, layout
from pipeline.training.step.batch_norm import GroupBatchNorm2d

INITIALISATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "he_fan_in": lambda weight: nn.init.kaiming_normal_(weight, mode="fan_in", nonlinearity="relu"),
    "he_fan_out": lambda weight: nn.init.kaiming_normal_(
        weight, mode="fan_out", nonlinearity="relu"
    ),
    "xavier": nn.init.xavier_normal_,
    "gaussian_0.01": lambda weight: nn.init.normal_(weight, std=0.01),
}
"""Fills a weight in place, by the name that a row's `initialisation` has."""


class Block(nn.Module):
    """A building block of two (basic) or three (bottleneck) convolutions and its shortcut.

    ReLU comes after the addition (Figure 2).
    """

    def __init__(self, plan: BlockLayout, bn_eps: float) -> None:
        super().__init__()
        self.plan = plan
        # The names are torchvision's: conv1, bn1, conv2, ..., downsample.0, downsample.1.
        for number, conv in enumerate(plan.convs, 1):
            self.add_module(f"conv{number}", _convolution(conv))
            self.add_module(f"bn{number}", _norm(conv, bn_eps))
        if plan.projection is not None:
            self.downsample = nn.Sequential(
                _convolution(plan.projection), _norm(plan.projection, bn_eps)
            )

    def forward(self, x: Tensor) -> Tensor:
        out, count = x, len(self.plan.convs)
        # ReLU works in place to save memory: the backward pass needs its output alone.
        for number in range(1, count + 1):
            out = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(out))
            if number < count:
                out = F.relu(out, inplace=True)
        return F.relu(self.add_shortcut(out, x), inplace=True)

    def add_shortcut(self, out: Tensor, x: Tensor) -> Tensor:
        """Add the shortcut from the block's input x [N, C, H, W] to `out` [N, C', H', W'].

        The four kinds are those of Sec. 3.2 and 3.3; `none` is a plain network's.
        """
        match self.plan.shortcut:
            case "none":
                return out
            case "identity":
                return out + x
            case "projection":
                return out + self.downsample(x)
            case "pad":
                # A 1x1 average pool is the subsampling `::stride`, but its backward is one pass
                # over the gradient instead of several.
                subsampled = F.avg_pool2d(x, 1, self.plan.stride)
                # Option A: the new channels come last and are zero. No parameter is added.
                extra = self.plan.convs[-1].channels_out - self.plan.convs[0].channels_in
                return out + F.pad(subsampled, (0, 0, 0, 0, 0, extra))


class ResNet(nn.Module):
    """A network of the paper, plain or residual.

    Input [N, 3, side, side] float, output logits [N, classes]. The networks are fully convolutional
    up to the global average pool, so other sides than the row's work too. `classes` replaces the
    number that the row's family has.
    """

    def __init__(self, experiment: Experiment, classes: int | None = None) -> None:
        super().__init__()
        plan = layout(experiment, classes=classes)
        # The stem: 3x3 for CIFAR; 7x7 with stride 2 and a max pool for ImageNet.
        self.conv1 = _convolution(plan.stem)
        self.bn1 = _norm(plan.stem, experiment.bn_eps)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if plan.max_pool else nn.Identity()
        # The stages, one for each size of the maps: three for CIFAR, four for ImageNet.
        self.stages = [f"layer{index}" for index in range(1, len(plan.stages) + 1)]
        for name, stage in zip(self.stages, plan.stages, strict=True):
            self.add_module(
                name, nn.Sequential(*(Block(block, experiment.bn_eps) for block in stage))
            )
        self.fc = nn.Linear(plan.classifier.channels_in, plan.classifier.channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.adaptive_avg_pool2d(self.maps(x), 1).flatten(1))

    def maps(self, x: Tensor) -> Tensor:
        """The last maps [N, channels, height, width], before the average pool."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        for name in self.stages:
            x = getattr(self, name)(x)
        return x

    def dense(self, x: Tensor, places: int) -> Tensor:
        """Logits [N, classes, height, width] of the "fully-convolutional form" (Sec. 3.4).

        An average pool of `places` by `places` with stride 1 takes the place of the global one, and
        the classifier is a 1x1 convolution. Where the last map is `places` wide, as it is for the
        row's crop, this is `forward` with height and width 1.
        """
        weight = self.fc.weight[:, :, None, None]
        return F.conv2d(F.avg_pool2d(self.maps(x), places, stride=1), weight, self.fc.bias)


def build_network(experiment: Experiment, seed: int, classes: int | None = None) -> ResNet:
    """The row's network on the CPU with the row's initialisation, a function of `seed` alone.

    Convolutions and the classifier get the row's distribution, biases zero, batch norm gamma 1 and
    beta 0. The process's random state is left as it was.
    """
    initialise = INITIALISATIONS[experiment.initialisation]
    # Always on the CPU and in the order of the modules: another order, or a device's generator,
    # would draw other weights from the same seed.
    with torch.random.fork_rng(devices=[]):
        network = ResNet(experiment, classes)
        # Seeded only now, because torch's own initialisation has drawn random numbers as well.
        torch.manual_seed(seed)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                initialise(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    return network


def _convolution(conv: Conv) -> nn.Conv2d:
    # A bias before a norm would be subtracted again with the mean.
    return nn.Conv2d(
        conv.channels_in,
        conv.channels_out,
        conv.kernel,
        conv.stride,
        padding=conv.kernel // 2,
        bias=not conv.norm,
    )


def _norm(conv: Conv, eps: float) -> nn.Module:
    return GroupBatchNorm2d(conv.channels_out, eps) if conv.norm else nn.Identity()
