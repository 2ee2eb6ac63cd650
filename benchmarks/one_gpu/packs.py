"""`bench packs`: a grid's own packs, through Ray, against one run alone and the loop people write.

The real row, stopped early: its evaluations, checkpoints, heartbeats and MLflow's copy are a part
of what is timed, and only the start is left out. In the end the run that trained alone and the one
of the same seed in the pack have to be the same bytes.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from time import time

import torch

from benchmarks.one_gpu.cifar import best_usual
from benchmarks.one_gpu.contestants import taken_on_gpu
from jobs.execution.cluster import connected
from jobs.execution.tune import run_grid
from jobs.requests.options import Device, tracking_of
from jobs.requests.requested_runs import resolve_resources
from pipeline.data.datasets import Dataset
from pipeline.data.stored import write_dataset
from pipeline.errors import InputError
from pipeline.recipe.experiments import Experiment
from pipeline.recipe.metrics import TEST_ERR
from pipeline.runs.checkpoint import newest_checkpoint, newest_history
from pipeline.runs.execution import Execution
from pipeline.runs.run import STOPPED, Run, read_heartbeat
from pipeline.storage import Storage

LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class PackRate:
    """What some runs at once made, evaluations included."""

    runs: int
    images_per_second: float
    """All together, between the first and the last evaluation that all of them had."""
    start: float
    """Seconds from the command to the first heartbeat of a run in training."""
    seconds: float
    """Of the whole command."""


def bench(
    experiment: Experiment,
    dataset: Dataset,
    counts: Sequence[int],
    until: int,
    device: Device,
    out: Path,
) -> list[PackRate]:
    """Train the row's first `until` iterations in packs of each size; print, and write `out`.

    Raises:
        InputError: there is no GPU, or `until` leaves fewer than two evaluations.
    """
    device = Device.GPU if device is Device.AUTO else device
    if device is Device.GPU and not torch.cuda.is_available():
        raise InputError("bench packs: no GPU is here; --device cpu tries the command")
    if until < 2 * experiment.eval_every:
        raise InputError(
            f"--until {until}: a rate lies between two evaluations, which are "
            f"{experiment.eval_every} iterations apart"
        )
    torch_device = torch.device("cuda" if device is Device.GPU else "cpu")
    usual = best_usual(dataset, experiment, torch_device)
    rates, storages = list[PackRate](), list[Storage]()
    with TemporaryDirectory(prefix="resnet-repro-bench-") as folder:
        for count in counts:
            storage = Storage(f"{folder}/{count}")
            write_dataset(storage, dataset, {"kind": "benchmark"})
            rates.append(_train(storage, experiment, dataset, count, until, device))
            storages.append(storage)
            print(f"{asdict(rates[-1])}", flush=True)
        same = _same_bytes(storages, _run(experiment, dataset, 0))
    _print(rates, usual, same)
    kept = {
        "taken": taken_on_gpu(torch_device),
        "experiment": asdict(experiment),
        "until": until,
        "usual_loop_images_per_second": usual,
        "packs": [asdict(rate) for rate in rates],
        "same_bytes": same,
    }
    out.write_text(json.dumps(kept, indent=1) + "\n")
    return rates


def _run(experiment: Experiment, dataset: Dataset, seed: int) -> Run:
    return Run(experiment, dataset.id, dataset.key, seed)


def _train(
    storage: Storage,
    experiment: Experiment,
    dataset: Dataset,
    count: int,
    until: int,
    device: Device,
) -> PackRate:
    """A pack of so many seeds through Tune and Train, on a Ray of its own."""
    runs = [_run(experiment, dataset, seed) for seed in range(count)]
    asked = Execution(storage=storage.uri, tracking=tracking_of(None, storage), until=until)
    began, watch = time(), _FirstBeat(storage, runs)
    with watch, connected(None):
        execution, _ = resolve_resources(asked, device, None, runs=1)
        outcomes = run_grid([runs], execution, 1, {run: {} for run in runs})
    seconds = time() - began
    expected = STOPPED if until < experiment.iterations else "finished"
    if wrong := [outcome for outcome in outcomes if outcome.status != expected]:
        raise RuntimeError(f"bench packs: {wrong[0].run} {wrong[0].status}: {wrong[0].reason}")
    return PackRate(count, _rate(storage, runs), watch.seen - began, seconds)


def _rate(storage: Storage, runs: list[Run]) -> float:
    """Images a second of all runs, between evaluations: from when all had one to when one ended."""
    times = list[dict[int, int]]()
    for run in runs:
        history = newest_history(storage, run)
        if history is None:
            raise RuntimeError(f"bench packs: {run} has no checkpoint")
        points = [point for point in history.points if point.metric == TEST_ERR]
        times.append({point.iteration: point.time_ms for point in points})
    began = max(min(each.values()) for each in times)
    ended = min(max(each.values()) for each in times)
    images = 0
    for run, each in zip(runs, times, strict=True):
        # What a run made between its own evaluations that lie within that time.
        within = [iteration for iteration, ms in each.items() if began <= ms <= ended]
        span = each[max(within)] - each[min(within)] if len(within) > 1 else 0
        if not span:
            raise RuntimeError(f"bench packs: {run} had no two evaluations while all trained")
        iterations = (max(within) - min(within)) * (ended - began) / span
        images += round(iterations * run.experiment.global_batch_size)
    return 1000 * images / (ended - began)


class _FirstBeat:
    """When a run was first seen training."""

    def __init__(self, storage: Storage, runs: list[Run]) -> None:
        self.seen = float("nan")
        self._storage, self._runs, self._end = storage, runs, Event()
        self._thread = Thread(target=self._look, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(LOOK_SECONDS):
            if any(read_heartbeat(self._storage, run) for run in self._runs):
                self.seen = time()
                return


def _same_bytes(storages: list[Storage], run: Run) -> bool:
    """Whether a run ended with the same weights and momentum in whatever company."""
    ends = [newest_checkpoint(storage, run) for storage in storages]
    first = ends[0]
    return first is not None and all(
        end is not None
        and end.iteration == first.iteration
        and end.files[name] == first.files[name]
        for end in ends
        for name in ("weights.safetensors", "momentum.safetensors")
    )


def _print(rates: list[PackRate], usual: float, same: bool) -> None:
    print(f"the usual loop at its best: {usual:,.0f} images/s")
    for rate in rates:
        print(
            f"{rate.runs:>3} at once through the grid: {rate.images_per_second:>10,.0f} images/s, "
            f"{rate.images_per_second / usual:5.2f} of the usual loop; training after "
            f"{rate.start:.0f} s"
        )
    print(f"{'ok   ' if same else 'WRONG'} seed 0 has the same bytes alone and in each pack")
