"""What can be proved of a stored run: its files against their manifests, its numbers against its
row, its bytes again.

`examine` reads; a re-run from one checkpoint to a later one (`Segment`), made by whoever can train,
is compared by `first_difference`. How fast a run was and when it ran are no part of what has to be
equal.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from json import loads
from typing import Any

import torch

from pipeline.data.staging import verify_stored
from pipeline.errors import InputError, first_line
from pipeline.recipe.metrics import SPEEDS
from pipeline.recipe.schedule import expected_points, milestone
from pipeline.runs.checkpoint import Checkpoint, folder, iterations, read_checkpoint
from pipeline.runs.history import History
from pipeline.runs.provenance import drift, drift_text
from pipeline.runs.run import Run, check_run, read_result
from pipeline.storage import Storage
from pipeline.training.step.networks import build_network
from pipeline.training.step.weights import HEADER, load_weights, read_tensors

TENSORS = ("weights.safetensors", "momentum.safetensors")


@dataclass(frozen=True)
class CheckResult:
    """One thing that was looked at: `what` it is, whether it is as it should be, and what was
    found.
    """

    what: str
    good: bool
    found: str


def examine(storage: Storage, run: Run) -> Iterator[CheckResult]:
    """Everything that can be seen of a run without training: identity, dataset, checkpoints,
    history, provenance.
    """
    yield _identity(storage, run)
    yield _dataset(storage, run)
    sound, finding = _checkpoints(storage, run)
    yield finding
    if sound:
        yield _history(storage, run, sound)
        yield _provenance(sound[max(sound)])


def _identity(storage: Storage, run: Run) -> CheckResult:
    try:
        about, result = check_run(storage, run), read_result(storage, run)
    except InputError as error:
        return CheckResult("identity", False, str(error))
    if about is None:
        return CheckResult("identity", False, "run.json is missing")
    state = result["status"] if result else "not ended"
    return CheckResult(
        "identity",
        True,
        f"fingerprint {run.experiment.fingerprint}, as its row and its folder say; {state}",
    )


def _result(storage: Storage, run: Run) -> dict[str, Any] | None:
    """The run's result; None too where the file is not ours, which `_identity` says."""
    try:
        return read_result(storage, run)
    except InputError:
        return None


def _dataset(storage: Storage, run: Run) -> CheckResult:
    try:
        row = verify_stored(storage, run.dataset_id)
    except InputError as error:
        return CheckResult("dataset", False, str(error))
    says = "its images give this id" if row.side else "every file as its manifest says"
    return CheckResult("dataset", True, f"{row.name} {run.dataset_id}: {says}")


def _checkpoints(storage: Storage, run: Run) -> tuple[dict[int, Checkpoint], CheckResult]:
    """The checkpoints that verify and whose tensors are those of the row's network, and what was
    found on the way.
    """
    sound: dict[int, Checkpoint] = {}
    wrong: list[str] = []
    for iteration in sorted(iterations(storage, run)):
        try:
            checkpoint = read_checkpoint(storage, run, iteration)
            if checkpoint is not None:
                _check_tensors(run, checkpoint)
                sound[iteration] = checkpoint
            elif storage.exists(f"{folder(run, iteration)}/manifest.json"):
                wrong.append(f"{iteration}: a file is not what its manifest says")
        except InputError as error:
            wrong.append(f"{iteration}: {error}")
        except (ValueError, KeyError, TypeError) as error:
            wrong.append(f"{iteration}: history.json cannot be read ({first_line(error)})")
    result = _result(storage, run)
    if result is not None:
        needed = (
            [*run.experiment.lr_drops, run.experiment.iterations]
            if result["status"] == "finished"
            else []
        )
        damaged = {int(text.partition(":")[0]) for text in wrong}
        wrong += [f"{i}: is missing" for i in needed if i not in sound and i not in damaged]
    if wrong:
        return sound, CheckResult("checkpoints", False, "; ".join(wrong))
    if not sound:
        return sound, CheckResult("checkpoints", True, "none yet")
    return sound, CheckResult(
        "checkpoints",
        True,
        f"{', '.join(f'{i:,}' for i in sound)}: every file as its manifest says",
    )


