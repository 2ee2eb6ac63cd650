"""A run's folder, seen from its loop: what is restored at the start, written on the way, and written last."""

from contextlib import suppress
from dataclasses import asdict
from time import perf_counter, time
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from pipeline.checkpoint import Checkpoint, newest_checkpoint, read_checkpoint, save_checkpoint
from pipeline.clock import Clock
from pipeline.history import History
from pipeline.ranks import Ranks
from pipeline.runs import Run, write_heartbeat, write_result
from pipeline.schedule import milestone
from pipeline.step import Trainee
from pipeline.storage import Storage
from pipeline.weights import load_weights, read_tensors, weights_bytes

HEARTBEAT_SECONDS = 2.0


class Saver:
    """Rank 0 writes; every rank restores the same checkpoint."""

    def __init__(self, storage: Storage, run: Run, classes: int, ranks: Ranks, seconds: float) -> None:
        self.storage, self.run, self.classes, self.ranks = storage, run, classes, ranks
        self.seconds = seconds
        self.saved = self.beaten = perf_counter()

    def restore(self, trainee: Trainee) -> History:
        """Load the newest checkpoint that verifies, if there is one; rank 0 decides which it is."""
        newest = newest_checkpoint(self.storage, self.run) if self.ranks.rank == 0 else None
        chosen = torch.tensor([newest.iteration if newest else 0], dtype=torch.int64, device=self.ranks.device)
        iteration = int(self.ranks.sum_disjoint(chosen).item())
        if not iteration:
            return History()
        checkpoint = newest or read_checkpoint(self.storage, self.run, iteration)
        if checkpoint is None:
            raise OSError(f"checkpoint {iteration} of {self.run} verified on rank 0 but cannot be read here")
        load_weights(
            trainee.network, self.run.experiment, self.classes, checkpoint.files["weights.safetensors"], str(self.run)
        )
        tensors, _ = read_tensors(checkpoint.files["momentum.safetensors"], str(self.run))
        trainee.momentum.copy_(tensors["momentum"])
        return History.from_json(checkpoint.files["history.json"])

    def beat(self, history: History, clock: Clock) -> None:
        """Write the heartbeat, if it is time."""
        if self.ranks.rank == 0 and perf_counter() - self.beaten >= HEARTBEAT_SECONDS:
            rate = clock.rate(history.iteration, running=True)
            with suppress(OSError):  # a heartbeat that is lost costs nothing
                write_heartbeat(self.storage, self.run, history.iteration, rate, int(1000 * time()))
            self.beaten = perf_counter()

    def due(self, history: History) -> bool:
        """Whether this rank saves now: rank 0, at lr drops, at the end, and when enough time has passed."""
        if self.ranks.rank:
            return False
        return milestone(self.run.experiment, history.iteration) or perf_counter() - self.saved >= self.seconds

    def save(self, trainee: Trainee, history: History, window: Tensor) -> None:
        """Write a checkpoint of the state at this iteration's border."""
        history.window = window.tolist()
        files = {
            "weights.safetensors": weights_bytes(trainee.network, self.run.experiment, self.classes),
            "momentum.safetensors": save({"momentum": trainee.momentum.cpu()}),
            "history.json": history.to_json(),
        }
        save_checkpoint(self.storage, self.run, Checkpoint(history.iteration, files))
        self.saved = perf_counter()

    def finish(self, history: History, status: str = "finished", **more: str) -> dict[str, Any]:
        """Write `result.json` (rank 0) and return it."""
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
        if self.ranks.rank:
            return {"status": status, **facts}
        return write_result(self.storage, self.run, status, facts)
