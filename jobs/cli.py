"""The command line, `resnet-repro`: parses, resolves names to rows and datasets, and hands over. It holds no science.

What a user got wrong ends in one line on standard error and exit code 2; an interruption in exit code 130.
"""

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from threading import Event
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from jobs import data_commands, experiment_commands, grids, plan, result_commands, screen, status_commands
from jobs.bench import commands as bench_commands
from jobs.launch import Execution, check_workers
from jobs.options import (
    AddressOption,
    CheckpointOption,
    DataOption,
    Device,
    DeviceOption,
    DryRunOption,
    GpusOption,
    IterationsOption,
    SetOption,
    StorageOption,
    ThreadsOption,
    TrackingOption,
    WorkersOption,
    manifest_named,
    tracking_of,
    writable,
)
from jobs.result_commands import report_on, try_tracking
from pipeline.checkpoint import check_ours
from pipeline.datasets import dataset_key
from pipeline.errors import InputError
from pipeline.experiments import Experiment
from pipeline.metrics import TEST_ERR
from pipeline.overrides import experiment_named
from pipeline.runs import REFUSED, Run, check_run, read_result
from pipeline.storage import Storage

HELP = """Train the networks of *Deep Residual Learning for Image Recognition* on Ray, and compare with the paper.

Begin with `resnet-repro experiments`, then `resnet-repro grid demo`. A command that was interrupted continues when it is
given again.
"""

INTERRUPTED = 130

app = typer.Typer(no_args_is_help=True, add_completion=True, rich_markup_mode="markdown", help=HELP)
app.command()(experiment_commands.experiments)


@app.command()
def train(
    experiment: Annotated[str, typer.Argument(help="A row of `resnet-repro experiments`.")],
    data: DataOption = "digits",
    seed: Annotated[int, typer.Option(min=0, help="Decides initialisation, order and augmentation.")] = 0,
    workers: WorkersOption = 1,
    threads: ThreadsOption = None,
    device: DeviceOption = Device.AUTO,
    gpus: GpusOption = 1.0,
    iterations: IterationsOption = None,
    settings: SetOption = [],  # noqa: B006  (Typer reads it, nobody writes it)
    storage: StorageOption = "results",
    tracking: TrackingOption = None,
    address: AddressOption = None,
    checkpoint_seconds: CheckpointOption = 30.0,
    dry_run: DryRunOption = False,
) -> None:
    """Train one run; given again, it continues, or says that it is finished.

    Example: `resnet-repro train resnet20 --data digits --iterations 800 --workers 2`
    """
    row = experiment_named(experiment, settings, iterations)
    if dry_run:
        return plan.show([row], [seed], data, storage, tracking, workers)
    place = writable(storage)
    execution = Execution(
        place.uri, tracking_of(tracking, place), workers, gpus=gpus, checkpoint_seconds=checkpoint_seconds
    )
    run = _runs(place, [row], data, [seed], workers)[0]
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
        _complete(execution.tracking, place, [run])
    assert result is not None
    print(_ended(place, run, result))
    if result["status"] != "finished":
        raise SystemExit(1)


def _train(
    run: Run, place: Storage, execution: Execution, device: Device, threads: int | None, address: str | None
) -> dict[str, Any]:
    from jobs.cluster import connected
    from jobs.drive import drive

    stop = Event()
    with connected(address):
        execution, _ = _placed(execution, device, threads, runs=1)
        outcome: dict[str, Any] = screen.follow(
            str(run),
            place,
            [run],
            1,
            lambda: drive(run, execution, {}, stop),
            _interrupted(execution.tracking, place, [run], stop),
        )
    return outcome


@app.command()
def grid(
    names: Annotated[list[str], typer.Argument(help="demo, figure1, figure6, figure7, table6, paper, or rows.")],
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0..K-1 of each row.")] = 1,
    data: DataOption = "digits",
    workers: WorkersOption = 1,
    threads: ThreadsOption = None,
    device: DeviceOption = Device.AUTO,
    gpus: GpusOption = 1.0,
    iterations: IterationsOption = None,
    settings: SetOption = [],  # noqa: B006  (Typer reads it, nobody writes it)
    storage: StorageOption = "results",
    tracking: TrackingOption = None,
    address: AddressOption = None,
    checkpoint_seconds: CheckpointOption = 30.0,
    dry_run: DryRunOption = False,
) -> None:
    """Train a grid of rows x seeds, then write its report; given again, it continues with what is not finished.

    Example: `resnet-repro grid table6 --data cifar10 --seeds 5`
    """
    if "demo" in names:
        iterations, settings = iterations or grids.DEMO_ITERATIONS, [*grids.demo_settings(), *settings]
        print(f"demo: {iterations} iterations, {', '.join(settings)}", flush=True)
    rows = [experiment_named(name, settings, iterations) for name in grids.rows_asked_for(names)]
    if dry_run:
        return plan.show(rows, range(seeds), data, storage, tracking, workers)
    place = writable(storage)
    execution = Execution(
        place.uri, tracking_of(tracking, place), workers, gpus=gpus, checkpoint_seconds=checkpoint_seconds
    )
    runs = _runs(place, rows, data, range(seeds), workers)
    from jobs.grid import unfinished

    left = unfinished(place, runs)
    print(f"{len(runs)} runs, {len(runs) - len(left)} finished before, in {place.uri}", flush=True)
    _complete(execution.tracking, place, runs)
    reasons = _train_grid(names, left, runs, place, execution, device, threads, address) if left else {}
    reasons |= {run: f"diverged: {result['reason']}" for run, result in _results(place, runs) if "reason" in result}
    for run, reason in reasons.items():
        print(f"{run} {reason}", file=sys.stderr)
    if len(reasons) < len(runs):
        report_on(execution.tracking, place, runs=runs)
    if reasons:
        raise SystemExit(_failed(f"{len(reasons)} of {len(runs)} runs did not finish; give the same command again"))