def _check_tensors(run: Run, checkpoint: Checkpoint) -> None:
    """Parse everything in a checkpoint.

    Raises:
        InputError, ValueError, KeyError, TypeError: something else lies in the place of tensors or
            history.
    """
    where = f"checkpoint {checkpoint.iteration}"
    weights, momentum = (checkpoint.files[name] for name in TENSORS)
    header = loads(read_tensors(weights, where)[1].get(HEADER, "{}"))
    classes = header["architecture"]["classes"]
    network = build_network(run.experiment, run.seed, classes)
    load_weights(network, run.experiment, classes, weights, where)
    count = sum(parameter.numel() for parameter in network.parameters())
    if read_tensors(momentum, where)[0]["momentum"].numel() != count:
        raise InputError(f"{where}: momentum is not that of {count:,} parameters")
    if History.from_json(checkpoint.files["history.json"]).iteration != checkpoint.iteration:
        raise InputError(f"{where}: its history is of another iteration")


def _history(storage: Storage, run: Run, sound: dict[int, Checkpoint]) -> CheckResult:
    """Each checkpoint's measurements: complete, the same in all, and those of `result.json`."""
    histories = {
        i: History.from_json(checkpoint.files["history.json"]) for i, checkpoint in sound.items()
    }
    newest = histories[max(histories)]
    for iteration, history in sorted(histories.items(), reverse=True):
        measured = [(point.metric, point.iteration) for point in history.points]
        expected = expected_points(run.experiment, iteration)
        if len(measured) != len(set(measured)):
            return CheckResult(
                "history",
                False,
                f"{iteration:,}: {len(measured) - len(set(measured))} points are doubled",
            )
        if set(measured) != expected:
            lost, odd = expected - set(measured), set(measured) - expected
            return CheckResult(
                "history",
                False,
                f"{iteration:,}: {len(lost)} points are missing, {len(odd)} do not belong",
            )
        if history.points != newest.points[: len(history.points)]:
            return CheckResult(
                "history",
                False,
                f"{iteration:,}: its points are not the first ones of the newest checkpoint",
            )
    result = _result(storage, run)
    if result is not None and result["status"] == "finished":
        if result["final"] != newest.last():
            return CheckResult(
                "history", False, "final in result.json is not what the last checkpoint holds"
            )
        if not _same_attempts(result, newest.attempts):
            return CheckResult(
                "history", False, "attempts in result.json are not those of the last checkpoint"
            )
    agrees = ", result.json agrees" if result else ""
    return CheckResult(
        "history",
        True,
        f"{len(newest.points):,} points, all that the row asks for, none twice{agrees}",
    )


