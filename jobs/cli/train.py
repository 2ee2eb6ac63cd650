"""`resnet-repro train`: one run, which continues if it was interrupted."""

from threading import Event
from typing import Any

from analysis.measured.tags import ALONE, ASKED
from jobs.console.console import failed
from jobs.console.following import follow
from jobs.console.progress_log import announce
from jobs.console.termination import TerminatedError, stop_after
from jobs.requests.options import (
    AddressOption,
    DataOption,
    Device,
    DeviceOption,
    ExperimentArgument,
    SeedOption,
    SetOption,
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
    StopAfterOption,
)
from jobs.tracking.best_effort import (
    complete_published,
    judge_published,
    on_interrupt,
    warn_if_unpublished,
)
from pipeline.errors import InputError
from pipeline.recipe.metrics import TEST_ERR
from pipeline.recipe.overrides import experiment_named
from pipeline.runs.execution import Execution
from pipeline.runs.run import FAILED, REFUSED, SIGNALLED, Run, check_run, read_result
from pipeline.storage import Storage

RELEASE_SECONDS = 10.0
"""How long a command that Ctrl-C ends waits for its driver to give the run back."""

ASKED_ALONE = {ASKED: ALONE}


def train(
    experiment_name: ExperimentArgument,
    data: DataOption = None,
    seed: SeedOption = 0,
    workers: WorkersOption = "1",
    threads: ThreadsOption = None,
    device: DeviceOption = Device.AUTO,
    gpus: GpusOption = 1.0,
    one_pass: OnePassOption = False,
    compiled: CompileOption = False,
    minutes: StopAfterOption = None,
    iterations: IterationsOption = None,
    settings: SetOption = [],  # noqa: B006  (Typer reads it, nobody writes it)
    storage_uri: StorageOption = "results",
    tracking: TrackingOption = None,
    address: AddressOption = None,
    require_tracking: RequireTrackingOption = False,
    checkpoint_seconds: CheckpointOption = 30.0,
    allow_drift: DriftOption = False,
    any_kernels: AnyKernelsOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Train one run; given again, it continues, or says that it is finished.

    Without `--data` it is trained on the paper's own data, which `data prepare` brings.

    Examples:

    * `resnet-repro train resnet20 --data digits --iterations 400`: needs no file

    * `resnet-repro train resnet56 --seed 3 --workers 2`: on CIFAR-10 by the paper's recipe, each
      worker one of its two GPUs

    * `resnet-repro train resnet20 --set sgd=torch --set weight_decay_scope=all --dry-run`
    """
    from jobs.requests.default_data import check_earlier_default
    from jobs.requests.dry_run import show_resolved
    from jobs.requests.requested_runs import check_precision, execution_of, runs_of

    experiment = experiment_named(experiment_name, settings, iterations)
    if data is None:
        data = experiment.dataset
        check_earlier_default(Storage(storage_uri), [experiment], [seed])
    # Mistakes in names and numbers are refused before anything is written or started.
    fewest, _ = workers_of(workers)
    check_precision([experiment], on_cpus=device is Device.CPU)
    if dry_run:
        return show_resolved([experiment], [seed], data, storage_uri, tracking, workers)

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
    (run,) = runs_of(storage, [experiment], manifest_named(storage, data), [seed], fewest)

    # The run's folder alone decides whether there is something left to train.
    result = read_result(storage, run)
    if result is None:
        print(f"training {run} in {storage.path(run.folder)}", flush=True)
        outcome = _train(run, storage, execution, device, threads, address)
        if outcome["status"] == REFUSED:
            raise InputError(outcome["reason"])
        if outcome["status"] == FAILED:
            why = f"{run} failed: {outcome['reason']}"
            raise failed(f"{why}; give the same command again to continue")
        warn_if_unpublished([outcome["published"]], execution.tracking)
        if outcome["published"]:
            judge_published(execution.tracking, storage)
        result = read_result(storage, run)
    else:
        complete_published(execution.tracking, storage, {run: ASKED_ALONE})
    assert result is not None
    from jobs.tracking.where_to_look import say_where_to_look

    print(_ended(storage, run, result))
    say_where_to_look(execution.tracking, storage)
    # Some experiments are there to show what happens without care; any other that diverges failed.
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
    """Drive the run in this process, on the cluster at `address`; returns what `drive` does."""
    from jobs.execution.cluster import ask_to_stop, connected, where
    from jobs.requests.requested_runs import placement_words, resolve_resources

    # `stop` tells the driver that Ray is taken away from under it; `ended` says that it has
    # noticed.
    stop, ended = Event(), Event()

    def job() -> dict[str, Any]:
        from jobs.execution.drive import drive

        try:
            outcome = drive({run: ASKED_ALONE}, execution, stop.is_set)[run]
        finally:
            ended.set()
        if outcome["status"] == SIGNALLED:
            raise TerminatedError("a signal to a worker")
        return outcome

    announce("starting Ray")
    try:
        with connected(address, trains=True):
            execution, _ = resolve_resources(
                execution, device, threads, runs=1, experiments=[run.experiment]
            )
            begun = check_run(storage, run)
            kept = int(begun["threads"]) if begun else None
            announce(f"training {placement_words(execution, threads, kept)}")
            interrupted = on_interrupt(execution.tracking, storage, [run], stop)
            outcome: dict[str, Any] = follow(
                str(run), storage, [run], 1, job, interrupted, ask_to_stop, where()
            )
    finally:
        # After Ctrl-C the driver goes on in its thread until it notices that Ray is gone, and then
        # gives the lease back: without it the same command would have to wait for its expiry.
        if stop.is_set():
            ended.wait(RELEASE_SECONDS)
    return outcome


def _ended(storage: Storage, run: Run, result: dict[str, Any]) -> str:
    if result["status"] != "finished":
        return f"{run}: {result['status']}: {result.get('reason', '')}"
    error, iterations = result["final"][TEST_ERR], result["iterations"]
    says = f"result: {error:.2f} % test error after {iterations:,} iterations"
    return f"{says}; {run} is finished, in {storage.path(run.folder)}"
