"""`resnet-repro plan`: what a grid will take and cost, before anything of it is begun."""

import json
import re
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.grids import grids
from jobs.requests.options import (
    HARDWARE,
    AddressOption,
    Device,
    DeviceOption,
    GridDataOption,
    JsonOption,
    NamesArgument,
    SeedsOption,
    StorageOption,
    ThreadsOption,
    WorkersOption,
    workers_of,
    writable,
)
from jobs.requests.training_options import (
    CompileOption,
    IterationsOption,
    OnePassOption,
    SweepOption,
)
from pipeline.errors import InputError
from pipeline.runs.execution import Execution
from pipeline.storage import Storage

# What loads pandas or Ray is imported in functions: `--help` and TAB need not wait for it.
if TYPE_CHECKING:
    from jobs.planning.estimate import Plan
    from jobs.planning.plan_request import PlanRequest


def _cards(incomplete: str) -> list[str]:
    """Described clusters such as 8xA100, once a number and an x are typed."""
    from jobs.planning.gpu_rates import CARDS

    count = re.match(r"\d{1,6}x", incomplete)
    names = [f"{count[0]}{card}" for card in CARDS] if count else []
    return [name for name in names if name.startswith(incomplete)]


ClusterOption = Annotated[
    str,
    typer.Option(
        metavar="N|NxCARD",
        help="GPUs of each worker, as `grid` takes it; or a whole cluster that is not here, "
        "such as 8xA100.",
        autocompletion=_cards,
        rich_help_panel=HARDWARE,
    ),
]
PlannedRunsPerGpuOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Runs that a GPU trains at once; default: what is best, as `grid` has it.",
        rich_help_panel=HARDWARE,
    ),
]
PriceOption = Annotated[
    float | None,
    typer.Option(
        metavar="MONEY", min=0, help="Of a GPU for an hour (of a CPU where none is used)."
    ),
]
BudgetOption = Annotated[
    float | None,
    typer.Option(
        metavar="MONEY",
        min=0,
        help="What may be spent (hours of GPUs or CPUs without --price): experiments are picked.",
    ),
]
ProbeOption = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        min=0,
        help="At most about so long is measured on the cluster; default: a minute, and longer "
        "where one step of each kind takes longer.",
        rich_help_panel=HARDWARE,
    ),
]


def plan(
    names: NamesArgument,
    seeds: SeedsOption = 1,
    data: GridDataOption = None,
    workers: WorkersOption = "1",
    threads: ThreadsOption = None,
    device: DeviceOption = Device.AUTO,
    gpus: ClusterOption = "1",
    runs_per_gpu: PlannedRunsPerGpuOption = None,
    price: PriceOption = None,
    budget: BudgetOption = None,
    one_pass: OnePassOption = False,
    compiled: CompileOption = False,
    iterations: IterationsOption = None,
    settings: SweepOption = [],  # noqa: B006  (Typer reads it, nobody writes it)
    storage_uri: StorageOption = "results",
    address: AddressOption = None,
    probe_seconds: ProbeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a grid would run, what is done, how long it takes and what it costs; trains nothing.

    On a cluster that is there, a minute of measuring and earlier runs say how fast it is. The plan
    is kept in storage, and the grid says at its end how long it took beside it. Examples:

    * `resnet-repro plan table6 --seeds 5`: on this machine, or the cluster of RAY_ADDRESS

    * `resnet-repro plan paper imagenet --seeds 5 --gpus 64xA100 --price 2.5 --budget 5000`: each
      experiment on its own data
    """
    from jobs.planning.described_plan import plan_described
    from jobs.planning.measured_plan import plan_measured
    from jobs.planning.plan_request import plan_request
    from jobs.planning.saved_plans import keep
    from jobs.requests.requested_runs import check_runs_per_gpu

    # The same runs as `grid` would train, by the same rules.
    iterations, settings = grids.with_demo(names, iterations, settings)
    fewest, most = workers_of(workers)
    described = _described(gpus, compiled)
    storage = Storage(storage_uri)
    request = plan_request(
        storage, names, seeds, data, fewest, iterations, settings, mixed=described is not None
    )

    # A described cluster is planned from data sheets: nothing is measured and nothing written.
    if described:
        made = plan_described(request, *described, price, runs_per_gpu, one_pass)
        return _show(request, made, budget, as_json, "")

    gpus_each = _gpus_of(gpus)  # refused before anything is written
    check_runs_per_gpu(runs_per_gpu, most, gpus_each, compiled)
    storage = writable(storage_uri)
    execution = Execution(
        storage=storage.uri,
        workers=fewest,
        most_workers=most,
        gpus=gpus_each,
        one_pass=one_pass,
        compiled=compiled,
    )
    made, findings = plan_measured(
        request, execution, device, threads, address, price, probe_seconds, runs_per_gpu
    )
    kept = keep(storage, made, {"command": names, **findings}) if made.runs else ""
    _show(request, made, budget, as_json, kept)


def _described(gpus: str, compiled: bool) -> tuple[int, str] | None:
    """How many of which card, of a cluster that is described; None for this cluster's GPUs.

    Raises:
        InputError: it is to compile, of which no card's rate is known.
    """
    # One option, two meanings: a number is of this cluster, 8xA100 is a cluster of its own.
    described = re.fullmatch(r"(\d{1,6})x(\w{1,40})", gpus)
    if described is None:
        return None
    if compiled:
        raise InputError(
            f"--compile with --gpus {gpus}: nothing was measured of compiled kernels on such a "
            "card; leave it out, or plan on the cluster itself"
        )
    return int(described[1]), described[2]


def _gpus_of(text: str) -> float:
    """GPUs of each worker, as `grid` takes them.

    Raises:
        InputError: not a number, or not a sensible one.
    """
    try:
        gpus = float(text)
    except ValueError:
        gpus = 0.0
    if not 0.01 <= gpus <= 1024:
        raise InputError(
            f"--gpus {text}: expected a number, as of `grid`, or a cluster such as 8xA100"
        )
    return gpus


def _show(
    request: "PlanRequest", made: "Plan", budget: float | None, as_json: bool, kept: str
) -> None:
    from jobs.planning.printing import chosen, facts, show

    runs, datasets = len(request.amounts), [dataset.name for dataset in request.datasets]
    # What is done costs nothing, so with nothing left there is nothing to choose.
    choice = chosen(made, request.amounts, budget) if budget is not None and made.runs else None
    if as_json:
        about = {"runs": runs, "datasets": datasets}
        print(json.dumps([{**about, **facts(made, choice), "kept": kept}], indent=1))
        return
    on = " and ".join(datasets)
    print(f"{runs} runs on {on}, {runs - len(made.runs)} finished before", flush=True)
    for dataset in request.datasets:
        if dataset.missing:
            print(f"dataset       {dataset.says}")
    if made.runs:
        show(made, choice)
    if kept:
        print(f"kept in       {kept}")
