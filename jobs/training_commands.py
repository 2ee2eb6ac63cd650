"""`resnet-repro train` and `grid`: one run, and rows x seeds with their report. Both continue what was interrupted."""

import sys
from collections.abc import Callable, Iterable
from functools import partial
from threading import Event
from typing import Annotated, Any

import typer

from analysis.export import ALONE, ASKED, IN_SWEEP
from jobs import grids, plan, screen, sweeps
from jobs.launch import Execution
from jobs.options import (
    AddressOption,
    CheckpointOption,
    DataOption,
    DeterministicOption,
    Device,
    DeviceOption,
    DriftOption,
    DryRunOption,
    ExperimentArgument,
    GpusOption,
    IterationsOption,
    NamesArgument,
    OnePassOption,
    RequireTrackingOption,
    SetOption,
    StorageOption,
    ThreadsOption,
    TrackingOption,
    WorkersOption,
    manifest_named,
    tracking_of,
    tracking_there,
    workers_of,
    writable,
)
from jobs.request import placed, runs_of
from jobs.result_commands import report_on, try_tracking
from jobs.sweeps import Sweep
from pipeline.errors import InputError
from pipeline.metrics import TEST_ERR
from pipeline.overrides import experiment_named
from pipeline.runs import REFUSED, Run, read_result
from pipeline.storage import Storage

ASKED_ALONE = {ASKED: ALONE}


