"""A minute of measuring on the cluster itself: what starting a run costs, and an iteration's time.

Experiments are timed as a grid would run them, as many at once and with the same resources each, by
random images: nothing of the dataset is read or decoded, and of a run's workers one is timed,
without what they exchange. The costliest experiment that fits into the time is timed first after
the cheapest ones, as it decides most.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import median
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import ray

from jobs.execution.cluster import places, remote
from jobs.execution.experiment_timing import (
    RunsAtOnce,
    Timing,
    kind_of,
    time_at_once,
    time_experiment,
)
from jobs.execution.launch import run_on_ray
from pipeline.data.catalogue.digits import digits
from pipeline.data.stored import write_dataset
from pipeline.errors import InputError, last_line
from pipeline.recipe.experiments import EXPERIMENTS, Experiment
from pipeline.recipe.overrides import title
from pipeline.runs.execution import Execution
from pipeline.runs.run import Run
from pipeline.storage import Storage

STARTED_AT_ONCE = 4
"""At most this many runs are started to see what starting takes."""
AT_ONCE_SECONDS = 600.0
"""How long it may take to try several runs at once on a GPU, which has to be free first."""
BOOT_SECONDS = 1200.0
"""How long nodes are waited for that an autoscaler has to start."""


@dataclass(frozen=True)
class Probe:
    """What a minute of measuring found."""

    start: float
    """Seconds that a run takes besides computing."""
    timings: dict[str, Timing]
    """By the experiment's fingerprint."""
    seconds: float
    """How long it took."""


@dataclass(frozen=True)
class TimingRequest:
    """An experiment to be timed: how many runs of it are left, and their share of the work."""

    experiment: Experiment
    runs: int
    share: float
    flops: float
    """Of an iteration."""


def probe(
    storage: Storage,
    requests: Sequence[TimingRequest],
    side: int,
    execution: Execution,
    at_once: int,
    limit: float,
    complete: bool = False,
) -> Probe:
    """Measure on the connected cluster, for about `limit` seconds once its nodes are there.

    Where it is to be `complete` for longer, until an experiment of each kind is timed. Images have
    `side` pixels, or the experiment's crop where it is 0.

    Raises:
        InputError: the nodes do not come, or an experiment or run cannot be tried on them.
    """
    try:
        # Nodes that an autoscaler has to boot are not counted: a grid waits for them once, the
        # limit is about measuring.
        _wait_for_nodes(execution, at_once)
        began = monotonic()
        start = _time_starts(storage, execution, min(at_once, STARTED_AT_ONCE))
        seconds_left = limit - (monotonic() - began)
        timings = time_experiments(requests, side, execution, at_once, seconds_left, complete)
    except InputError:
        raise
    except Exception as error:  # whatever Ray, torch or a GPU says, such as that memory is short
        raise InputError(
            f"plan: the cluster cannot be measured ({last_line(str(error))})"
        ) from error
    return Probe(start, timings, monotonic() - began)


def probe_runs_at_once(
    experiment: Experiment, side: int, execution: Execution, most: int
) -> RunsAtOnce:
    """What a GPU of the connected cluster makes of up to `most` runs of an experiment at once.

    Raises:
        TimeoutError: no GPU was free, or ready, for too long.
        ray.exceptions.RayError: the GPU could not be tried.
    """
    each = execution.each_worker
    task = remote(time_at_once, num_cpus=each["CPU"], num_gpus=each.get("GPU", 0), max_retries=0)
    trying = task.remote(experiment, side, execution, most)
    ready, _ = ray.wait([trying], timeout=AT_ONCE_SECONDS)
    if not ready:
        ray.cancel(trying, force=True)
        raise TimeoutError(f"no GPU was ready within {AT_ONCE_SECONDS:.0f} s")
    found: RunsAtOnce = ray.get(trying)
    return found


