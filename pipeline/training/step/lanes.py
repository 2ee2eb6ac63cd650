"""Lanes: where a batch-norm group's pass writes, so that groups can be computed side by side.

Groups depend on nothing of each other until their sums are added. On a GPU a group of CIFAR's size
leaves most of the device idle, so each lane has a stream of its own and the groups take lanes in
turn. What is added to what, and in which order, stays the same: so do the bytes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

LANES = 2
"""On a GPU, at most: more would hold the activations of as many groups at once."""


class Lane:
    """What one group's pass writes: its gradients and batch statistics, as flat fp32 vectors.

    `gradient_views` are one view of `gradients` for each parameter; `buffers` name the views of
    `statistics` that stand in for the network's own, none in the first lane.
    """

    def __init__(
        self,
        gradients: Tensor,
        gradient_views: Sequence[Tensor],
        statistics: Tensor,
        buffers: Mapping[str, Tensor],
        first: bool,
    ) -> None:
        self.gradients, self.gradient_views = gradients, list(gradient_views)
        self.statistics, self.buffers = statistics, dict(buffers)
        # The first lane is the caller's stream.
        aside = not first and gradients.is_cuda
        self._stream = torch.cuda.Stream(gradients.device) if aside else None

    def keep(self, gradients: Iterable[Tensor]) -> None:
        """Write a pass's gradients, one for each parameter and of any precision."""
        # A kernel for all of a kind: one for each parameter would take longer than its copying.
        kinds: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
        for view, gradient in zip(self.gradient_views, gradients, strict=True):
            views, values = kinds.setdefault(gradient.dtype, ([], []))
            views.append(view)
            values.append(gradient)
        for views, values in kinds.values():
            torch._foreach_copy_(views, values)

    def running(self) -> AbstractContextManager[object]:
        """The context in which this lane's group is launched."""
        return torch.cuda.stream(self._stream) if self._stream else nullcontext()

    def begin(self) -> None:
        """Let what is launched in this lane wait for all that the caller's stream has launched."""
        if self._stream:
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))

    def end(self) -> None:
        """Let what the caller's stream launches next wait for this lane."""
        if self._stream:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)


@contextmanager
def side_by_side(lanes: Sequence[Lane]) -> Iterator[None]:
    """Lanes run beside each other inside, and the caller's stream goes on when all are done."""
    for lane in lanes:
        lane.begin()
    # Also where something fails: what the lanes still read goes back to the caller's stream.
    try:
        yield
    finally:
        for lane in lanes:
            lane.end()


def rounded_parameters(network: nn.Module) -> set[str]:
    """The names of the parameters that autocast rounds: those of convolutions and classifiers."""
    return {
        f"{name}.{own}" if name else own
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
        for own, _ in module.named_parameters(recurse=False)
    }
