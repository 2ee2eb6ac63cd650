"""`resnet-repro verify`: proves a stored run by its files, and by training a part of it again to
the same bytes.
"""

import json
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

import typer

from jobs.console import run_progress as screen
from jobs.requests.options import AddressOption, Device, DeviceOption, JsonOption, StorageOption
from jobs.requests.requested_runs import resolve_resources, stored_run_named
from pipeline.errors import InputError, reason_of
from pipeline.runs.checkpoint import iterations, newest_history, read_checkpoint
from pipeline.runs.history import History
from pipeline.runs.lease import is_alive
from pipeline.runs.provenance import drift, drift_text
from pipeline.runs.run import REFUSED, Run
from pipeline.storage import Storage


def verify(
    which: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A run's folder, or a row's name where that is enough."),
    ],
    seed: Annotated[
        int | None, typer.Option(min=0, help="The run's seed, where a row has several.")
    ] = None,
    start: Annotated[
        int | None, typer.Option("--from", min=0, help="Train again from this checkpoint on.")
    ] = None,
    files_only: Annotated[
        bool, typer.Option("--files-only", help="Read only; train nothing again.")
    ] = False,
    storage_uri: StorageOption = "results",
    device: DeviceOption = Device.AUTO,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Workers to train again with; default: 1.")
    ] = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prove a run: its files, its history, and the same bytes when its last part is trained again.

    The part goes from the last checkpoint but one to the newest; `--from 0` trains the whole run
    again. Exit code 1 where something is not as it should be.

    Examples:

    * `resnet-repro verify resnet20 --seed 0`

    * `resnet-repro verify results/runs/resnet20-c289b6b5/cifar10-1f3a2b4c/seed-0 --from 32000
      --json`
    """
    from pipeline.training.verify import examine

    storage = Storage(storage_uri)
    run = stored_run_named(storage, which, seed)
    if is_alive(storage, run):
        raise InputError(f"{run}: is being trained now; verify it when it has ended, or stop it")
    if not as_json:
        print(f"{run} in {storage.path(run.folder)}")
    findings: list[Any] = []

    def tell(finding: Any) -> None:
        findings.append(finding)
        if not as_json:
            print(
                f"  {'ok   ' if finding.good else 'WRONG'}  {finding.what + ':':<13} "
                f"{finding.found}",
                flush=True,
            )

    for finding in examine(storage, run):
        tell(finding)
    damaged = any(
        not finding.good for finding in findings if finding.what in ("identity", "dataset")
    )
    if not files_only and not damaged:
        tell(_train_again(storage, run, start, device, workers, address))
    good = all(finding.good for finding in findings)
    if as_json:
        print(
            json.dumps(
                [{"run": storage.path(run.folder), **asdict(finding)} for finding in findings],
                indent=1,
            )
        )
    else:
        trained = "" if files_only else " and trained again to the same bytes"
        print(f"verified{trained}" if good else "not verified")
    if not good:
        raise SystemExit(1)


def _train_again(
    storage: Storage,
    run: Run,
    start: int | None,
    device: Device,
    workers: int | None,
    address: str | None,
) -> Any:
    """Train a segment of the run again in a place of its own, which is deleted if everything is
    equal.
    """
    from jobs.execution.cluster import connected
    from jobs.execution.launch import check_workers, run_on_ray
    from pipeline.runs.execution import Execution
    from pipeline.training.verify import CheckResult, Segment, first_difference

    segment = Segment.of(storage, run, start)
    history = newest_history(storage, run)
    attempts = _attempts(history, segment.start)
    attempt = attempts[-1]
    if unprovable := _unprovable(attempts):
        return CheckResult("trained again", False, f"cannot be proved: {unprovable}")
    if device is Device.AUTO and attempt.get("device") == "cpu":
        device = Device.CPU
    one_pass = bool(attempt.get("one_pass"))
    workers = workers or (int(attempt.get("world_size", 1)) if one_pass else 1)
    check_workers(run, workers)
    below = f"verify/{run.folder.replace('/', '-')}-{segment.start}-{segment.end}"
    again = Storage(storage.uri_of(below))
    if segment.end in iterations(again, run):  # of an earlier verification that ended
        storage.delete(below)
    if not iterations(again, run):
        segment.prepare(storage, run, again)
    with connected(address):
        execution = Execution(
            storage=again.uri,
            datasets=storage.uri,
            workers=workers,
            one_pass=one_pass,
            allow_drift=True,
            deterministic=bool(attempt.get("deterministic", True)),
            until=segment.end,
        )
        execution, _ = resolve_resources(execution, device, threads=None, runs=1)
        title = f"{run} again, {segment.start:,} to {segment.end:,}"
        try:
            answer = screen.follow(
                title, again, [run], 1, partial(run_on_ray, run, execution), lambda: None
            )
        except InputError:
            raise
        except Exception as error:  # storage that is lost, workers that fail: no proof, and no reason for a traceback
            return CheckResult(
                "trained again",
                False,
                f"its workers failed ({reason_of(error)}); give the same command again",
            )
    if answer.get("status") == REFUSED:
        raise InputError(answer["reason"])
    what = f"{segment.start:,} to {segment.end:,}"
    elsewhere = _drift_text(attempt, newest_history(again, run))
    for iteration in segment.compared(storage, run):
        stored, made = (
            read_checkpoint(storage, run, iteration),
            read_checkpoint(again, run, iteration),
        )
        if stored is None or made is None:
            return CheckResult(
                "trained again", False, f"{what}: checkpoint {iteration:,} is damaged or missing"
            )
        if difference := first_difference(stored, made):
            but = (
                f"; it was made elsewhere, where bytes may differ ({elsewhere})"
                if elsewhere
                else ""
            )
            return CheckResult(
                "trained again", False, f"{what}: {iteration:,} differs in {difference}{but}"
            )
    storage.delete(below)
    though = f", though it was made elsewhere ({elsewhere})" if elsewhere else ""
    return CheckResult(
        "trained again", True, f"{what}: weights, momentum and history are the same bytes{though}"
    )


def _attempts(history: History | None, start: int) -> list[dict[str, Any]]:
    """The attempts that had a part in what was trained from an iteration on."""
    every = history.attempts if history else []
    begun = [n for n, one in enumerate(every) if one.get("from_iteration", 0) <= start]
    return every[max(begun, default=0) :] or [{}]


def _unprovable(attempts: list[dict[str, Any]]) -> str:
    """Why attempts cannot be expected to give the same bytes again; empty if they can."""
    shapes = {
        (bool(one.get("one_pass")), one.get("world_size") if one.get("one_pass") else 0)
        for one in attempts
    }
    if len(shapes) > 1:
        return (
            "it was made with and without --one-pass, or with several numbers of workers under it"
        )
    if any(one.get("device", "cpu") != "cpu" and not one.get("deterministic") for one in attempts):
        return "it was trained on a GPU with --no-deterministic"
    return ""


def _drift_text(attempt: dict[str, Any], again: History | None) -> str:
    """What differs between the run's last attempt and the one that trained it again."""
    return drift_text(drift(attempt, again.attempts[-1])) if again and again.attempts else ""
