"""Batch norm over the recipe's groups: 64 images on CIFAR and 32 on ImageNet (Sec. 3.4, 4.2).

A pass of one group is stock batch norm, whatever the mode. A pass of several has two forms, of the
same result up to rounding. Run as it is, it is stock kernels on slices that are written in place:
nothing of the activations is copied on the way forward. Compiled, it is plain operations over a
view with one more dimension, which torch's compiler fuses with what stands around them.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class GroupBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that leaves its running statistics alone in training.

    A training pass writes the group's mean and unbiased variance into `group_mean` and `group_var`
    (shape [channels]), so that `TrainState` can average them over all groups of an iteration and
    update the running ones once: after every iteration all ranks hold the same statistics.

    With `group_size` (in images) set, a pass has several groups, one after the other in the batch:
    each is normalised by its own statistics, and `group_mean` and `group_var` become their means
    over the groups.
    """

    group_mean: Tensor
    group_var: Tensor
    group_size: int | None = None

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__(channels, eps=eps)
        # Not persistent: they are scratch space of one iteration, no part of a checkpoint.
        self.register_buffer("group_mean", torch.zeros(channels), persistent=False)
        self.register_buffer("group_var", torch.ones(channels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        statistics = (self.group_mean, self.group_var)
        if self.group_size is None or len(x) == self.group_size:
            # With momentum 1, "running" statistics are the group's: at no extra pass over x.
            return F.batch_norm(x, *statistics, self.weight, self.bias, True, 1.0, self.eps)
        if torch.compiler.is_compiling():
            return grouped_batch_norm(
                x, self.weight, self.bias, *statistics, self.group_size, self.eps
            )
        normalised: Tensor = SlicedBatchNorm.apply(
            x, self.weight, self.bias, *statistics, self.group_size, self.eps
        )
        return normalised


class SlicedBatchNorm(torch.autograd.Function):
    """Stock batch norm of each group of a batch, from and into slices of it.

    Slices of whole images are as contiguous as the batch, in either memory format.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        group_mean: Tensor,
        group_var: Tensor,
        group_size: int,
        eps: float,
    ) -> Tensor:
        """x [N, channels, height, width] normalised; statistics' means over the groups."""
        groups = len(x) // group_size
        out = torch.empty_like(x)
        # As the kernels keep them for the backward pass, a row for each group.
        precise = torch.promote_types(x.dtype, torch.float32)
        means = torch.empty(groups, x.shape[1], dtype=precise, device=x.device)
        inverse_stds = torch.empty_like(means)
        for group in range(groups):
            images = slice(group * group_size, (group + 1) * group_size)
            # With momentum 1 / number, "running" statistics are the mean of the groups so far.
            torch.native_batch_norm(
                x[images],
                weight,
                bias,
                group_mean,
                group_var,
                True,
                1.0 / (group + 1),
                eps,
                out=(out[images], means[group], inverse_stds[group]),
            )
        ctx.save_for_backward(x, weight, means, inverse_stds)
        ctx.group_size, ctx.eps = group_size, eps
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight and bias; the latter are summed over the groups in order."""
        x, weight, means, inverse_stds = ctx.saved_tensors
        of_x, of_affine = torch.empty_like(x), torch.zeros_like(means[:2])
        for group in range(len(means)):
            images = slice(group * ctx.group_size, (group + 1) * ctx.group_size)
            of_group, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
                gradient[images],
                x[images],
                weight,
                None,
                None,
                means[group],
                inverse_stds[group],
                True,
                ctx.eps,
                [True, True, True],
            )
            of_x[images] = of_group
            of_affine[0] += of_weight
            of_affine[1] += of_bias
        return of_x, of_affine[0], of_affine[1], None, None, None, None


def grouped_batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    group_mean: Tensor,
    group_var: Tensor,
    group_size: int,
    eps: float,
) -> Tensor:
    """The same as `SlicedBatchNorm`, written for a compiler: all groups in each operation."""
    groups = x.unflatten(0, (-1, group_size)).to(torch.promote_types(x.dtype, torch.float32))
    variances, means = torch.var_mean(groups, (1, 3, 4), correction=0, keepdim=True)
    # Normalise in full precision; what reads and writes memory is x's own precision.
    scale = weight.view(-1, 1, 1) * torch.rsqrt(variances + eps)
    normalised = (groups - means) * scale + bias.view(-1, 1, 1)
    with torch.no_grad():
        count = group_size * x.shape[2] * x.shape[3]
        group_mean.copy_(means.mean(0).flatten())
        group_var.copy_(variances.mean(0).flatten() * (count / (count - 1)))
    return normalised.to(x.dtype).flatten(0, 1)
