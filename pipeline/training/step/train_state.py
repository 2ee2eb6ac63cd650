"""The state in training, and what an iteration does to it: groups' sums, then one update.

Sec. 3.4 and 4.2. Batch-norm groups are computed one by one and summed in a fixed tree. A run trains
by `iteration.Iteration`, which calls `totals` and `update`; `TrainState.step` is the two in a row.

Everything that is summed over groups (gradients, batch statistics, loss, wrong predictions) is one
vector, so that an iteration needs one exchange. Weights are views into one vector too: SGD is a few
operations, whatever the depth.

On a GPU groups are computed side by side, in lanes (`pipeline.training.step.lanes`).

That is exact: the same bytes for any number of workers. `one_pass` is the alternative for GPUs: all
groups of a worker in one forward and backward pass, the same sums up to the order of addition. A
worker with a single group makes the exact step either way. `compiled` has torch's compiler fuse
kernels: the same up to rounding. Both are off by default.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from pipeline.recipe.experiments import Experiment
from pipeline.training.step.batch_norm import GroupBatchNorm2d
from pipeline.training.step.lanes import LANES, Lane, rounded_parameters, side_by_side
from pipeline.training.step.networks import ResNet
from pipeline.training.step.precision import autocast
from pipeline.training.step.process_group import ProcessGroup, sum_subtree

GROUP_STATISTICS = ("group_mean", "group_var")
"""The buffers of a norm that a group's pass writes, in the order that they are laid out in."""


