"""`resnet-repro grid`: rows x seeds with their report.

Given again, it continues what was interrupted; with `--until-decided` it stops where it is decided.
"""

from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.console.termination import stop_after
from jobs.grids import grids
from jobs.requests.options import (
    MOST_SEEDS,
    AddressOption,
    Device,
    DeviceOption,
    GridDataOption,
    NamesArgument,
    StorageOption,
    ThreadsOption,
    TrackingOption,
    WorkersOption,
    manifest_named,
    workers_of,
    writable,
)
from jobs.requests.training_options import (
    AnyKernelsOption,
    CheckpointOption,
    CompileOption,
    DriftOption,
    DryRunOption,
    GpusOption,
    IterationsOption,
    OnePassOption,
    RequireTrackingOption,
    RunsPerGpuOption,
    StopAfterOption,
    SweepOption,
)
from pipeline.errors import InputError
from pipeline.recipe.experiments import Experiment
from pipeline.storage import Storage

# What loads numpy or Ray is imported in functions: `--help` and TAB need not wait for it.
if TYPE_CHECKING:
    from jobs.grids.sweeps import Sweep

GridSeedsOption = Annotated[
    int | None,
    typer.Option(
        metavar="K",
        min=1,
        max=MOST_SEEDS,
        help="Seeds 0..K-1 of each experiment; default: 1.",
    ),
]
UntilDecidedOption = Annotated[
    bool,
    typer.Option("--until-decided", help="5 and then 10 seeds, until every verdict is in."),
]


def grid(
    names: NamesArgument,
    seeds: GridSeedsOption = None,
    until_decided: UntilDecidedOption = False,
    data: GridDataOption = None,
    workers: WorkersOption = "1",
    threads: ThreadsOption = None,
    device: DeviceOption = Device.AUTO,
    gpus: GpusOption = 1.0,
    runs_per_gpu: RunsPerGpuOption = None,
    one_pass: OnePassOption = False,
    compiled: CompileOption = False,
    minutes: StopAfterOption = None,
    iterations: IterationsOption = None,
    settings: SweepOption = [],  # noqa: B006  (Typer reads it, nobody writes it)
    storage_uri: StorageOption = "results",
    tracking: TrackingOption = None,
    address: AddressOption = None,
    require_tracking: RequireTrackingOption = False,
    checkpoint_seconds: CheckpointOption = 30.0,
    allow_drift: DriftOption = False,
    any_kernels: AnyKernelsOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Train experiments x seeds, then write their report; given again, it continues.

    Without `--data` they are trained on the paper's own data, which `data prepare` brings; `demo`
    is on digits, which need no file.

    Examples:

    * `resnet-repro grid demo --seeds 3`: minutes on a laptop

    * `resnet-repro grid table6 --seeds 5`: Table 6 on CIFAR-10

    * `resnet-repro grid resnet20 --set lr=0.05,0.1,0.2 --seeds 3 --data digits`: a sweep, reported
      apart from the reproduction

    * `resnet-repro grid ledger --iterations 400 --seeds 3`: what each usual deviation from the
      recipe is worth

    * `resnet-repro grid paper --until-decided`: as many seeds as its claims and cells need, ten at
      the most
    """
    from jobs.grids import sweeps
    from jobs.planning.saved_plans import compare
    from jobs.requests.default_data import check_earlier_default
    from jobs.requests.dry_run import show_resolved
    from jobs.requests.grid_request import GridRequest
    from jobs.requests.requested_runs import check_runs_per_gpu, execution_of

    began, looks = monotonic(), _looks(seeds, until_decided)
    iterations, settings = grids.with_demo(names, iterations, settings)
    named, data = data, grids.dataset_of(names) if data is None else data

    # Names, settings and sweeps are refused before anything is written.
    _, most = workers_of(workers)
    check_runs_per_gpu(runs_per_gpu, most, gpus, compiled)
    images = _expected_images(storage_uri, data, dry_run)
    experiments, swept = _asked_for(names, settings, iterations, images, device, until_decided)
    if named is None and data != grids.DEMO_DATASET:
        check_earlier_default(Storage(storage_uri), experiments, range(looks[-1]))
    if dry_run:
        return show_resolved(experiments, range(looks[-1]), data, storage_uri, tracking, workers)

    stop_after(minutes)
    # From here on something is written: storage, then the dataset if it is not prepared yet.
    storage = writable(storage_uri)
    execution = execution_of(
        storage,
        tracking,
        workers,
        require_tracking,
        gpus=gpus,
        checkpoint_seconds=checkpoint_seconds,
        one_pass=one_pass,
        compiled=compiled,
        allow_drift=allow_drift,
        deterministic=not any_kernels,
    )
    manifest = manifest_named(storage, data)
    experiments, swept = sweeps.asked_for(names, settings, iterations, manifest["train_images"])
    request = GridRequest(
        names, experiments, swept, manifest, storage, execution, device, threads, address,
        until_decided, runs_per_gpu,
    )  # fmt: skip
    request.carry_out(looks, lambda left: compare(storage, left, monotonic() - began))


def _expected_images(storage_uri: str, data: str, dry_run: bool) -> int:
    """Training images before anything is prepared: a ledger's holdout is in proportion to them."""
    from jobs.grids import sweeps
    from jobs.requests.dry_run import dataset_summary

    if dry_run:
        return dataset_summary(Storage(storage_uri), data).train_images
    return sweeps.CIFAR_TRAINING_IMAGES


def _asked_for(
    names: list[str],
    settings: list[str],
    iterations: int | None,
    images: int,
    device: Device,
    until_decided: bool,
) -> "tuple[list[Experiment], list[Sweep]]":
    """The rows and sweeps that are asked for.

    Raises:
        InputError: they cannot be trained as they are asked for.
    """
    from jobs.grids import sweeps
    from jobs.requests.requested_runs import check_precision

    experiments, swept = sweeps.asked_for(names, settings, iterations, images)
    check_precision(experiments, on_cpus=device is Device.CPU)
    if until_decided and swept:
        raise InputError("--until-decided is about the paper's cells and claims; a sweep has none")
    # The demo's own iterations and settings are said where it is asked for.
    if "demo" in names:
        print(grids.demo_words(iterations, settings), flush=True)
    return experiments, swept


def _looks(seeds: int | None, until_decided: bool) -> tuple[int, ...]:
    """The numbers of seeds after which the results are looked at: the interim analyses."""
    from analysis.stats import INTERIM_SEEDS

    if until_decided and seeds is not None:
        raise InputError(
            f"--until-decided looks at {', '.join(map(str, INTERIM_SEEDS))} seeds; "
            "leave --seeds out"
        )
    return INTERIM_SEEDS if until_decided else (seeds or 1,)
