"""A plan for the cluster that is there, by what a minute on it and earlier runs say."""

from collections import Counter
from dataclasses import asdict
from math import ceil
from time import monotonic
from typing import Any

from jobs.console.console import console
from jobs.execution.cluster import connected, head_memory
from jobs.execution.probe import TimingRequest, probe
from jobs.execution.tune import max_concurrent_runs
from jobs.planning.estimate import FIXED_SECONDS, Cluster, Plan, estimate, longest_first
from jobs.planning.gpu_rates import gain
from jobs.planning.plan_request import PlanRequest
from jobs.planning.rates import Rate, earlier, probed, rates
from jobs.planning.workload import BACKWARD, Amount, iteration_flops
from jobs.requests.options import Device
from jobs.requests.requested_runs import resolve_resources, tried_at_once
from pipeline.recipe.experiments import Experiment
from pipeline.runs.execution import Execution
from pipeline.runs.run import Run

PROBE_SECONDS = 60.0
"""How long is measured where nobody says it."""


def plan_measured(
    request: PlanRequest,
    execution: Execution,
    device: Device,
    threads: int | None,
    address: str | None,
    price: float | None,
    limit: float | None,
    runs_per_gpu: int | None = None,
) -> tuple[Plan, dict[str, Any]]:
    """A plan for the cluster at `address`, measured for about `limit` seconds; and what was found.

    Without a limit for a minute, and longer where an experiment of some kind takes longer. Runs are
    timed alone on a GPU. What several at once gain is tried, as `grid` would, or for `runs_per_gpu`
    of them taken from other cards, in proportion. Raises:
        InputError: there is no cluster, or it cannot be measured.
    """
    left, began = request.left, monotonic()
    # Nothing to train, nothing to measure: a cluster would be started for a line.
    if not left:
        return Plan(Cluster(0, "CPU", price), [], 0.0), {}

    # Measure with as many runs at once as the grid will have: neighbours share memory and caches.
    with connected(address, trains=True), console.status("measuring for about a minute"):
        joining = monotonic() - began
        execution, nodes = resolve_resources(
            execution, device, threads, runs=len(left), experiments=request.experiments
        )
        most = max_concurrent_runs(nodes, execution, head_memory())
        at_once = min(len(left), most)
        packed, gained = _at_once(request, execution, at_once, runs_per_gpu)
        measured = probe(
            request.storage,
            _timing_requests(left),
            request.data.side,
            execution,
            at_once,
            (PROBE_SECONDS if limit is None else limit) - (monotonic() - began),
            complete=limit is None,
        )

    # What whole runs took on this hardware says more than random images did, so it goes last.
    hardware = next((timing.hardware for timing in measured.timings.values()), "")
    known = probed(measured.timings, execution.workers)
    known |= earlier(request.storage, list(request.amounts), execution, hardware)
    by_fingerprint = rates(request.experiments, known)
    by_fingerprint = {name: _slower(rate, packed / gained) for name, rate in by_fingerprint.items()}

    kind = "GPU" if execution.use_gpu else "CPU"
    # What a run takes of the cluster, in the unit that is paid for.
    units = execution.workers * execution.each_worker[kind] / packed
    estimates = [
        estimate(
            run,
            amount,
            by_fingerprint[run.experiment.fingerprint],
            measured.start,
            execution.workers,
            units,
        )
        for run, amount in left.items()
    ]
    cluster = Cluster(most * packed * units, kind, price, sum(node.get(kind, 0) for node in nodes))
    findings = {
        "at_once": at_once,
        "threads": execution.threads,
        "runs_per_gpu": packed,
        "probe": asdict(measured),
        "joining": joining,
    }
    return Plan(cluster, longest_first(estimates), FIXED_SECONDS + joining), findings


def _at_once(
    request: PlanRequest, execution: Execution, places: int, runs_per_gpu: int | None
) -> tuple[int, float]:
    """How many runs a GPU trains at once, and how many times the rate of one they make."""
    if not execution.use_gpu or request.data.photographs:
        return 1, 1.0
    if runs_per_gpu is not None:
        # No more than there are for each place, as a grid has it.
        packed = min(runs_per_gpu, ceil(len(request.left) / places))
        return packed, gain(packed)
    found = tried_at_once(request.left, execution, places, request.data.side)
    if found is None:
        return 1, 1.0
    tried, most = found[1].rates, ceil(len(request.left) / places)
    best = max(count for count in tried if count <= min(found[1].best, most))
    return best, tried[best] / tried[1]


def _slower(rate: Rate, factor: float) -> Rate:
    """The rate of one of several runs at once on a GPU, by that of one alone."""
    if factor == 1:
        return rate
    return Rate(rate.step * factor, rate.image * factor, "in proportion")


def _timing_requests(left: dict[Run, Amount]) -> list[TimingRequest]:
    """Each experiment with how many runs of it are left, and its share of the work."""
    work = dict[Experiment, float]()
    for run, amount in left.items():
        experiment = run.experiment
        size = experiment.global_batch_size
        images = (1 + BACKWARD) * amount.iterations * size + amount.forward
        # In floating-point operations: images that only go forward count a third.
        work.setdefault(experiment, 0.0)
        work[experiment] += images * iteration_flops(experiment) / size
    runs, total = Counter(run.experiment for run in left), sum(work.values())
    return [
        TimingRequest(experiment, runs[experiment], part / total, iteration_flops(experiment))
        for experiment, part in work.items()
    ]