def _same_attempts(result: dict[str, Any], history: list[dict[str, Any]]) -> bool:
    """Whether result and last checkpoint tell of the same attempts.

    How long saving took is added to the last one afterwards; an attempt that found nothing left to
    train is in the result alone.
    """

    def trained(attempts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        some = [one for one in attempts if one["from_iteration"] < result["iterations"]]
        return [
            {key: value for key, value in one.items() if key != "checkpoint_stall_ms"}
            for one in some
        ]

    return trained(result["attempts"]) == trained(history)


def _provenance(checkpoint: Checkpoint) -> CheckResult:
    """Whether all attempts were made with the same software and hardware, or by whose leave not."""
    attempts = History.from_json(checkpoint.files["history.json"]).attempts
    for before, after in pairwise(attempts):
        differing = drift_text(drift(before, after))
        if differing and "drift" not in after:
            return CheckResult(
                "provenance", False, f"attempts differ, which nobody allowed: {differing}"
            )
    drifts = [attempt["drift"] for attempt in attempts if "drift" in attempt]
    dirty = (
        ", from a checkout with uncommitted changes"
        if any(attempt.get("dirty") for attempt in attempts)
        else ""
    )
    made = f"{len(attempts)} attempt{'s' * (len(attempts) != 1)} on {_kinds(attempts)}{dirty}"
    return CheckResult(
        "provenance", True, made + (f"; drift was allowed ({'; '.join(drifts)})" if drifts else "")
    )


def _kinds(attempts: list[dict[str, Any]]) -> str:
    kinds = [
        f"{a.get('hardware', 'unknown hardware')} ({str(a.get('commit', 'unknown commit'))[:12]})"
        for a in attempts
    ]
    return ", ".join(dict.fromkeys(kinds))


@dataclass(frozen=True)
class Segment:
    """The part of a run that is trained again: from checkpoint `start` (0: from initialisation) to
    checkpoint `end`.
    """

    start: int
    end: int

    @classmethod
    def of(cls, storage: Storage, run: Run, start: int | None) -> "Segment":
        """From `start`, by default the last checkpoint but one, to the newest; of those that are
        not damaged.

        Raises:
            InputError: there is no such checkpoint, or nothing after it.
        """
        there = sorted(
            i for i in iterations(storage, run) if read_checkpoint(storage, run, i) is not None
        )
        if not there:
            raise InputError(f"{run}: has no checkpoint yet, so there is nothing to train again")
        if start is None:
            start = there[-2] if len(there) > 1 else 0
        if start not in (0, *there[:-1]):
            choices = ", ".join(map(str, (0, *there[:-1])))
            raise InputError(
                f"--from {start}: no checkpoint of {run} with another after it; there are {choices}"
            )
        return cls(start, there[-1])

    def compared(self, storage: Storage, run: Run) -> list[int]:
        """The iterations of it whose checkpoints both have: its end, and the lr drops on the way."""
        there = [i for i in iterations(storage, run) if self.start < i <= self.end]
        return sorted(i for i in there if i == self.end or milestone(run.experiment, i))

    def prepare(self, storage: Storage, run: Run, copy: Storage) -> None:
        """Put the run as it stood at `start` into another storage."""
        copy.write(f"{run.folder}/run.json", storage.read(f"{run.folder}/run.json"))
        if self.start:
            names = (*TENSORS, "history.json", "manifest.json")
            for name in names:
                path = f"{folder(run, self.start)}/{name}"
                copy.write(path, storage.read(path))


def first_difference(stored: Checkpoint, again: Checkpoint) -> str:
    """Where two checkpoints of one iteration differ first; empty if their bytes and measurements
    are equal.
    """
    for name in TENSORS:
        if stored.files[name] != again.files[name]:
            return f"{name}: {_tensor_difference(stored.files[name], again.files[name])}"
    one, two = (
        History.from_json(checkpoint.files["history.json"]) for checkpoint in (stored, again)
    )
    mine, theirs = ([p for p in h.points if p.metric not in SPEEDS] for h in (one, two))
    for point, other in zip(mine, theirs, strict=False):
        known, measured = (
            (point.metric, point.iteration, point.value),
            (other.metric, other.iteration, other.value),
        )
        if known != measured:
            return f"{point.metric} at {point.iteration:,}: {point.value!r}, again {other.value!r}"
    if len(mine) != len(theirs):
        return f"{len(mine)} points, again {len(theirs)}"
    for name in ("layers", "warmup_end", "converging_from", "window"):
        if getattr(one, name) != getattr(two, name):
            return f"{name} of the history"
    return ""


def _tensor_difference(stored: bytes, again: bytes) -> str:
    (one, _), (two, _) = read_tensors(stored, "stored"), read_tensors(again, "again")
    for name in sorted(one.keys() | two.keys()):
        if name not in one or name not in two or one[name].shape != two[name].shape:
            return f"{name} is not in both"
        if not torch.equal(one[name], two[name]):
            unequal = int((one[name] != two[name]).sum())
            most = float((one[name].double() - two[name].double()).abs().max())
            return f"{name}: {unequal:,} of {one[name].numel():,} values, by up to {most:.3g}"
    return "the header"