def _train_grid(
    names: list[str],
    left: list[Run],
    runs: list[Run],
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
        execution, nodes = _placed(execution, device, threads, runs=len(left))
        at_once = min(len(left), slots(nodes, execution, head_memory()))
        tags = {f"grid.{name}": "yes" for name in names}
        outcomes = screen.follow(
            " ".join(names),
            place,
            runs,
            at_once,
            lambda: run_grid(left, execution, at_once, tags),
            _interrupted(execution.tracking, place, left, Event()),
        )
    _say_if_unpublished([outcome.published for outcome in outcomes], execution.tracking)
    return {outcome.run: f"{outcome.status}: {outcome.reason}" for outcome in outcomes if outcome.status != "finished"}


def _results(place: Storage, runs: list[Run]) -> Iterable[tuple[Run, dict[str, Any]]]:
    return ((run, result) for run in runs if (result := read_result(place, run)) is not None)


def _runs(place: Storage, rows: list[Experiment], data: str, seeds: Iterable[int], workers: int) -> list[Run]:
    """The runs asked for, refused where workers, the dataset, or what lies in their folders cannot carry them."""
    for row in rows:
        grids.check_trainable(row)
    manifest = manifest_named(place, data)
    key = dataset_key(manifest["row"]["name"], manifest["id"])
    runs = [Run(row, manifest["id"], key, seed) for row in rows for seed in seeds]
    for run in runs:
        check_workers(run, workers)
        check_run(place, run)
        check_ours(place, run)
        if run.experiment.holdout >= manifest["train_images"]:
            raise InputError(
                f"holdout {run.experiment.holdout} leaves nothing of {manifest['train_images']:,} training images"
            )
    return runs


def _placed(
    execution: Execution, device: Device, threads: int | None, runs: int
) -> tuple[Execution, list[dict[str, float]]]:
    """Execution with the device and threads that suit the cluster, and the cluster's nodes.

    Raises:
        InputError: the cluster can never hold it.
    """
    from jobs.cluster import check_fits, nodes, places, threads_per_worker

    several, workers = nodes(), execution.workers
    gpu = replace(execution, use_gpu=True)
    use_gpu = device is Device.GPU or (device is Device.AUTO and places(several, gpu.each_worker) >= workers)
    best = 1 if use_gpu else threads_per_worker(several, runs, workers)
    execution = replace(execution, use_gpu=use_gpu, threads=threads or best)
    check_fits(several, workers, execution.each_worker)
    return execution, several


def _interrupted(tracking: str, place: Storage, runs: list[Run], stop: Event) -> Callable[[], None]:
    """What Ctrl-C does before Ray is taken away: drivers in this process are told, and MLflow."""
    from jobs.publisher import mark_interrupted

    def interrupted() -> None:
        stop.set()
        try_tracking(lambda: mark_interrupted(tracking, place, runs), tracking)

    return interrupted


def _complete(tracking: str, place: Storage, runs: list[Run]) -> None:
    """See that MLflow can be used, and that it has all of what ended before."""
    from jobs.publisher import publish_ended

    try_tracking(lambda: publish_ended(tracking, place, runs), tracking)


def _say_if_unpublished(published: list[bool], tracking: str) -> None:
    missing = published.count(False)
    if missing:
        what = f"{missing} of {len(published)} runs could not be published" if len(published) > 1 else "not published"
        print(f"warning: {what} to MLflow at {tracking}; give the same command again when it is back", file=sys.stderr)


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


app.command()(status_commands.status)
app.command()(result_commands.report)
app.command()(result_commands.ui)
app.command()(result_commands.evaluate)
app.command()(status_commands.clean)
app.add_typer(data_commands.app, name="data")
app.add_typer(bench_commands.app, name="bench")


def main() -> None:
    """Run the command line; every mistake of a user's ends in one line and exit code 2."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        code = app(standalone_mode=False) or 0
        if code == INTERRUPTED:  # what Typer makes of Ctrl-C
            print("interrupted: give the same command again to continue", file=sys.stderr)
        sys.exit(code)
    except InputError as error:
        message = str(error)
    except TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # the message is the help, already formatted
            print(error)
            sys.exit(2)
        message = error.format_message() if hasattr(error, "format_message") else str(error)
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
