"""`resnet-repro verify`: proves a stored run by its files, and by training a part of it again."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

import typer

from jobs.console.following import follow
from jobs.console.termination import TerminatedError
from jobs.requests.completion import runs as stored
from jobs.requests.options import (
    HARDWARE,
    AddressOption,
    Device,
    DeviceOption,
    JsonOption,
    StorageOption,
    existing,
)
from pipeline.errors import InputError, reason_of
from pipeline.runs.checkpoint import iterations, newest_history, read_checkpoint
from pipeline.runs.execution import Execution
from pipeline.runs.history import History
from pipeline.runs.lease import living
from pipeline.runs.provenance import drift, drift_text
from pipeline.runs.run import REFUSED, SIGNALLED, Run
from pipeline.storage import Storage


def verify(
    which: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run's folder, or its experiment where that is enough.",
            autocompletion=stored,
        ),
    ],
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="The run's seed, where an experiment has several."),
    ] = None,
    start: Annotated[
        int | None,
        typer.Option(
            "--from", metavar="ITERATION", min=0, help="Train again from this checkpoint on."
        ),
    ] = None,
    files_only: Annotated[
        bool, typer.Option("--files-only", help="Read only; train nothing again.")
    ] = False,
    storage_uri: StorageOption = "results",
    device: DeviceOption = Device.AUTO,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Workers to train again with; default: 1.",
            rich_help_panel=HARDWARE,
        ),
    ] = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prove a run: its files, its history, and the same bytes when its last part is trained again.

    The part goes from the last checkpoint but one to the newest, and its share of the run is said;
    `--from 0` trains the whole run again. Exit code 1 where something is not as it should be.

    Examples:

    * `resnet-repro verify resnet20 --seed 0`

    * `resnet-repro verify results/runs/resnet20-c289b6b5/cifar10-1f3a2b4c/seed-0 --from 32000
      --json`
    """
    from jobs.requests.stored_runs import stored_run_named
    from pipeline.training.verify import examine

    storage = existing(storage_uri)
    run = stored_run_named(storage, which, seed)
    # Checkpoints come and go while a run is trained: what is looked at might be deleted meanwhile.
    if living(storage, [run]):
        raise InputError(f"{run}: is being trained now; verify it when it has ended, or stop it")
    if not as_json:
        print(f"{run} in {storage.path(run.folder)}")
    checks: list[Any] = []

    def tell(check: Any) -> None:
        checks.append(check)
        if not as_json:
            verdict, what = "ok   " if check.good else "WRONG", f"{check.what}:"
            print(f"  {verdict}  {what:<13} {check.found}", flush=True)

    # The files first, which takes seconds; of a run that is not what its folder says, or whose
    # data is another, training again would prove nothing.
    for check in examine(storage, run):
        tell(check)
    untrainable = any(not check.good for check in checks if check.what in ("identity", "dataset"))
    if not files_only and not untrainable:
        tell(_train_again(storage, run, start, device, workers, address))

    good = all(check.good for check in checks)
    if as_json:
        facts = [{"run": storage.path(run.folder), **asdict(check)} for check in checks]
        print(json.dumps(facts, indent=1))
    else:
        print(_verdict(checks, files_only) if good else "not verified")
    if not good:
        raise SystemExit(1)


def _verdict(checks: list[Any], files_only: bool) -> str:
    """What is proved of a run that is as it should be, and what is not."""
    if files_only:
        return "verified: the files; nothing was trained again"
    share = checks[-1].found.partition(":")[0]
    more = "" if share.startswith("0 to ") else "; --from 0 does so with all of it"
    return f"verified: the files, and {share} trained again to the same bytes{more}"


def _train_again(
    storage: Storage,
    run: Run,
    start: int | None,
    device: Device,
    workers: int | None,
    address: str | None,
) -> Any:
    """Train a segment of the run again, in a storage of its own, and compare the bytes.

    That storage is deleted if everything is equal, and kept for whoever looks for the difference
    otherwise.
    """
    from jobs.execution.launch import check_workers
    from pipeline.training.verify import CheckResult, Segment

    segment = Segment.of(storage, run, start)
    attempts = _attempts(newest_history(storage, run), segment.start)
    attempt = attempts[-1]
    if unprovable := _unprovable(attempts):
        return CheckResult("trained again", False, f"cannot be proved: {unprovable}")

    # As the last attempt was carried out, where that decides the bytes: on a CPU if it was on one,
    # and with its number of workers only where groups of images were computed in one pass.
    if device is Device.AUTO and attempt.get("device") == "cpu":
        device = Device.CPU
    one_pass = bool(attempt.get("one_pass"))
    workers = workers or (int(attempt.get("world_size", 1)) if one_pass else 1)
    check_workers(run, workers)

    folder = f"verify/{run.folder.replace('/', '-')}-{segment.start}-{segment.end}"
    scratch = Storage(storage.uri_of(folder))
    # A verification that was interrupted continues, as every command does; one that ended, and
    # found a difference, is made again.
    if segment.end in iterations(scratch, run):
        storage.delete(folder)
    if not iterations(scratch, run):
        segment.prepare(storage, run, scratch)
    failure = _train_segment(
        run,
        segment,
        Execution(
            storage=scratch.uri,
            datasets=storage.uri,
            workers=workers,
            one_pass=one_pass,
            # Training again elsewhere is allowed here; what it means is said with the result.
            allow_drift=True,
            deterministic=bool(attempt.get("deterministic", True)),
            until=segment.end,
        ),
        device,
        address,
    )
    if failure:
        return CheckResult("trained again", False, failure)
    result = _compare(storage, scratch, run, segment, attempt)
    if result.good:
        storage.delete(folder)
    return result


