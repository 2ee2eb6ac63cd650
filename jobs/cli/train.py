"""`resnet-repro train`: one run, which continues if it was interrupted; and what `grid` shares with
it.
"""

import sys
from collections.abc import Callable
from threading import Event
from time import time
from typing import Annotated, Any

import typer

from analysis.measured.tags import ALONE, ASKED
from jobs.cli.results import warn_on_tracking_error
from jobs.console import run_progress as screen
from jobs.requests.dry_run import show_resolved
from jobs.requests.options import (
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
    OnePassOption,
    RequireTrackingOption,
    SetOption,
    StorageOption,
    ThreadsOption,
    TrackingOption,
    WorkersOption,
    check_tracking,
    manifest_named,
    tracking_of,
    workers_of,
    writable,
)
from jobs.requests.requested_runs import resolve_resources, runs_of
from pipeline.errors import InputError, redacted
from pipeline.recipe.metrics import TEST_ERR
from pipeline.recipe.overrides import experiment_named
from pipeline.runs.execution import Execution
from pipeline.runs.run import REFUSED, Run, read_result
from pipeline.storage import Storage

RELEASE_SECONDS = 10.0
"""How long a command that Ctrl-C ends waits for its driver to give the run back."""

ASKED_ALONE = {ASKED: ALONE}


def train(
    experiment_name: ExperimentArgument,
    data: DataOption = "digits",
    seed: Annotated[
        int, typer.Option(min=0, help="Decides initialisation, order and augmentation.")
    ] = 0,
    workers: WorkersOption = "1",
    threads: ThreadsOption = None,
    device: DeviceOption = Device.AUTO,
    gpus: GpusOption = 1.0,
    one_pass: OnePassOption = False,
    iterations: IterationsOption = None,
    settings: SetOption = [],  # noqa: B006  (Typer reads it, nobody writes it)
    storage_uri: StorageOption = "results",
    tracking: TrackingOption = None,
    address: AddressOption = None,
    require_tracking: RequireTrackingOption = False,
    checkpoint_seconds: CheckpointOption = 30.0,
    allow_drift: DriftOption = False,
    deterministic: DeterministicOption = True,
    dry_run: DryRunOption = False,
) -> None:
    """Train one run; given again, it continues, or says that it is finished.

    Examples:

    * `resnet-repro train resnet20 --data digits --iterations 400`

    * `resnet-repro train resnet56 --data cifar10 --seed 3 --workers 2`: the paper's recipe, each
      worker one of its two GPUs

    * `resnet-repro train resnet20 --set sgd=torch --set weight_decay_scope=all --dry-run`
    """
    experiment, (fewest, most) = (
        experiment_named(experiment_name, settings, iterations),
        workers_of(workers),
    )
    if dry_run:
        return show_resolved([experiment], [seed], data, storage_uri, tracking, workers)
    storage = writable(storage_uri)
    execution = Execution(
        storage=storage.uri,
        tracking=tracking_of(tracking, storage),
        workers=fewest,
        most_workers=most,
        gpus=gpus,
        checkpoint_seconds=checkpoint_seconds,
        one_pass=one_pass,
        allow_drift=allow_drift,
        deterministic=deterministic,
    )
    if require_tracking:
        check_tracking(execution.tracking, storage)
    run = runs_of(storage, [experiment], manifest_named(storage, data), [seed], fewest)[0]
    result = read_result(storage, run)
    if result is None:
        print(f"training {run} in {storage.path(run.folder)}", flush=True)
        outcome = _train(run, storage, execution, device, threads, address)
        if outcome["status"] == REFUSED:
            raise InputError(outcome["reason"])
        if outcome["status"] == "failed":
            raise SystemExit(
                failed_with(
                    f"{run} failed: {outcome['reason']}; give the same command again to continue"
                )
            )
        say_if_unpublished([outcome["published"]], execution.tracking)
        result = read_result(storage, run)
    else:
        complete(execution.tracking, storage, {run: ASKED_ALONE})
    assert result is not None
    print(_ended(storage, run, result))
    if result["status"] != "finished" and not run.experiment.may_diverge:
        raise SystemExit(1)


def _train(
    run: Run,
    storage: Storage,
    execution: Execution,
    device: Device,
    threads: int | None,
    address: str | None,
) -> dict[str, Any]:
    from jobs.execution.cluster import connected
    from jobs.execution.drive import drive

    stop, ended = Event(), Event()

    def job() -> dict[str, Any]:
        try:
            return drive(run, execution, ASKED_ALONE, stop.is_set)
        finally:
            ended.set()

    try:
        with connected(address):
            execution, _ = resolve_resources(execution, device, threads, runs=1)
            interrupted = when_interrupted(execution.tracking, storage, [run], stop)
            outcome: dict[str, Any] = screen.follow(str(run), storage, [run], 1, job, interrupted)
    finally:
        if stop.is_set():  # its driver gives the lease back once Ray is gone
            ended.wait(RELEASE_SECONDS)
    return outcome


def when_interrupted(
    tracking: str, storage: Storage, runs: list[Run], stop: Event
) -> Callable[[], None]:
    """What Ctrl-C does before Ray is taken away: drivers in this process are told, and MLflow."""
    from jobs.tracking.other_publications import mark_interrupted

    started = int(time())

    def interrupted() -> None:
        stop.set()
        warn_on_tracking_error(lambda: mark_interrupted(tracking, storage, runs, started), tracking)

    return interrupted


def complete(tracking: str, storage: Storage, runs: dict[Run, dict[str, str]]) -> None:
    """See that MLflow can be used, and that it has all of what ended before."""
    from jobs.tracking.other_publications import publish_ended

    warn_on_tracking_error(lambda: publish_ended(tracking, storage, runs), tracking)


def say_if_unpublished(published: list[bool], tracking: str) -> None:
    """Warn of runs that MLflow does not have in full."""
    missing = published.count(False)
    if missing:
        what = (
            f"{missing} of {len(published)} runs could not be published"
            if len(published) > 1
            else "not published"
        )
        print(
            f"warning: {what} to MLflow at {redacted(tracking)}; `resnet-repro sync` sends it when "
            "it "
            "is back",
            file=sys.stderr,
        )


def _ended(storage: Storage, run: Run, result: dict[str, Any]) -> str:
    if result["status"] != "finished":
        return f"{run}: {result['status']}: {result.get('reason', '')}"
    error = result["final"][TEST_ERR]
    return f"{run}: finished, {error:.2f} % test error after {result['iterations']:,} iterations; {storage.path(run.folder)}"


def failed_with(message: str) -> int:
    """Say what failed; the exit code of that."""
    print(f"error: {message}", file=sys.stderr)
    return 1
