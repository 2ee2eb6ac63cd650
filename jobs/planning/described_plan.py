"""A plan for a cluster that is only described, such as 8xA100, by what is known of its GPUs."""

from dataclasses import replace

from jobs.execution.experiment_timing import RUNS_AT_ONCE
from jobs.planning.estimate import FIXED_SECONDS, Cluster, Estimate, Plan, estimate, longest_first
from jobs.planning.gpu_rates import CARDS, described
from jobs.planning.plan_request import PlanRequest
from jobs.planning.rates import Rate
from jobs.planning.workload import Amount
from pipeline.errors import InputError
from pipeline.runs.run import Run

START_SECONDS = 20.0
"""Assumed: what a run takes besides computing."""
WIDTHS = (1, 2, 4, 8)
"""Workers of ImageNet's runs, as tried; CIFAR's are tried as `RUNS_AT_ONCE` has it."""


def plan_described(
    request: PlanRequest,
    count: int,
    kind: str,
    price: float | None,
    runs_per_gpu: int | None = None,
    one_pass: bool = False,
) -> Plan:
    """The best plan for `count` GPUs of a kind, over how wide runs are and how many share a GPU.

    With `runs_per_gpu` so many do. Raises:
        InputError: nothing is known of such a GPU.
    """
    card = kind.upper()
    if card not in CARDS or count < 1:
        raise InputError(
            f"--gpus {count}x{kind}: known are {', '.join(CARDS)}; others are measured where they "
            "are"
        )
    # Every combination is estimated; there are twenty at the most.
    cluster = Cluster(count, card, price)
    packs = _packs(request.left, count, runs_per_gpu)
    choices = [(width, sharing) for width in WIDTHS if width <= count for sharing in packs]
    ways = [_estimates(request.left, card, width, sharing, one_pass) for width, sharing in choices]

    # No placement is shorter than the least work spread evenly, nor than the longest run at its
    # widest: the bound is over all ways, as the choice between them is.
    hours = ([each.hours for each in way] for way in ways)
    seconds = ([each.seconds for each in way] for way in ways)
    least = sum(min(of_run) for of_run in zip(*hours, strict=True))
    longest = max((min(of_run) for of_run in zip(*seconds, strict=True)), default=0.0)
    bound = FIXED_SECONDS + max(3600 * least / count, longest)

    plans = [
        Plan(
            cluster,
            longest_first(way),
            FIXED_SECONDS,
            bound,
            least,
            _options(request, width, sharing),
        )
        for way, (width, sharing) in zip(ways, choices, strict=True)
    ]
    # By the wall time, as a cluster costs by the hour whether it works or idles.
    best = min(plans, key=lambda plan: plan.seconds)
    by_pack = dict[int, float]()
    for plan, (_, sharing) in zip(plans, choices, strict=True):
        by_pack[sharing] = min(plan.seconds, by_pack.get(sharing, plan.seconds))
    return replace(best, by_pack=by_pack)


def _packs(left: dict[Run, Amount], count: int, runs_per_gpu: int | None) -> list[int]:
    """How many of CIFAR's runs to a GPU are tried: no more than there are for each."""
    runs = sum(run.experiment.family == "cifar" for run in left)
    most = max(1, -(-runs // count))
    return [min(runs_per_gpu, most)] if runs_per_gpu else [n for n in RUNS_AT_ONCE if n <= most]


def _options(request: PlanRequest, width: int, sharing: int) -> str:
    """The options of `grid` that carry runs out so."""
    families = {experiment.family for experiment in request.experiments}
    options = []
    if "imagenet" in families:
        options.append(f"--workers {width} for ImageNet's rows")
    if "cifar" in families:
        options.append(f"--runs-per-gpu {sharing} for CIFAR's rows")
    return ", ".join(options)


def _estimates(
    left: dict[Run, Amount], card: str, width: int, sharing: int, one_pass: bool
) -> list[Estimate]:
    """Each run: ImageNet's with up to `width` workers, CIFAR's `sharing` to a GPU."""
    estimates, rates = list[Estimate](), dict[str, Rate]()
    for run, amount in left.items():
        experiment = run.experiment
        # A run uses at most a worker for each batch-norm group. CIFAR's runs are too small to be
        # spread; they share instead.
        workers = min(width, experiment.groups) if experiment.family == "imagenet" else 1
        among = sharing if experiment.family == "cifar" else 1
        # A thousand seeds have one rate, which takes a thousand times as long as to look it up.
        if experiment.fingerprint not in rates:
            rates[experiment.fingerprint] = described(experiment, card, workers, among, one_pass)
        rate = rates[experiment.fingerprint]
        estimates.append(estimate(run, amount, rate, START_SECONDS, workers, workers / among))
    return estimates
