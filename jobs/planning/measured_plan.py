"""A plan for the cluster that is there, by what a minute on it and earlier runs say."""

from collections import Counter
from dataclasses import asdict
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
from jobs.requests.requested_runs import resolve_resources
from pipeline.recipe.experiments import Experiment
from pipeline.runs.execution import Execution
from pipeline.runs.run import Run


def plan_measured(
    request: PlanRequest,
    execution: Execution,
    device: Device,
    threads: int | None,
    address: str | None,
    price: float | None,
    limit: float,
    runs_per_gpu: int = 1,
) -> tuple[Plan, dict[str, Any]]:
    """A plan for the cluster at `address`, measured for about `limit` seconds; and what was found.

    Runs are timed alone on a GPU; what `runs_per_gpu` at once gain is in proportion. Raises:
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
        measured = probe(
            request.storage,
            _timing_requests(left),
            request.data.side,
            execution,
            at_once,
            limit - joining,
        )

    # What whole runs took on this hardware says more than random images did, so it goes last.
    hardware = next((timing.hardware for timing in measured.timings.values()), "")
    known = probed(measured.timings, execution.workers)
    known |= earlier(request.storage, list(request.amounts), execution, hardware)
    by_fingerprint = rates(request.experiments, known)
    packed = runs_per_gpu if execution.use_gpu else 1
    by_fingerprint = {name: _packed(rate, packed) for name, rate in by_fingerprint.items()}

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


def _packed(rate: Rate, at_once: int) -> Rate:
    """The rate of each of several runs at once on a GPU, by that of one alone."""
    if at_once == 1:
        return rate
    slower = at_once / gain(at_once)
    return Rate(rate.step * slower, rate.image * slower, "in proportion")


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
