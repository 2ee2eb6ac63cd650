"""The networks of the paper as one torch module, built from a row's layer list (Sec. 3.3, 4.1, 4.2;
Figures 2, 3, 5).

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

INITIALISATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "he_fan_in": lambda weight: nn.init.kaiming_normal_(weight, mode="fan_in", nonlinearity="relu"),
    "he_fan_out": lambda weight: nn.init.kaiming_normal_(
        weight, mode="fan_out", nonlinearity="relu"
    ),
    "xavier": nn.init.xavier_normal_,
    "gaussian_0.01": lambda weight: nn.init.normal_(weight, std=0.01),
}


class GroupBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that leaves its running statistics alone in training.

    A training pass writes the group's mean and unbiased variance into `group_mean` and `group_var`
    (shape [channels]), so that the train loop can average them over all groups of an iteration and
    update the running ones once.

    With `group_size` set, a pass is of several groups, one after the other in the batch: each is
    normalised by its own statistics, and `group_mean` and `group_var` are their means over the
    groups.
    """

    group_mean: Tensor
    group_var: Tensor
    group_size: int | None = None

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__(channels, eps=eps)
        self.register_buffer("group_mean", torch.zeros(channels), persistent=False)
        self.register_buffer("group_var", torch.ones(channels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        if self.group_size is None or len(x) == self.group_size:
            return self._group(x, 1)
        # Groups are slices of x, whatever its memory format: only their outputs are copied, into
        # one.
        return torch.cat(
            [self._group(part, number) for number, part in enumerate(x.split(self.group_size), 1)]
        )

    def _group(self, x: Tensor, number: int) -> Tensor:
        """The pass's `number`th group, normalised; its statistics join the mean of those before it."""
        # With momentum 1 the "running" update is a copy of this group's statistics, at no extra
        # cost.
        return F.batch_norm(
            x, self.group_mean, self.group_var, self.weight, self.bias, True, 1.0 / number, self.eps
        )


class Block(nn.Module):
    """A building block of two (basic) or three (bottleneck) convolutions; ReLU after the addition
    (Figure 2).
    """

    def __init__(self, plan: BlockLayout, bn_eps: float) -> None:
        super().__init__()
        self.plan = plan
        for number, conv in enumerate(plan.convs, 1):
            self.add_module(f"conv{number}", _convolution(conv))
            self.add_module(f"bn{number}", _norm(conv, bn_eps))
        if plan.projection is not None:
            self.downsample = nn.Sequential(
                _convolution(plan.projection), _norm(plan.projection, bn_eps)
            )

    def forward(self, x: Tensor) -> Tensor:
        out, count = x, len(self.plan.convs)
        for number in range(1, count + 1):
            out = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(out))
            if number < count:
                out = F.relu(out, inplace=True)
        return F.relu(self.add_shortcut(out, x), inplace=True)

    def add_shortcut(self, out: Tensor, x: Tensor) -> Tensor:
        """`out` [N, C', H', W'] plus the block's input [N, C, H, W] by its kind of shortcut (Sec.
        3.2, 3.3).
        """
        match self.plan.shortcut:
            case "none":
                return out
            case "identity":
                return out + x
            case "projection":
                return out + self.downsample(x)
            case "pad":
                # A 1x1 average pool is the subsampling `::stride`, but goes backward in one pass
                # instead of several.
                kept = F.avg_pool2d(x, 1, self.plan.stride)
                extra = self.plan.convs[-1].channels_out - self.plan.convs[0].channels_in
                return out + F.pad(kept, (0, 0, 0, 0, 0, extra))


class ResNet(nn.Module):
    """A network of the paper, plain or residual.

    Input [N, 3, side, side] float, output logits [N, classes]. The networks are fully convolutional
    up to the global average pool, so other sides than the row's work too.
    """

    def __init__(self, experiment: Experiment, classes: int | None = None) -> None:
        super().__init__()
        plan = layout(experiment, classes=classes)
        self.conv1 = _convolution(plan.stem)
        self.bn1 = _norm(plan.stem, experiment.bn_eps)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if plan.max_pool else nn.Identity()
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
        """Logits [N, classes, height, width] of the fully convolutional form: an average pool of
        `places` by `places` with stride 1, and the classifier as a 1x1 convolution (Sec. 3.4:
        "fully-convolutional form as in [41, 13]").
        """
        weight = self.fc.weight[:, :, None, None]
        return F.conv2d(F.avg_pool2d(self.maps(x), places, stride=1), weight, self.fc.bias)


def build_network(experiment: Experiment, seed: int, classes: int | None = None) -> ResNet:
    """The row's network on the CPU with the row's initialisation, a function of `seed` alone.

    Convolutions and the classifier get the row's distribution, biases zero, batch norm gamma 1 and
    beta 0.
    """
    initialise = INITIALISATIONS[experiment.initialisation]
    with torch.random.fork_rng(devices=[]):
        network = ResNet(experiment, classes)
        torch.manual_seed(seed)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                initialise(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    return network


def _convolution(conv: Conv) -> nn.Conv2d:
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
