"""A minute of measuring on the cluster itself: what starting a run costs, and seconds an iteration
of the grid's rows.

Rows are timed as a grid would run them, as many at once and with the same resources each, by random
images: nothing of the dataset is read or decoded, and of a run's several workers one is timed,
without what they exchange. The costliest row that fits into the time is timed first after the
cheapest ones, as it decides most.
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import median
from time import monotonic, perf_counter, sleep
from typing import Any
from uuid import uuid4

from jobs.planning.workload import iteration_flops
from pipeline.data.datasets import write_dataset
from pipeline.data.sources import digits
from pipeline.errors import InputError, last_line
from pipeline.recipe.experiments import EXPERIMENTS, Experiment
from pipeline.runs.execution import Execution
from pipeline.runs.run import Run
from pipeline.storage import Storage

STARTED_AT_ONCE = 4
"""At most so many runs are started to see what starting takes."""
BOOT_SECONDS = 1200.0
"""How long nodes are waited for that an autoscaler has to start."""
STEPS = 12
"""Of a row at most so many iterations are timed, and"""
SECONDS = 4.0
"""for at most so long, but two in any case."""


@dataclass(frozen=True)
class Timing:
    """What was measured of a row: seconds of its iterations, and of an image that only goes
    forward; on which hardware.
    """

    steps: tuple[float, ...]
    image: float
    setup: float
    hardware: str

    @property
    def step(self) -> float:
        return median(self.steps)


@dataclass(frozen=True)
class Probe:
    """What a minute of measuring found: seconds that a run takes besides computing, and timings by
    fingerprint.
    """

    start: float
    timings: dict[str, Timing]
    seconds: float
    """How long it took."""


@dataclass(frozen=True)
class ProbeTiming:
    """A row to be timed: how many runs of it are left, and their share of the grid's work."""

    experiment: Experiment
    runs: int
    share: float


def probe(
    storage: Storage,
    rows: Sequence[ProbeTiming],
    side: int,
    execution: Execution,
    at_once: int,
    limit: float,
) -> Probe:
    """Measure on the cluster that is connected, for at most about `limit` seconds once its nodes
    are there.

    Images have `side` pixels, or the row's crop where it is 0.

    Raises:
        InputError: the nodes do not come, or a row or run cannot be tried on them.
    """
    try:
        _wait_for_nodes(execution, at_once)
        began = monotonic()
        start = _start(storage, execution, min(at_once, STARTED_AT_ONCE))
        timings = _timings(rows, side, execution, at_once, limit - (monotonic() - began))
    except InputError:
        raise
    except (
        Exception
    ) as error:  # whatever Ray, torch or a GPU says, such as that its memory is too small
        raise InputError(
            f"plan: the cluster cannot be measured ({last_line(str(error))})"
        ) from error
    return Probe(start, timings, monotonic() - began)


def _wait_for_nodes(execution: Execution, at_once: int) -> None:
    """Until there is room for so many workers at once: an autoscaler starts nodes for what is asked
    for.

    Raises:
        InputError: it did not come to that.
    """
    import ray

    from jobs.execution.cluster import places

    each = execution.each_worker
    if places([dict(node["Resources"]) for node in ray.nodes() if node["Alive"]], each) >= at_once:
        return
    task = ray.remote(num_cpus=each["CPU"], num_gpus=each.get("GPU", 0), max_retries=-1)(nap)
    waiting = [task.remote() for _ in range(at_once)]
    there, late = ray.wait(waiting, num_returns=len(waiting), timeout=BOOT_SECONDS)
    ray.get(there)
    if late:
        minutes = BOOT_SECONDS / 60
        raise InputError(
            f"plan: there was no room for {len(late)} of {at_once} workers within {minutes:.0f} "
            "minutes"
        )


def nap() -> None:
    """What a worker is asked for to see that it is there."""
    sleep(0.2)


def _start(storage: Storage, execution: Execution, at_once: int) -> float:
    """Seconds that runs take which train for one iteration only, so many of them at once."""
    from jobs.execution.launch import run_on_ray

    folder = f"plan-{uuid4().hex[:8]}"
    scratch = Storage(storage.uri_of(folder))
    dataset = digits()
    experiment = replace(EXPERIMENTS["resnet20"], precision="fp32")
    alone = replace(
        execution,
        storage=scratch.uri,
        tracking="",
        until=1,
        datasets="",
        most_workers=None,
        workers=1,
    )

    def one(seed: int) -> float:
        began = monotonic()
        run_on_ray(Run(experiment, dataset.id, dataset.key, seed), alone)
        return monotonic() - began

    try:
        write_dataset(scratch, dataset, {"kind": "probe"})
        with ThreadPoolExecutor(at_once) as several:
            return median(several.map(one, range(at_once)))
    finally:
        with suppress(OSError):
            storage.delete(folder)


