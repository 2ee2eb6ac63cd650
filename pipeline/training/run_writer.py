"""A run's folder, seen from its loop: what is restored at the start, written on the way, and
written last.

Saving is asynchronous: at an iteration's border the state is cloned on its device, which is all
that training waits for, and a thread writes the clone. Storage that cannot be written is tried
again while training goes on, for a while.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from statistics import median
from time import monotonic, perf_counter, sleep, time
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from pipeline.errors import StorageLostError, first_line
from pipeline.recipe.schedule import milestone
from pipeline.runs.checkpoint import Checkpoint, newest_checkpoint, read_checkpoint, save_checkpoint
from pipeline.runs.history import History
from pipeline.runs.lease import LostRunError, WriterClaim
from pipeline.runs.run import Run, write_heartbeat, write_result
from pipeline.storage import Storage
from pipeline.training.measuring.clock import Clock
from pipeline.training.step.process_group import ProcessGroup
from pipeline.training.step.train_state import TrainState
from pipeline.training.step.weights import load_weights, read_tensors, weights_bytes

HEARTBEAT_SECONDS = 2.0
PATIENCE_SECONDS = 60.0
"""How long a checkpoint that storage does not take is tried again before the run stops."""
RETRY_SECONDS = 2.0

logger = logging.getLogger(__name__)


class RunWriter:
    """Rank 0 writes; every rank restores the same checkpoint.

    `holder` names the lease under which it writes (`pipeline.runs.lease`); without one nobody else
    is expected.
    """

    def __init__(
        self,
        storage: Storage,
        run: Run,
        classes: int,
        process_group: ProcessGroup,
        seconds: float,
        holder: str = "",
    ) -> None:
        self.storage, self.run, self.classes, self.process_group = (
            storage,
            run,
            classes,
            process_group,
        )
        self.seconds = seconds
        self.saved = self.beaten = perf_counter()
        self.stalls: list[float] = []
        """Seconds that training stood still for each checkpoint."""
        self._writer = WriterClaim(storage, run, holder)
        self._saving, self._beating = (
            ThreadPoolExecutor(1, "checkpoint"),
            ThreadPoolExecutor(1, "heartbeat"),
        )
        self._checkpoint: Future[None] | None = None
        self._beat: Future[None] | None = None

    def restore(self, train_state: TrainState) -> History:
        """Load the newest checkpoint that verifies, if there is one; rank 0 decides which it is,
        and becomes the writer.

        Raises:
            LostRunError: another holds the run.
        """
        newest = None
        if self.process_group.rank == 0:
            self._writer.claim()
            newest = newest_checkpoint(self.storage, self.run)
        chosen = torch.tensor(
            [newest.iteration if newest else 0], dtype=torch.int64, device=self.process_group.device
        )
        iteration = int(self.process_group.sum_disjoint(chosen).item())
        if not iteration:
            return History()
        checkpoint = newest or read_checkpoint(self.storage, self.run, iteration)
        if checkpoint is None:
            raise OSError(
                f"checkpoint {iteration} of {self.run} verified on rank 0 but cannot be read here"
            )
        load_weights(
            train_state.network,
            self.run.experiment,
            self.classes,
            checkpoint.files["weights.safetensors"],
            str(self.run),
        )
        tensors, _ = read_tensors(checkpoint.files["momentum.safetensors"], str(self.run))
        train_state.momentum.copy_(tensors["momentum"])
        return History.from_json(checkpoint.files["history.json"])

    def beat(self, history: History, clock: Clock) -> None:
        """Write the heartbeat, if it is time."""
        if self.process_group.rank or perf_counter() - self.beaten < HEARTBEAT_SECONDS:
            return
        self.beaten = perf_counter()
        if (
            self._beat is None or self._beat.done()
        ):  # one that is under way in a slow storage is not queued behind
            rate = clock.rate(history.iteration, running=True)
            self._beat = self._beating.submit(self._write_beat, history.iteration, rate)

    def _write_beat(self, iteration: int, rate: float) -> None:
        with suppress(OSError, LostRunError):  # a heartbeat that is lost costs nothing
            self._writer.check()
            write_heartbeat(self.storage, self.run, iteration, rate, int(1000 * time()))

    def due(self, history: History) -> bool:
        """Whether to save now: at milestones in any case, else when it is time and the one before
        is written.

        With 0 seconds between checkpoints, that is after every iteration, and training waits for
        storage.

        Raises:
            StorageLostError, LostRunError: the one before could not be written.
        """
        if self.process_group.rank:
            return False
        if self._checkpoint is not None and self._checkpoint.done():
            self._checkpoint.result()
            self._checkpoint = None
        if self.seconds == 0 or milestone(self.run.experiment, history.iteration):
            return True
        return self._checkpoint is None and perf_counter() - self.saved >= self.seconds

    def save(self, train_state: TrainState, history: History, window: Tensor) -> None:
        """Clone the state at this iteration's border and have it written; waits for one that is
        still being written.
        """
        if self.process_group.rank:
            return
        self.wait()
        started = perf_counter()
        tensors = {
            name: tensor.detach().clone()
            for name, tensor in train_state.network.state_dict().items()
        }
        momentum, seen = train_state.momentum.clone(), window.clone()
        now = replace(
            history,
            points=[*history.points],
            layers=[*history.layers],
            attempts=[{**a} for a in history.attempts],
        )
        if train_state.momentum.is_cuda:
            torch.cuda.synchronize(train_state.momentum.device)
        self.saved = perf_counter()
        self.stalls.append(self.saved - started)

        def files() -> dict[str, bytes]:
            now.window = seen.tolist()
            return {
                "weights.safetensors": weights_bytes(tensors, self.run.experiment, self.classes),
                "momentum.safetensors": save({"momentum": momentum.cpu()}),
                "history.json": now.to_json(),
            }

        self._checkpoint = self._saving.submit(self._write, now.iteration, files)

    def _write(self, iteration: int, files: Callable[[], dict[str, bytes]]) -> None:
        checkpoint = Checkpoint(iteration, files())
        self._retry_write(
            lambda: save_checkpoint(self.storage, self.run, checkpoint, self._writer.check)
        )

    def _retry_write(self, action: Callable[[], None]) -> None:
        """Do something with storage, again and again while it is away."""
        started, said = monotonic(), False
        while True:
            try:
                return action()
            except OSError as error:
                if monotonic() - started >= PATIENCE_SECONDS:
                    raise StorageLostError(
                        f"{self.storage.path(self.run.folder)} could not be written for "
                        f"{PATIENCE_SECONDS:.0f} s "
                        f"({first_line(error)}); make room or bring it back, then give the same "
                        "command again"
                    ) from error
                if not said:
                    logger.warning(
                        "%s: not saved yet (%s); trying again", self.run, first_line(error)
                    )
                said = True
                sleep(RETRY_SECONDS)

    def wait(self) -> None:
        """Wait until what was saved is written; raises as `due`."""
        if self._checkpoint is not None:
            self._checkpoint.result()
            self._checkpoint = None

    def close(self) -> None:
        """Let go of the threads; what is being written is finished first."""
        self._saving.shutdown(wait=True)
        self._beating.shutdown(wait=False)

    def finish(self, history: History, status: str = "finished", **more: str) -> dict[str, Any]:
        """Write `result.json` (rank 0), after everything before it, and return it; raises as `due`."""
        self.wait()
        if self.stalls:
            history.attempts[-1]["checkpoint_stall_ms"] = round(1000 * median(self.stalls), 3)
        facts = {
            "iterations": history.iteration,
            "final": history.last(),
            "warmup_end": history.warmup_end,
            "converging_from": history.converging_from,
            "seconds": history.seconds,
            "layers": [asdict(values) for values in history.layers],
            "attempts": history.attempts,
            **more,
        }
        if self.process_group.rank:
            return {"status": status, **facts}
        written: list[dict[str, Any]] = []

        def write() -> None:
            self._writer.check()
            written.append(write_result(self.storage, self.run, status, facts))

        self._retry_write(write)
        return written[-1]