def _train_segment(
    run: Run, segment: Any, execution: Execution, device: Device, address: str | None
) -> str:
    """Train to the segment's end; why that failed, empty if it did not.

    Raises:
        InputError: there is no cluster, it has no room, or the run refuses to be trained so.
    """
    from jobs.execution.cluster import ask_to_stop, connected
    from jobs.execution.launch import run_on_ray
    from jobs.requests.requested_runs import resolve_resources

    title = f"{run} again, {segment.start:,} to {segment.end:,}"
    with connected(address, trains=True):
        execution, _ = resolve_resources(
            execution, device, threads=None, runs=1, experiments=[run.experiment]
        )
        storage = Storage(execution.storage)
        try:
            train = partial(run_on_ray, run, execution)
            answer = follow(title, storage, [run], 1, train, on_terminate=ask_to_stop)
        except InputError:
            raise
        except Exception as error:  # lost storage, failed workers: no proof, but no bug of ours
            return f"its workers failed ({reason_of(error)}); give the same command again"
    if answer.get("status") == REFUSED:
        raise InputError(answer["reason"])
    if answer.get("status") == SIGNALLED:
        raise TerminatedError("a signal to a worker")
    return ""


def _compare(
    storage: Storage, scratch: Storage, run: Run, segment: Any, attempt: dict[str, Any]
) -> Any:
    """Whether the segment's checkpoints are the same bytes in both storages."""
    from pipeline.training.verify import CheckResult, first_difference

    what = segment.says(run)
    # Other versions or hardware may give other bytes: a difference is then no fault of the run's.
    elsewhere = _drift_text(attempt, newest_history(scratch, run))
    for iteration in segment.compared(storage, run):
        stored = read_checkpoint(storage, run, iteration)
        trained = read_checkpoint(scratch, run, iteration)
        if stored is None or trained is None:
            says = f"{what}: checkpoint {iteration:,} is damaged or missing"
            return CheckResult("trained again", False, says)
        if difference := first_difference(stored, trained):
            says = f"{what}: {iteration:,} differs in {difference}"
            if elsewhere:
                says += f"; it was made elsewhere, where bytes may differ ({elsewhere})"
            return CheckResult("trained again", False, says)
    says = f"{what}: weights, momentum and history are the same bytes"
    says += f", though it was made elsewhere ({elsewhere})" if elsewhere else ""
    return CheckResult("trained again", True, says)


def _attempts(history: History | None, start: int) -> Sequence[dict[str, Any]]:
    """The attempts that had a part in what was trained from an iteration on."""
    every = history.attempts if history else []
    begun = [
        number for number, attempt in enumerate(every) if attempt.get("from_iteration", 0) <= start
    ]
    return every[max(begun, default=0) :] or [{}]


def _unprovable(attempts: Sequence[dict[str, Any]]) -> str:
    """Why attempts cannot be expected to give the same bytes again; empty if they can."""
    # Without --one-pass the number of workers changes no byte, so it does not count then.
    shapes = {
        (bool(attempt.get("one_pass")), attempt.get("world_size") if attempt.get("one_pass") else 0)
        for attempt in attempts
    }
    if len(shapes) > 1:
        return (
            "it was made with and without --one-pass, or with several numbers of workers under it"
        )
    if any(attempt.get("compiled") for attempt in attempts):
        return "it was trained with compiled kernels"
    on_gpu = [attempt for attempt in attempts if attempt.get("device", "cpu") != "cpu"]
    if any(not attempt.get("deterministic") for attempt in on_gpu):
        return "it was trained on a GPU without deterministic kernels"
    return ""


def _drift_text(attempt: dict[str, Any], again: History | None) -> str:
    """What differs between the run's last attempt and the one that trained it again."""
    return drift_text(drift(attempt, again.attempts[-1])) if again and again.attempts else ""
