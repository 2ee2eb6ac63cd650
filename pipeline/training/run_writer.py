"""A run's folder as the train loop uses it: restore, heartbeat, checkpoints, `result.json`.

Saving is asynchronous: at an iteration's border the state is cloned on its device, which is all
that training waits for, and a thread writes the clone. Where storage cannot be written the thread
retries for `PATIENCE_SECONDS` while training goes on.

No lock is needed: the threads see clones alone, and each kind of write has one thread.
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
from pipeline.training.measuring.cost import Cost
from pipeline.training.step.process_group import ProcessGroup, own_stream
from pipeline.training.step.train_state import TrainState
from pipeline.training.step.weights import load_weights, read_tensors, weights_bytes

HEARTBEAT_SECONDS = 2.0
"""Between two heartbeats, at least."""
PATIENCE_SECONDS = 60.0
"""How long a write that fails is retried before the run stops."""
RETRY_SECONDS = 2.0
"""Between two tries of a write."""

logger = logging.getLogger(__name__)


class RunWriter:
    """Rank 0 writes; every rank restores the same checkpoint.

    `seconds` lie between two checkpoints; with 0, every iteration is saved. Rank 0 writes under the
    lease of `holder` (`pipeline.runs.lease`); without a holder no other writer is expected.
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
        self.storage, self.run, self.classes = storage, run, classes
        self.process_group = process_group
        self.seconds = seconds
        self.last_save = self.last_beat = perf_counter()
        self.stalls: list[float] = []
        """Seconds that training stood still for each checkpoint."""
        self._writer = WriterClaim(storage, run, holder)
        # One thread each: checkpoints are written in order, and a slow one delays no heartbeat.
        self._saving = ThreadPoolExecutor(1, "checkpoint")
        self._beating = ThreadPoolExecutor(1, "heartbeat")
        self._checkpoint: Future[None] | None = None
        self._beat: Future[None] | None = None

    def restore(self, train_state: TrainState) -> History:
        """Load the newest checkpoint that verifies, or nothing; returns the history up to it.

        Every rank calls it. Rank 0 decides which checkpoint it is, and becomes the writer.

        Raises:
            LostRunError: another driver holds the run.
            OSError: storage shows this rank other files than rank 0.
        """
        # Rank 0 claims before it looks: an older worker group that still runs cannot add a
        # checkpoint after that.
        newest = None
        if self.process_group.rank == 0:
            self._writer.claim()
            newest = newest_checkpoint(self.storage, self.run)

        # Tell all ranks which one: the others add 0, so the sum is rank 0's iteration. Were each to
        # look for itself, one could find a file that is not yet visible to another.
        newest_iteration = torch.tensor(
            [newest.iteration if newest else 0], dtype=torch.int64, device=self.process_group.device
        )
        iteration = int(self.process_group.sum_disjoint(newest_iteration).item())
        if not iteration:
            return History()

        # Read it from storage, on every rank but 0, which has it already.
        checkpoint = newest or read_checkpoint(self.storage, self.run, iteration)
        if checkpoint is None:
            raise OSError(
                f"checkpoint {iteration} of {self.run} verified on rank 0 but cannot be read here"
            )

        # Copy into the existing tensors: SGD updates one flat vector, and parameters are its views.
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
        """Write the heartbeat (rank 0), if the last one is `HEARTBEAT_SECONDS` ago."""
        if self.process_group.rank or perf_counter() - self.last_beat < HEARTBEAT_SECONDS:
            return
        self.last_beat = perf_counter()
        # Where storage is slow and the last one is still being written, this one is left out:
        # queued, heartbeats would pile up and report old iterations.
        if self._beat is None or self._beat.done():
            rate = clock.running_rate(history.iteration)
            self._beat = self._beating.submit(self._write_beat, history.iteration, rate)

    def _write_beat(self, iteration: int, rate: float) -> None:
        """Write a heartbeat; runs in the heartbeat's thread."""
        # A heartbeat that is lost costs nothing; a run that is lost is noticed by the next save.
        with suppress(OSError, LostRunError):
            self._writer.check()
            write_heartbeat(self.storage, self.run, iteration, rate, int(1000 * time()))

    def due(self, history: History) -> bool:
        """Whether to save now: at milestones, and when `seconds` have passed since the last save.

        For the latter the checkpoint before has to be written, so that slow storage never stops
        training. With 0 seconds every iteration is saved, and training waits for storage.

        Raises:
            StorageLostError: the checkpoint before could not be written.
            LostRunError: another driver or worker group has taken the run over.
        """
        # Ranks need not agree: saving is no collective, and only rank 0 writes.
        if self.process_group.rank:
            return False
        # Pick up what the thread has raised, within an iteration of its end.
        if self._checkpoint is not None and self._checkpoint.done():
            self._checkpoint.result()
            self._checkpoint = None
        if self.seconds == 0 or milestone(self.run.experiment, history.iteration):
            return True
        return self._checkpoint is None and perf_counter() - self.last_save >= self.seconds

    def save(self, train_state: TrainState, history: History, window: Tensor, cost: Cost) -> None:
        """Clone the state at this iteration's border and have a thread write it (rank 0).

        `window` [25, 2] is the ring of losses and wrong predictions. Waits for a checkpoint that is
        still being written, so that no more than one clone of the state is held.
        """
        if self.process_group.rank:
            return
        self.wait()

        # Clone everything that the next step changes. It has to be here, between two iterations:
        # weights of one iteration beside the momentum of another could not be continued exactly.
        started = perf_counter()
        tensors = {
            name: tensor.detach().clone()
            for name, tensor in train_state.network.state_dict().items()
        }
        momentum, window_clone = train_state.momentum.clone(), window.clone()
        cost.record(history)
        snapshot = replace(
            history,
            points=[*history.points],
            layers=[*history.layers],
            attempts=[{**attempt} for attempt in history.attempts],
        )

        # A synchronisation point with the GPU: the clones are complete when the thread reads them,
        # and the stall that is measured is all that training waits for.
        if train_state.momentum.is_cuda:
            torch.cuda.current_stream(train_state.momentum.device).synchronize()
        self.last_save = perf_counter()
        self.stalls.append(self.last_save - started)

        # In the thread: copy to the CPU and serialise. In a stream of its own, or each copy would
        # wait for the iterations that were launched before it.
        def files() -> dict[str, bytes]:
            with own_stream(train_state.device):
                snapshot.window = window_clone.tolist()
                return {
                    "weights.safetensors": weights_bytes(
                        tensors, self.run.experiment, self.classes
                    ),
                    "momentum.safetensors": save({"momentum": momentum.cpu()}),
                    "history.json": snapshot.to_json(),
                }

        self._checkpoint = self._saving.submit(self._write, snapshot.iteration, files)

    def _write(self, iteration: int, files: Callable[[], dict[str, bytes]]) -> None:
        """Serialise and write a checkpoint, its manifest last; runs in the checkpoint's thread."""
        checkpoint = Checkpoint(iteration, files())
        # The claim is checked at every try, right before the manifest makes the checkpoint count.
        self._retry_write(
            lambda: save_checkpoint(self.storage, self.run, checkpoint, self._writer.check)
        )

    def _retry_write(self, action: Callable[[], None]) -> None:
        """Call `action`, and retry while storage fails, for at most `PATIENCE_SECONDS`.

        Raises:
            StorageLostError: it still fails then.
            LostRunError: from `action`; not retried, since the run is another's.
        """
        started, warned = monotonic(), False
        while True:
            try:
                return action()
            except OSError as error:
                if monotonic() - started >= PATIENCE_SECONDS:
                    raise StorageLostError(
                        f"{self.storage.path(self.run.folder)} could not be written for "
                        f"{PATIENCE_SECONDS:.0f} s ({first_line(error)}); make room or bring it "
                        "back, then give the same command again"
                    ) from error
                # Say it once for each write, not every two seconds.
                if not warned:
                    logger.warning(
                        "%s: not saved yet (%s); trying again", self.run, first_line(error)
                    )
                warned = True
                sleep(RETRY_SECONDS)

    def wait(self) -> None:
        """Wait until the last checkpoint is written; raises what writing it raised (see `due`)."""
        if self._checkpoint is not None:
            self._checkpoint.result()
            self._checkpoint = None

    def close(self) -> None:
        """End the threads, once the checkpoint that is being written is complete."""
        # A heartbeat is not waited for: in storage that hangs it may never return.
        self._saving.shutdown(wait=True)
        self._beating.shutdown(wait=False)

    def finish(
        self, history: History, cost: Cost, status: str = "finished", **more_facts: str
    ) -> dict[str, Any]:
        """Write `result.json` (rank 0) after everything else, and return it; raises as `due`.

        Every rank calls it; what rank 0 gets is what is stored. `more_facts` are added to it.
        """
        # The last checkpoint comes first: whoever sees `result.json` takes the run for complete.
        self.wait()

        # Gather the facts. How long training stood still per checkpoint, and all that the attempt
        # has cost, is known only now.
        cost.record(history)
        if self.stalls:
            history.attempts[-1]["checkpoint_stall_ms"] = round(1000 * median(self.stalls), 3)
        facts = {
            "iterations": history.iteration,
            "final": history.last(),
            "warmup_end": history.warmup_end,
            "converging_from": history.converging_from,
            "converging_rule": history.converging_rule,
            "wrong_counts": history.wrong_counts,
            "seconds": history.seconds,
            "layers": [asdict(values) for values in history.layers],
            "attempts": history.attempts,
            **more_facts,
        }

        # Write them, as long as this worker group is the run's writer.
        if self.process_group.rank:
            return {"status": status, **facts}
        written: list[dict[str, Any]] = []

        def write() -> None:
            self._writer.check()
            written.append(write_result(self.storage, self.run, status, facts))

        self._retry_write(write)
        return written[-1]
