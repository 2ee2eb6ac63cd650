"""One iteration as a function of fixed tensors: run as it is on a CPU, replayed on a GPU.

A network of CIFAR's size is bound by the launches of its kernels. On a GPU the whole iteration
(batch, groups' forward and backward, sum over groups, running statistics, SGD) is therefore
captured once in a CUDA graph, and one launch replays it. What changes between iterations lies in
tensors on the device: the iteration's number, from which the batch follows, and the learning rate.

It is the same function in both cases, so a captured run has the bytes of one that is not. Between
several workers the exchange stays outside: one graph ends at this worker's totals, a second one
begins with the sum (collectives within graphs are known to hang).
"""

import logging
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from pipeline.errors import first_line
from pipeline.recipe.metrics import WINDOW
from pipeline.training.step.process_group import ProcessGroup
from pipeline.training.step.train_state import TrainState

WARM_UP = 3
"""Iterations before a capture: libraries choose kernels and allocate workspaces in the first."""

logger = logging.getLogger(__name__)


class Batches(Protocol):
    """Where an iteration's batch comes from."""

    def prepare(self, iteration: int) -> None:
        """Do the host's part, so that `assemble` gives this iteration's batch."""
        ...

    def assemble(self, iteration: Tensor) -> tuple[Tensor, Tensor]:
        """Views [n, 3, side, side] and labels [n], by operations on fixed tensors alone."""
        ...


class Iteration:
    """The iterations of one worker of a run, from `first` on.

    `window` [25, 2] is the ring of [loss, wrong predictions] over the whole batch, on the device.
    """

    def __init__(
        self,
        train_state: TrainState,
        batches: Batches,
        process_group: ProcessGroup,
        window: Tensor,
        first: int,
        capture: bool = True,
    ) -> None:
        device = process_group.device
        self.train_state, self.batches, self.window = train_state, batches, window
        self.process_group = process_group
        self.number = torch.tensor(first, dtype=torch.int64, device=device)
        """The iteration's number on the device; `run` is told the same by the host."""
        self.lr = torch.zeros((), device=device)
        self._rate = 0.0
        self._totals: Tensor | None = None
        self._graphs: list[torch.cuda.CUDAGraph] = []
        """One, or two where an exchange comes between its halves; none where it is not captured."""
        if capture and device.type == "cuda":
            self._capture(first)

    @property
    def captured(self) -> bool:
        """Whether iterations are replayed."""
        return bool(self._graphs)

    def run(self, iteration: int, lr: float) -> None:
        """Launch iteration `iteration` (from 0) at rate `lr`.

        Every rank calls it, for every iteration in turn. The device is waited for only where the
        batches' host part does, such as at an epoch's border.
        """
        self.batches.prepare(iteration)
        if lr != self._rate:
            # Ordered behind the iterations that were launched before: they keep their rate.
            self.lr.fill_(lr)
            self._rate = lr
        if self.process_group.world_size == 1:
            return self._launch(0, self._whole)
        self._launch(0, self._sum_groups)
        assert self._totals is not None
        self.process_group.exchange_tree(self._totals)
        self._launch(1, self._update)

    def _launch(self, part: int, function: Callable[[], None]) -> None:
        """Replay a part of the iteration, or run it as it is."""
        if self._graphs:
            self._graphs[part].replay()
        else:
            function()

    def _sum_groups(self) -> None:
        """This worker's part: batch, forward and backward of its groups, and their sum."""
        self._totals = self.train_state.totals(*self.batches.assemble(self.number))

    def _update(self) -> None:
        """What follows from the sum over all workers: statistics, weights, and the window."""
        assert self._totals is not None
        scalars = self.train_state.update(self._totals, self.lr)
        self.window.index_copy_(0, (self.number % WINDOW).view(1), scalars.view(1, 2))
        self.number.add_(1)

    def _whole(self) -> None:
        self._sum_groups()
        self._update()

    def _capture(self, first: int) -> None:
        """Capture the iteration, and leave everything that it trains as it was."""
        state = self.train_state
        trained = [state.weights, state.momentum, state.running, self.window, self.number]
        before = [tensor.clone() for tensor in trained]
        self.batches.prepare(first)
        # Within a stream of the run's own, and back to the current one whatever happens.
        current = torch.cuda.current_stream()
        own = current if current != torch.cuda.default_stream() else torch.cuda.Stream()
        own.wait_stream(current)

        def warm_up_and_capture() -> None:
            for _ in range(WARM_UP):
                self._whole()
            self._capture_on(own)

        with torch.cuda.stream(own):
            in_fewer_lanes(state, warm_up_and_capture)
        current.wait_stream(own)
        for tensor, content in zip(trained, before, strict=True):
            tensor.copy_(content)
        torch.cuda.synchronize(self.number.device)

    def _capture_on(self, stream: torch.cuda.Stream) -> None:
        """Capture what `run` launches; where that is impossible, say so and go on.

        Raises:
            torch.OutOfMemoryError: the device has no memory for it.
        """
        # Rows and drivers differ in what can be captured; all of them can be run.
        reason = ""
        try:
            self._graphs = self._captured(stream)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            # What went wrong came first: ending a capture that has failed raises once more.
            reason = _first_cause(error)
        if reason:
            logger.warning("training goes on without a CUDA graph, slower: %s", reason)
            torch.cuda.empty_cache()

    def _captured(self, stream: torch.cuda.Stream) -> list[torch.cuda.CUDAGraph]:
        """The iteration as one graph, or as two where an exchange comes between its halves."""
        alone = self.process_group.world_size == 1
        parts = [self._whole] if alone else [self._sum_groups, self._update]
        torch.cuda.synchronize(self.number.device)
        graphs, pool = [], torch.cuda.graph_pool_handle()
        for part in parts:
            graph = torch.cuda.CUDAGraph()
            # Only this thread's calls are watched: others save checkpoints and beat meanwhile.
            with torch.cuda.graph(
                graph, pool=pool, stream=stream, capture_error_mode="thread_local"
            ):
                part()
            graphs.append(graph)
        return graphs


def in_fewer_lanes(state: TrainState, launch: Callable[[], None]) -> None:
    """Launch iterations; once more with groups one after the other where memory is short.

    Raises:
        torch.OutOfMemoryError: one group at a time has no room either.
    """
    # Tried again outside of the handler: the error's frames hold the memory that was too little.
    try:
        return launch()
    except torch.OutOfMemoryError:
        if len(state.lanes) == 1:
            raise
    logger.warning("no memory for two batch-norm groups at once: they are computed in turn")
    if state.weights.is_cuda:
        torch.cuda.synchronize(state.device)
    del state.lanes[1:]
    if state.weights.is_cuda:
        torch.cuda.empty_cache()
    launch()


def _first_cause(error: BaseException) -> str:
    """The line of the error that an error followed from, if it followed from any.

    Raises:
        torch.OutOfMemoryError: that is what it was.
    """
    link = error
    while link.__context__ is not None:
        link = link.__context__
    if isinstance(link, torch.OutOfMemoryError):
        raise torch.OutOfMemoryError(str(link)) from None
    return first_line(link)