def _wait_for_nodes(execution: Execution, at_once: int) -> None:
    """Wait until there is room for the workers: an autoscaler starts nodes for what is asked for.

    Raises:
        InputError: it did not come to that.
    """
    each = execution.each_worker
    present = [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    if places(present, each) >= at_once:
        return
    # Tasks of a worker's size are the only way to ask an autoscaler for that many nodes.
    task = remote(nap, num_cpus=each["CPU"], num_gpus=each.get("GPU", 0), max_retries=-1)
    waiting = [task.remote() for _ in range(at_once)]
    ready, late = ray.wait(waiting, num_returns=len(waiting), timeout=BOOT_SECONDS)
    ray.get(ready)
    if late:
        minutes = BOOT_SECONDS / 60
        raise InputError(
            f"plan: there was no room for {len(late)} of {at_once} workers within {minutes:.0f} "
            "minutes"
        )


def nap() -> None:
    """What a worker is asked for to see that it is there."""
    sleep(0.2)


def _time_starts(storage: Storage, execution: Execution, at_once: int) -> float:
    """Seconds that a run of a single iteration takes, `at_once` of them together."""
    folder = f"plan-{uuid4().hex[:8]}"
    scratch = Storage(storage.uri_of(folder))
    dataset = digits()
    # Whatever the grid trains, as an iteration of it is timed separately.
    experiment = replace(EXPERIMENTS["resnet20"], precision="fp32")
    # A run as its grid would start it, but for one worker, one iteration and no publishing: what is
    # timed is Ray, loading torch, staging the dataset and saving.
    alone = replace(
        execution,
        storage=scratch.uri,
        tracking="",
        until=1,
        datasets="",
        most_workers=None,
        workers=1,
    )

    def time_run(seed: int) -> float:
        began = monotonic()
        run_on_ray(Run(experiment, dataset.id, dataset.key, seed), alone)
        return monotonic() - began

    try:
        # A storage of its own, so that the run is not found finished the next time.
        write_dataset(scratch, dataset, {"kind": "probe"})
        with ThreadPoolExecutor(at_once) as pool:
            return median(pool.map(time_run, range(at_once)))
    finally:
        with suppress(OSError):
            storage.delete(folder)


def time_experiments(
    requests: Sequence[TimingRequest],
    side: int,
    execution: Execution,
    at_once: int,
    limit: float,
    complete: bool,
) -> dict[str, Timing]:
    """Timings of the experiments that there was time for, and of each kind where `complete`.

    Free slots are filled with copies of an experiment that has more than one run, so that each is
    timed beside as many neighbours as it will have.
    """
    # With a worker's resources each, so that Ray places them as it would place workers.
    each, deadline = execution.each_worker, monotonic() + limit
    task = remote(time_experiment, num_cpus=each["CPU"], num_gpus=each.get("GPU", 0), max_retries=0)
    by_fingerprint = {request.experiment.fingerprint: request for request in requests}
    copies = Counter({name: min(request.runs, at_once) for name, request in by_fingerprint.items()})
    timings, running = dict[str, Timing](), dict[Any, str]()
    # The cheapest go first, in any case, of each kind one: what they take says what else fits into
    # the time, and nothing is known of a kind without.
    by_flops = sorted(by_fingerprint, key=lambda name: by_fingerprint[name].flops)
    kinds = {kind_of(by_fingerprint[name].experiment): name for name in reversed(by_flops)}
    cheapest = [name for name in by_flops if name in kinds.values()]
    cheapest += [name for name in by_flops if name not in cheapest][
        : max(0, at_once - len(cheapest))
    ]
    while +copies or running:
        # Fill the free slots.
        while +copies and len(running) < at_once:
            seconds_left = deadline - monotonic()
            name = (
                cheapest.pop(0)
                if cheapest
                else _next(+copies, by_fingerprint, timings, seconds_left)
            )
            if name is None:
                copies.clear()
                break
            copies[name] -= 1
            running[task.remote(by_fingerprint[name].experiment, side, execution)] = name
        # Take in what has ended; copies of an experiment are one timing of more steps.
        ended, _ = ray.wait(list(running), timeout=max(0.0, deadline - monotonic()))
        unknown = [name for name in kinds.values() if name not in timings]
        if not ended and not (complete and unknown):
            break
        if not ended:
            names = dict.fromkeys(title(by_fingerprint[name].experiment) for name in unknown)
            print(f"measuring on, until this is timed: {', '.join(names)}", file=sys.stderr)
            ended, _ = ray.wait(list(running))
        for reference in ended:
            name, timing = running.pop(reference), ray.get(reference)
            if name in timings:
                timing = replace(timing, steps=timings[name].steps + timing.steps)
            timings[name] = timing
    # Past the limit: what is still running is not waited for.
    for reference in running:
        ray.cancel(reference, force=True)
    return timings


def _next(
    copies: Counter[str],
    requests: dict[str, TimingRequest],
    timings: dict[str, Timing],
    seconds: float,
) -> str | None:
    """What to time next within `seconds`: the greatest share of the work, new experiments first."""
    known = [name for name in requests if name in timings]
    if not known:
        return next(iter(copies), None)
    # The slowest seen, for each operation and for setting up: rather a timing less than one that
    # is cut off. A first step, at least two timed ones and a forward pass make about four.
    each = max(timings[name].step / requests[name].flops for name in known)
    setup = max(timings[name].setup for name in known)
    fitting = [name for name in copies if setup + 4 * each * requests[name].flops <= seconds]
    return max(fitting, key=lambda name: (name not in timings, requests[name].share), default=None)
