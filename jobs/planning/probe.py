"""A minute of measuring on the cluster itself: what starting a run costs, and seconds an iteration of the grid's rows.

Rows are timed as a grid would run them, as many at once and with the same resources each, by random images: nothing of
the dataset is read. The costliest row that fits into the time is timed first after the cheapest ones, as it decides most.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from statistics import median
from time import monotonic, perf_counter
from typing import Any
from uuid import uuid4

from jobs.launch import Execution
from jobs.planning.amounts import iteration_flops
from pipeline.datasets import DATASETS, IMAGENET, write_dataset
from pipeline.experiments import EXPERIMENTS, Experiment
from pipeline.runs import Run
from pipeline.sources import digits
from pipeline.storage import Storage

STARTED_AT_ONCE = 4
"""At most so many runs are started to see what starting takes."""
STEPS = 12
"""Of a row at most so many iterations are timed, and"""
SECONDS = 4.0
"""for at most so long, but two in any case."""


@dataclass(frozen=True)
class Timing:
    """What was measured of a row: seconds of its iterations, and of an image that only goes forward; on which hardware."""

    steps: tuple[float, ...]
    image: float
    setup: float
    hardware: str

    @property
    def step(self) -> float:
        return median(self.steps)

    @property
    def spread(self) -> float:
        """Half of the distance between the fastest and the slowest iteration, as a share of the median."""
        return (max(self.steps) - min(self.steps)) / 2 / self.step


@dataclass(frozen=True)
class Probe:
    """What a minute of measuring found: seconds that a run takes besides computing, and timings by fingerprint."""

    start: float
    timings: dict[str, Timing]
    seconds: float
    """How long it took."""

    def to_json(self) -> dict[str, Any]:
        return {"start": self.start, "seconds": self.seconds} | {
            "timings": {name: asdict(timing) for name, timing in self.timings.items()}
        }


def probe(
    place: Storage,
    rows: Sequence[tuple[Experiment, float]],
    data: str,
    execution: Execution,
    at_once: int,
    limit: float,
) -> Probe:
    """Measure for at most about `limit` seconds on the cluster that is connected; rows come with their share of the work."""
    began = monotonic()
    start = _start(place, execution, min(at_once, STARTED_AT_ONCE))
    timings = _timings(rows, data, execution, at_once, limit - (monotonic() - began))
    return Probe(start, timings, monotonic() - began)


def _start(place: Storage, execution: Execution, at_once: int) -> float:
    """Seconds that runs take which train for one iteration only, so many of them at once."""
    from jobs.launch import run_on_ray

    folder = f"plan-{uuid4().hex[:8]}"
    scratch = Storage(place.below(folder))
    dataset = digits()
    row = replace(EXPERIMENTS["resnet20"], precision="fp32")
    alone = replace(execution, storage=scratch.uri, tracking="", until=1, datasets=None, most_workers=None, workers=1)

    def one(seed: int) -> float:
        began = monotonic()
        run_on_ray(Run(row, dataset.id, dataset.key, seed), alone)
        return monotonic() - began

    try:
        write_dataset(scratch, dataset, {"kind": "probe"})
        with ThreadPoolExecutor(at_once) as several:
            return median(several.map(one, range(at_once)))
    finally:
        with suppress(OSError):
            place.delete(folder)


def _timings(
    rows: Sequence[tuple[Experiment, float]], data: str, execution: Execution, at_once: int, limit: float
) -> dict[str, Timing]:
    """Timings of the rows that there was time for."""
    import ray

    each, deadline = execution.each_worker, monotonic() + limit
    side = DATASETS[data].side if data in DATASETS else DATASETS["cifar10"].side
    task = ray.remote(num_cpus=each["CPU"], num_gpus=each.get("GPU", 0), max_retries=0)(time_row)
    share = {row.fingerprint: part for row, part in rows}
    left = {row.fingerprint: row for row, _ in rows}
    found, running = dict[str, Timing](), dict[Any, str]()
    cheapest = sorted(left, key=lambda name: iteration_flops(left[name]))[:at_once]
    while left or running:
        while left and len(running) < at_once:
            name = cheapest.pop(0) if cheapest else _next(left, share, found, rows, deadline - monotonic())
            if name is None:
                left = {}
                break
            row = left.pop(name)
            size = 0 if data == IMAGENET.name else side
            running[task.remote(row, size, execution.workers, execution.threads, execution.use_gpu)] = name
        ended, _ = ray.wait(list(running), timeout=max(0.0, deadline - monotonic()))
        if not ended:
            break
        for reference in ended:
            found[running.pop(reference)] = ray.get(reference)
    for reference in running:
        ray.cancel(reference, force=True)
    return found


def _next(
    left: dict[str, Experiment],
    share: dict[str, float],
    found: dict[str, Timing],
    rows: Sequence[tuple[Experiment, float]],
    seconds: float,
) -> str | None:
    """The row with the greatest share of the work that can be timed within so many seconds, going by those that were."""
    known = {row.fingerprint: row for row, _ in rows if row.fingerprint in found}
    if not known:
        return None
    each = max(found[name].step / iteration_flops(row) for name, row in known.items())
    setup = max(found[name].setup for name in known)
    fitting = [name for name, row in left.items() if setup + 4 * each * iteration_flops(row) <= seconds]
    return max(fitting, key=lambda name: share[name], default=None)


def time_row(row: Experiment, side: int, workers: int, threads: int, use_gpu: bool) -> Timing:
    """On a worker: set a row up and time a worker's share of its iterations on random images. 0 is a photograph's side."""
    began = perf_counter()
    import torch

    from jobs.determinism import full_precision
    from pipeline import ranks
    from pipeline.memory import keep_freed_memory
    from pipeline.networks import build_network
    from pipeline.provenance import hardware
    from pipeline.step import Trainee

    keep_freed_memory()
    torch.set_num_threads(threads)
    full_precision()
    device = torch.device("cuda", 0) if use_gpu else torch.device("cpu")
    single = ranks.single(device)
    trainee = Trainee(row, build_network(row, 0, 1000 if side == 0 else 10), device)
    count, size = row.global_batch_size // workers, side or row.crop
    batch = (torch.randn(count, 3, size, size, device=device), torch.randint(0, 10, (count,), device=device))
    trainee.step(batch, row.lr, single)
    _wait(device)
    setup, steps = perf_counter() - began, list[float]()
    while len(steps) < 2 or (len(steps) < STEPS and sum(steps) < SECONDS):
        now = perf_counter()
        trainee.step(batch, row.lr, single)
        _wait(device)
        steps.append(perf_counter() - now)
    trainee.network.eval()
    image = 0.0
    for _ in range(2):  # the first time memory is still being laid out
        now = perf_counter()
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=row.precision == "bf16"):
            trainee.network(batch[0])
        _wait(device)
        image = (perf_counter() - now) / count
    kind = torch.cuda.get_device_name(device) if use_gpu else "cpu"
    return Timing(tuple(steps), image, setup, f"{kind}, {hardware()}")


def _wait(device: Any) -> None:
    """Until the device has done what it was told."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