class TrainState:
    """A network in training: its weights, momentum and running statistics as flat fp32 vectors.

    `totals` layout: gradients [weights], group means and unbiased variances [2 x channels], loss,
    wrong predictions.
    """

    def __init__(
        self,
        experiment: Experiment,
        network: ResNet,
        device: torch.device,
        one_pass: bool = False,
        compiled: bool = False,
        lanes: int | None = None,
    ) -> None:
        self.experiment, self.device = experiment, device
        self.one_pass, self.compiled = one_pass, compiled
        self.network = network.to(device)
        # One program for forward and one for backward, of fixed shapes; tests of the network and
        # its state go by the network itself, which shares all of its tensors.
        self.forward: Callable[[Tensor], Tensor] = (
            torch.compile(self.network, dynamic=False) if compiled else self.network
        )
        self.parameters = list(self.network.parameters())
        self.norms = [
            module for module in self.network.modules() if isinstance(module, GroupBatchNorm2d)
        ]
        for norm in self.norms:
            norm.group_size = experiment.bn_group if one_pass else None
        self.weights = _flatten(self.parameters)
        self.momentum = torch.zeros_like(self.weights)
        self.statistics = _flatten_buffers(self.norms, device, *GROUP_STATISTICS)
        self.running = _flatten_buffers(self.norms, device, "running_mean", "running_var")
        self.decay = _decay(experiment, self.parameters)
        # The first lane's gradients are the network's own.
        if lanes is None:
            beside = device.type == "cuda" and not one_pass and not compiled
            lanes = min(LANES, experiment.groups) if beside else 1
        self.lanes = [self._lane(own=number == 0) for number in range(lanes)]
        for parameter, gradient in zip(self.parameters, self.lanes[0].gradient_views, strict=True):
            parameter.grad = gradient
        # Each weight that autocast would round is rounded with all others, by one kernel.
        rounds = experiment.precision == "bf16" and not compiled
        self._rounded = rounded_parameters(network) if rounds else set[str]()

    def forward_backward_group(
        self,
        x: Tensor,
        labels: Tensor,
        lane: Lane | None = None,
        leaves: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Forward and backward of one batch-norm group; its share of every sum, a new vector.

        With `one_pass` the images are several groups. The loss is a group's mean divided by the
        number of groups, so that the tree's sum is the batch's mean. `leaves` are those of this
        iteration, where they have been made already.
        """
        lane, leaves = lane or self.lanes[0], self._leaves() if leaves is None else leaves
        here = len(labels) // self.experiment.bn_group
        stands_in = {name: leaves[name] for name in self._rounded} | lane.buffers
        # Where nothing stands in for the network's own tensors, it is called as it is.
        logits = functional_call(self.network, stands_in, x) if stands_in else self.forward(x)
        loss = F.cross_entropy(logits.float(), labels) / (self.experiment.groups / here)
        lane.keep(torch.autograd.grad(loss, list(leaves.values())))
        wrong = (logits.argmax(1) != labels).sum()
        scalars = torch.stack([loss.detach(), wrong.float()])
        statistics = lane.statistics if here == 1 else lane.statistics * here
        return torch.cat([lane.gradients, statistics, scalars])

    def totals(self, x: Tensor, labels: Tensor) -> Tensor:
        """Forward and backward of this rank's groups; their sums as one new vector.

        Views [n, 3, side, side] and labels [n] are of a power of two of groups, in order.
        """
        self.network.train()
        leaves = self._leaves()
        with autocast(self.experiment.precision, self.device):
            groups = self._groups(x, labels, leaves)
            if len(self.lanes) == 1 or len(labels) == self.experiment.bn_group:
                return sum_subtree(groups)
            # All groups are launched before any is waited for.
            with side_by_side(self.lanes):
                launched = list(groups)
            return sum_subtree(launched)

    def update(self, totals: Tensor, lr: Tensor) -> Tensor:
        """Running statistics and weights from the sums over all groups of all ranks.

        `lr` [] is on the device. Returns [loss, wrong predictions] over the whole batch, a view of
        `totals`, which is used up.
        """
        gradients, statistics, scalars = totals.split([len(self.weights), len(self.statistics), 2])
        self._update_running(statistics)
        sgd_update(self.experiment, self.weights, self.momentum, gradients, self.decay, lr)
        return scalars

    def step(self, batch: tuple[Tensor, Tensor], lr: float, process_group: ProcessGroup) -> Tensor:
        """One iteration on this rank's images (views, labels); returns what `update` does.

        For whoever has a batch in hand, such as benchmarks. The train loop calls `Iteration.run`.
        """
        totals = process_group.exchange_tree(self.totals(*batch))
        return self.update(totals, torch.tensor(lr, device=self.device))

    @torch.no_grad()
    def average_statistics(
        self, batches: Iterable[tuple[Tensor, Tensor]], process_group: ProcessGroup
    ) -> None:
        """Replace the running statistics by plain averages over all groups of these batches.

        "strictly computed using average (not moving average) on a sufficiently large training batch
        after the training procedure": so the authors of their released networks, of group means and
        here of unbiased group variances.
        """
        self.network.train()
        total, count = torch.zeros_like(self.running, dtype=torch.float64), 0
        with autocast(self.experiment.precision, process_group.device):
            for x, _ in batches:
                total += process_group.sum_tree(self._statistics(x))
                count += self.experiment.groups
        self.running.copy_(total / count)

    def _statistics(self, x: Tensor) -> Iterator[Tensor]:
        """The statistics of each batch-norm group of a worker's images, a new vector each.

        With `one_pass` they are those of several groups at once.
        """
        size = len(x) if self.one_pass else self.experiment.bn_group
        for start in range(0, len(x), size):
            self.forward(x[start : start + size])
            yield self.statistics * (size // self.experiment.bn_group)

    def _groups(self, x: Tensor, labels: Tensor, leaves: dict[str, Tensor]) -> Iterator[Tensor]:
        """Each group's share of the sums, computed in the lanes in turn."""
        size = len(labels) if self.one_pass else self.experiment.bn_group
        for number, start in enumerate(range(0, len(labels), size)):
            lane, images = self.lanes[number % len(self.lanes)], slice(start, start + size)
            with lane.running():
                sums = self.forward_backward_group(x[images], labels[images], lane, leaves)
            yield sums

    def _leaves(self) -> dict[str, Tensor]:
        """What gradients are taken by: the parameters by name, rounded where autocast would do it.

        A weight's gradient then comes in its rounded precision, and becomes fp32 as it is kept:
        the same bytes, without a kernel for each weight.
        """
        leaves: dict[str, Tensor] = dict(self.network.named_parameters())
        if self._rounded:
            rounded = self.weights.to(torch.bfloat16)
            for name, view in zip(leaves, _views(rounded, self.parameters), strict=True):
                if name in self._rounded:
                    leaves[name] = view.requires_grad_()
        return leaves

    def _lane(self, own: bool) -> Lane:
        """A lane that writes the network's own statistics, or others in their place."""
        gradients, buffers = torch.zeros_like(self.weights), dict[str, Tensor]()
        statistics = self.statistics if own else self.statistics.clone()
        if not own:
            views = _norm_views(statistics, self.norms, GROUP_STATISTICS)
            of_module = {id(norm): name for name, norm in self.network.named_modules()}
            buffers = {f"{of_module[id(norm)]}.{name}": view for norm, name, view in views}
        of_parameters = list(_views(gradients, self.parameters))
        return Lane(gradients, of_parameters, statistics, buffers, first=own)

    def _update_running(self, sums: Tensor) -> None:
        """One update from the mean over all groups, once an iteration.

        So every rank holds the same running statistics.
        """
        self.running.lerp_(sums / self.experiment.groups, self.experiment.bn_momentum)


def sgd_update(
    experiment: Experiment,
    weights: Tensor,
    momentum: Tensor,
    gradients: Tensor,
    decay: Tensor,
    lr: Tensor,
) -> None:
    """One step of SGD with momentum m and weight decay, in place; `gradients` is used up.

    The rate `lr` [] is a tensor, so that a captured iteration can change it. `addcmul_` rounds as
    `add_(alpha=lr)` does; `gradients * lr` and then `add_` would not (one rounding more).

    Caffe's form, which the authors used, keeps the rate inside the buffer: v = m v + lr g, w -= v.
    Torch's keeps it out: v = m v + g, w -= lr v. They agree at a constant rate and differ for a
    while after each drop.
    """
    gradients.addcmul_(weights, decay)
    momentum.mul_(experiment.momentum)
    if experiment.sgd == "caffe":
        momentum.addcmul_(gradients, lr)
        weights.sub_(momentum)
    else:
        momentum.add_(gradients)
        weights.addcmul_(momentum, lr, value=-1)


def _flatten(parameters: list[nn.Parameter]) -> Tensor:
    """Lay parameters out in one vector, convolutions channels last, each a view of its part."""
    flat = torch.empty(
        sum(parameter.numel() for parameter in parameters), device=parameters[0].device
    )
    for parameter, view in zip(parameters, _views(flat, parameters), strict=True):
        view.copy_(parameter.data)
        parameter.data = view
    return flat


def _views(flat: Tensor, parameters: list[nn.Parameter]) -> Iterator[Tensor]:
    start = 0
    for parameter in parameters:
        part = flat[start : start + parameter.numel()]
        if parameter.dim() == 4:
            out, inputs, height, width = parameter.shape
            yield part.view(out, height, width, inputs).permute(0, 3, 1, 2)
        else:
            yield part.view(parameter.shape)
        start += parameter.numel()


def _flatten_buffers(norms: list[GroupBatchNorm2d], device: torch.device, *names: str) -> Tensor:
    """Batch-norm buffers as views of one vector: all of the first name, then all of the second."""
    if not norms:
        return torch.zeros(0, device=device)
    flat = torch.cat([getattr(norm, name) for name in names for norm in norms])
    for norm, name, view in _norm_views(flat, norms, names):
        setattr(norm, name, view)
    return flat


def _norm_views(
    flat: Tensor, norms: list[GroupBatchNorm2d], names: Sequence[str]
) -> Iterator[tuple[GroupBatchNorm2d, str, Tensor]]:
    """Each norm's part of a vector that is laid out as `_flatten_buffers` does it."""
    start = 0
    for name in names:
        for norm in norms:
            yield norm, name, flat[start : start + norm.num_features]
            start += norm.num_features


def _decay(experiment: Experiment, parameters: list[nn.Parameter]) -> Tensor:
    """Weight decay of each element: of convolution and classifier weights only, or of all."""
    everything = experiment.weight_decay_scope == "all"
    rates = [
        experiment.weight_decay * (everything or parameter.dim() > 1) for parameter in parameters
    ]
    parts = [
        torch.full((p.numel(),), rate, device=p.device)
        for p, rate in zip(parameters, rates, strict=True)
    ]
    return torch.cat(parts)