def _timings(
    rows: Sequence[ProbeTiming], side: int, execution: Execution, at_once: int, limit: float
) -> dict[str, Timing]:
    """Timings of the rows that there was time for; free slots are filled with copies of a row that
    has several runs.
    """
    import ray

    each, deadline = execution.each_worker, monotonic() + limit
    task = ray.remote(num_cpus=each["CPU"], num_gpus=each.get("GPU", 0), max_retries=0)(time_row)
    by_name = {one.experiment.fingerprint: one for one in rows}
    copies = Counter({name: min(one.runs, at_once) for name, one in by_name.items()})
    found, running = dict[str, Timing](), dict[Any, str]()
    cheapest = sorted(by_name, key=lambda name: iteration_flops(by_name[name].experiment))[:at_once]
    while +copies or running:
        while +copies and len(running) < at_once:
            name = (
                cheapest.pop(0)
                if cheapest
                else _next(+copies, by_name, found, deadline - monotonic())
            )
            if name is None:
                copies.clear()
                break
            copies[name] -= 1
            running[task.remote(by_name[name].experiment, side, execution)] = name
        ended, _ = ray.wait(list(running), timeout=max(0.0, deadline - monotonic()))
        if not ended:
            break
        for reference in ended:
            name, timing = running.pop(reference), ray.get(reference)
            found[name] = (
                replace(timing, steps=found[name].steps + timing.steps) if name in found else timing
            )
    for reference in running:
        ray.cancel(reference, force=True)
    return found


def _next(
    copies: Counter[str], rows: dict[str, ProbeTiming], found: dict[str, Timing], seconds: float
) -> str | None:
    """What is timed next within so many seconds, going by what was: the row with the greatest
    share, new ones first.
    """
    known = [name for name in rows if name in found]
    if not known:
        return next(iter(copies), None)
    each = max(found[name].step / iteration_flops(rows[name].experiment) for name in known)
    setup = max(found[name].setup for name in known)
    fitting = [
        name
        for name in copies
        if setup + 4 * each * iteration_flops(rows[name].experiment) <= seconds
    ]
    return max(fitting, key=lambda name: (name not in found, rows[name].share), default=None)


def time_row(experiment: Experiment, side: int, execution: Execution) -> Timing:
    """On a worker: set a row up and time a worker's share of its iterations on random images. 0 is
    a photograph's side.
    """
    began = perf_counter()
    import torch

    from jobs.execution.determinism import set_kernels
    from pipeline.runs.provenance import hardware
    from pipeline.training.memory import keep_freed_memory
    from pipeline.training.step.networks import build_network
    from pipeline.training.step.process_group import single_process
    from pipeline.training.step.train_state import TrainState

    keep_freed_memory()
    torch.set_num_threads(execution.threads)
    set_kernels("fp32", deterministic=True)
    device = torch.device("cuda", 0) if execution.use_gpu else torch.device("cpu")
    process_group = single_process(device)
    train_state = TrainState(
        experiment,
        build_network(experiment, 0, 1000 if side == 0 else 10),
        device,
        execution.one_pass,
    )
    count, size = experiment.global_batch_size // execution.workers, side or experiment.crop
    batch = (
        torch.randn(count, 3, size, size, device=device),
        torch.randint(0, 10, (count,), device=device),
    )
    train_state.step(batch, experiment.lr, process_group)
    _wait(device)
    setup, steps = perf_counter() - began, list[float]()
    while len(steps) < 2 or (len(steps) < STEPS and sum(steps) < SECONDS):
        now = perf_counter()
        train_state.step(batch, experiment.lr, process_group)
        _wait(device)
        steps.append(perf_counter() - now)
    train_state.network.eval()
    image = 0.0
    for _ in range(2):  # the first time memory is still being laid out
        now = perf_counter()
        with (
            torch.no_grad(),
            torch.autocast(device.type, torch.bfloat16, enabled=experiment.precision == "bf16"),
        ):
            train_state.network(batch[0])
        _wait(device)
        image = (perf_counter() - now) / count
    kind = torch.cuda.get_device_name(device) if execution.use_gpu else "cpu"
    return Timing(tuple(steps), image, setup, f"{kind}, {hardware()}")


def _wait(device: Any) -> None:
    """Until the device has done what it was told."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