def train(
    experiment: ExperimentArgument,
    data: DataOption = "digits",
    seed: Annotated[int, typer.Option(min=0, help="Decides initialisation, order and augmentation.")] = 0,
    workers: WorkersOption = "1",
    threads: ThreadsOption = None,
    device: DeviceOption = Device.AUTO,
    gpus: GpusOption = 1.0,
    one_pass: OnePassOption = False,
    iterations: IterationsOption = None,
    settings: SetOption = [],  # noqa: B006  (Typer reads it, nobody writes it)
    storage: StorageOption = "results",
    tracking: TrackingOption = None,
    address: AddressOption = None,
    require_tracking: RequireTrackingOption = False,
    checkpoint_seconds: CheckpointOption = 30.0,
    allow_drift: DriftOption = False,
    deterministic: DeterministicOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Train one run; given again, it continues, or says that it is finished.

    Examples:

    * `resnet-repro train resnet20 --data digits --iterations 400`

    * `resnet-repro train resnet56 --data cifar10 --seed 3 --workers 2`: the paper's recipe, each worker one of its two GPUs

    * `resnet-repro train resnet20 --set sgd=torch --set weight_decay_scope=all --dry-run`
    """
    row, (fewest, most) = experiment_named(experiment, settings, iterations), workers_of(workers)
    if dry_run:
        return plan.show([row], [seed], data, storage, tracking, workers)
    place = writable(storage)
    execution = Execution(
        place.uri,
        tracking_of(tracking, place),
        fewest,
        gpus,
        checkpoint_seconds,
        one_pass,
        most_workers=most,
        allow_drift=allow_drift,
        deterministic=deterministic,
    )
    if require_tracking:
        tracking_there(execution.tracking, place)
    run = runs_of(place, [row], manifest_named(place, data), [seed], fewest)[0]
    result = read_result(place, run)
    if result is None:
        print(f"training {run} in {place.path(run.folder)}", flush=True)
        outcome = _train(run, place, execution, device, threads, address)
        if outcome["status"] == REFUSED:
            raise InputError(outcome["reason"])
        if outcome["status"] == "failed":
            raise SystemExit(_failed(f"{run} failed: {outcome['reason']}; give the same command again to continue"))
        _say_if_unpublished([outcome["published"]], execution.tracking)
        result = read_result(place, run)
    else:
        _complete(execution.tracking, place, {run: ASKED_ALONE})
    assert result is not None
    print(_ended(place, run, result))
    if result["status"] != "finished" and not run.experiment.may_diverge:
        raise SystemExit(1)


def _train(
    run: Run, place: Storage, execution: Execution, device: Device, threads: int | None, address: str | None
) -> dict[str, Any]:
    from jobs.cluster import connected
    from jobs.drive import drive

    stop = Event()
    with connected(address):
        execution, _ = placed(execution, device, threads, runs=1)
        outcome: dict[str, Any] = screen.follow(
            str(run),
            place,
            [run],
            1,
            lambda: drive(run, execution, ASKED_ALONE, stop),
            _interrupted(execution.tracking, place, [run], stop),
        )
    return outcome


def grid(
    names: NamesArgument,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0..K-1 of each row.")] = 1,
    data: DataOption = "digits",
    workers: WorkersOption = "1",
    threads: ThreadsOption = None,
    device: DeviceOption = Device.AUTO,
    gpus: GpusOption = 1.0,
    one_pass: OnePassOption = False,
    iterations: IterationsOption = None,
    settings: SetOption = [],  # noqa: B006  (Typer reads it, nobody writes it)
    storage: StorageOption = "results",
    tracking: TrackingOption = None,
    address: AddressOption = None,
    require_tracking: RequireTrackingOption = False,
    checkpoint_seconds: CheckpointOption = 30.0,
    allow_drift: DriftOption = False,
    deterministic: DeterministicOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Train a grid of rows x seeds, then write its report; given again, it continues with what is not finished.

    Examples:

    * `resnet-repro grid demo --seeds 3`: minutes on a laptop

    * `resnet-repro grid table6 --data cifar10 --seeds 5`

    * `resnet-repro grid resnet20 --set lr=0.05,0.1,0.2 --seeds 3`: a sweep, reported apart from the reproduction

    * `resnet-repro grid ledger --iterations 400 --seeds 3`: what each usual deviation from the recipe is worth
    """
    if "demo" in names:
        iterations, settings = iterations or grids.DEMO_ITERATIONS, [*grids.demo_settings(), *settings]
        print(f"demo: {iterations} iterations, {', '.join(settings)}", flush=True)
    fewest, most = workers_of(workers)
    images = plan.training_images(storage, data) if dry_run else sweeps.CIFAR_TRAINING_IMAGES
    rows, _ = sweeps.asked_for(names, settings, iterations, images)  # refuses before anything is written
    if dry_run:
        return plan.show(rows, range(seeds), data, storage, tracking, workers)
    place = writable(storage)
    execution = Execution(
        place.uri,
        tracking_of(tracking, place),
        fewest,
        gpus,
        checkpoint_seconds,
        one_pass,
        most_workers=most,
        allow_drift=allow_drift,
        deterministic=deterministic,
    )
    if require_tracking:
        tracking_there(execution.tracking, place)
    manifest = manifest_named(place, data)
    rows, swept = sweeps.asked_for(names, settings, iterations, manifest["train_images"])
    runs = runs_of(place, rows, manifest, range(seeds), fewest)
    from jobs.grid import unfinished

    left = unfinished(place, runs)
    print(f"{len(runs)} runs, {len(runs) - len(left)} finished before, in {place.uri}", flush=True)
    tags = _tags(names, runs, swept)
    _complete(execution.tracking, place, tags)
    _publish_sweeps(execution.tracking, place, swept, manifest)
    reasons = _train_grid(" ".join(names), left, tags, place, execution, device, threads, address) if left else {}
    _conclude(place, runs, reasons, execution.tracking, swept, manifest)


def _conclude(
    place: Storage,
    runs: list[Run],
    reasons: dict[Run, str],
    tracking: str,
    swept: list[Sweep],
    manifest: dict[str, Any],
) -> None:
    """Say which runs of a grid did not finish and why, write the report on the others, and exit accordingly."""
    diverged = {run: result["reason"] for run, result in _results(place, runs) if "reason" in result}
    failed = {run: reason for run, reason in reasons.items() if run not in diverged}
    for run, reason in failed.items():
        print(f"{run} {reason}", file=sys.stderr)
    for run, reason in diverged.items():
        print(f"{run} diverged: {reason}", file=sys.stderr)
    if len(failed) + len(diverged) < len(runs):
        _publish_sweeps(tracking, place, swept, manifest)  # where the server was away before
        report_on(tracking, place, runs=runs, sweeps=[sweep.id(manifest["id"]) for sweep in swept])
    if failed:
        raise SystemExit(_failed(f"{len(failed)} of {len(runs)} runs did not finish; give the same command again"))
    if any(not run.experiment.may_diverge for run in diverged):
        raise SystemExit(_failed(f"{len(diverged)} of {len(runs)} runs diverged, which trying again would repeat"))


def _train_grid(
    title: str,
    left: list[Run],
    tags: dict[Run, dict[str, str]],
    place: Storage,
    execution: Execution,
    device: Device,
    threads: int | None,
    address: str | None,
) -> dict[Run, str]:
    """Train what is left; the runs that failed, with how and why."""
    from jobs.cluster import connected, head_memory
    from jobs.grid import run_grid, slots

    with connected(address):
        execution, nodes = placed(execution, device, threads, runs=len(left))
        at_once = min(len(left), slots(nodes, execution, head_memory()))
        outcomes = screen.follow(
            title,
            place,
            list(tags),
            at_once,
            lambda: run_grid(left, execution, at_once, tags),
            _interrupted(execution.tracking, place, left, Event()),
        )
    _say_if_unpublished([outcome.published for outcome in outcomes], execution.tracking)
    return {outcome.run: f"{outcome.status}: {outcome.reason}" for outcome in outcomes if outcome.status != "finished"}


def _tags(names: list[str], runs: list[Run], swept: list[Sweep]) -> dict[Run, dict[str, str]]:
    """What MLflow is told of each run: the grids that asked for it, and whether that was for a sweep alone."""
    changed = {fingerprint for sweep in swept for fingerprint in sweep.changed}
    asking = {f"grid.{name}": "yes" for name in names}
    return {run: asking | {ASKED: IN_SWEEP if run.experiment.fingerprint in changed else ALONE} for run in runs}


def _results(place: Storage, runs: list[Run]) -> Iterable[tuple[Run, dict[str, Any]]]:
    return ((run, result) for run in runs if (result := read_result(place, run)) is not None)


def _interrupted(tracking: str, place: Storage, runs: list[Run], stop: Event) -> Callable[[], None]:
    """What Ctrl-C does before Ray is taken away: drivers in this process are told, and MLflow."""
    from jobs.publications import mark_interrupted

    def interrupted() -> None:
        stop.set()
        try_tracking(lambda: mark_interrupted(tracking, place, runs), tracking)

    return interrupted


def _complete(tracking: str, place: Storage, runs: dict[Run, dict[str, str]]) -> None:
    """See that MLflow can be used, and that it has all of what ended before."""
    from jobs.publications import publish_ended

    try_tracking(lambda: publish_ended(tracking, place, runs), tracking)


def _publish_sweeps(tracking: str, place: Storage, swept: list[Sweep], manifest: dict[str, Any]) -> None:
    from jobs.publications import publish_sweep

    for sweep in swept:
        dataset_id, name = manifest["id"], manifest["row"]["name"]
        try_tracking(partial(publish_sweep, tracking, place, sweep, dataset_id, name), tracking)


def _say_if_unpublished(published: list[bool], tracking: str) -> None:
    missing = published.count(False)
    if missing:
        what = f"{missing} of {len(published)} runs could not be published" if len(published) > 1 else "not published"
        print(f"warning: {what} to MLflow at {tracking}; `resnet-repro sync` sends it when it is back", file=sys.stderr)


def _ended(place: Storage, run: Run, result: dict[str, Any]) -> str:
    if result["status"] != "finished":
        return f"{run}: {result['status']}: {result.get('reason', '')}"
    error = result["final"][TEST_ERR]
    return (
        f"{run}: finished, {error:.2f} % test error after {result['iterations']:,} iterations; {place.path(run.folder)}"
    )


def _failed(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1
