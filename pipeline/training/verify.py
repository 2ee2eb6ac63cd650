"""What can be proved of a stored run: its files, its numbers, and its bytes by training again.

`examine` reads: files against their manifests, numbers against the row. `first_difference` compares
checkpoints with those of a re-run (`Segment`) from one checkpoint to a later one, made by whoever
can train. How fast a run was and when it ran are no part of what has to be equal.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from pipeline.data.staging import verify_stored
from pipeline.errors import InputError, first_line
from pipeline.recipe.metrics import CONVOLUTION_VARIANCE, SPEEDS
from pipeline.recipe.schedule import expected_points, milestone
from pipeline.runs.checkpoint import Checkpoint, folder, iterations, read_checkpoint
from pipeline.runs.history import DEVICE_SECONDS, JOULES, History
from pipeline.runs.provenance import drift, drift_text
from pipeline.runs.run import Run, check_run, read_result
from pipeline.storage import Storage
from pipeline.training.step.networks import build_network
from pipeline.training.step.weights import load_weights, read_tensors, stated_architecture

TENSORS = ("weights.safetensors", "momentum.safetensors")
"""The files of a checkpoint that are compared byte by byte."""
AFTER_THE_LAST_SAVE = ("checkpoint_stall_ms", DEVICE_SECONDS, JOULES)
"""Of an attempt, what the result may say otherwise than the last checkpoint: it ended later."""


@dataclass(frozen=True)
class CheckResult:
    """The result of one check: `what` was checked, whether it is `good`, and what was `found`."""

    what: str
    good: bool
    found: str


def examine(storage: Storage, run: Run) -> Iterator[CheckResult]:
    """Check all that can be checked without training, from identity to provenance.

    A check's result is yielded as soon as it is known: reading a large dataset takes a while.
    """
    yield _identity(storage, run)
    yield _dataset(storage, run)
    # History and provenance lie in checkpoints, so only sound ones have them.
    checkpoints, result = _checkpoints(storage, run)
    yield result
    if checkpoints:
        yield _history(storage, run, checkpoints)
        yield _provenance(checkpoints[max(checkpoints)])


def _identity(storage: Storage, run: Run) -> CheckResult:
    """Whether the folder's `run.json` and `result.json` are of this run."""
    try:
        run_json, result = check_run(storage, run), read_result(storage, run)
    except InputError as error:
        return CheckResult("identity", False, str(error))
    if run_json is None:
        return CheckResult("identity", False, "run.json is missing")
    state = result["status"] if result else "not ended"
    return CheckResult(
        "identity",
        True,
        f"fingerprint {run.experiment.fingerprint}, as its row and its folder say; {state}",
    )


def _result(storage: Storage, run: Run) -> dict[str, Any] | None:
    """The run's result; None too where the file is another run's, which `_identity` reports."""
    try:
        return read_result(storage, run)
    except InputError:
        return None


def _dataset(storage: Storage, run: Run) -> CheckResult:
    """Whether the stored dataset is the one whose id the run has."""
    try:
        row = verify_stored(storage, run.dataset_id)
    except InputError as error:
        return CheckResult("dataset", False, str(error))
    # Small images are hashed again, which gives the id; photographs are checked file by file.
    says = "its images give this id" if row.side else "every file as its manifest says"
    return CheckResult("dataset", True, f"{row.name} {run.dataset_id}: {says}")


def _checkpoints(storage: Storage, run: Run) -> tuple[dict[int, Checkpoint], CheckResult]:
    """The sound checkpoints by iteration, and the result of checking all of them.

    Sound: every file verifies, tensors are those of the row's network, the history can be read.
    """
    # Read every checkpoint. One without a manifest was never finished: no damage, just no use.
    checkpoints: dict[int, Checkpoint] = {}
    problems: list[str] = []
    for iteration in sorted(iterations(storage, run)):
        try:
            checkpoint = read_checkpoint(storage, run, iteration)
            if checkpoint is not None:
                _check_tensors(run, checkpoint)
                checkpoints[iteration] = checkpoint
            elif storage.exists(f"{folder(run, iteration)}/manifest.json"):
                problems.append(f"{iteration}: a file is not what its manifest says")
        except InputError as error:
            problems.append(f"{iteration}: {error}")
        except (ValueError, KeyError, TypeError) as error:
            problems.append(f"{iteration}: history.json cannot be read ({first_line(error)})")

    # A finished run keeps a checkpoint at each lr drop and at its end. One that is damaged has been
    # reported above and is not missing as well.
    result = _result(storage, run)
    if result is not None:
        expected = (
            [*run.experiment.lr_drops, run.experiment.iterations]
            if result["status"] == "finished"
            else []
        )
        damaged = {int(problem.partition(":")[0]) for problem in problems}
        missing = [i for i in expected if i not in checkpoints and i not in damaged]
        problems += [f"{i}: is missing" for i in missing]

    if problems:
        return checkpoints, CheckResult("checkpoints", False, "; ".join(problems))
    if not checkpoints:
        return checkpoints, CheckResult("checkpoints", True, "none yet")
    listed = ", ".join(f"{i:,}" for i in checkpoints)
    return checkpoints, CheckResult(
        "checkpoints", True, f"{listed}: every file as its manifest says"
    )


def _check_tensors(run: Run, checkpoint: Checkpoint) -> None:
    """Parse everything in a checkpoint, as a run that continues from it would.

    Raises:
        InputError: tensors or history are of another network or iteration.
        ValueError, KeyError, TypeError: the history or the weights' header cannot be parsed.
    """
    # Load the weights into a network of the row, with as many classes as the file says.
    where = f"checkpoint {checkpoint.iteration}"
    weights, momentum = (checkpoint.files[name] for name in TENSORS)
    classes = stated_architecture(read_tensors(weights, where)[1])["classes"]
    network = build_network(run.experiment, run.seed, classes)
    load_weights(network, run.experiment, classes, weights, where)
    # Momentum is one flat vector with an element for each parameter.
    count = sum(parameter.numel() for parameter in network.parameters())
    if read_tensors(momentum, where)[0]["momentum"].numel() != count:
        raise InputError(f"{where}: momentum is not that of {count:,} parameters")
    try:
        history = History.from_json(checkpoint.files["history.json"])
    except InputError as error:
        raise InputError(f"history.json cannot be read ({error})") from error
    if history.iteration != checkpoint.iteration:
        raise InputError(f"{where}: its history is of another iteration")


def _history(storage: Storage, run: Run, checkpoints: dict[int, Checkpoint]) -> CheckResult:
    """Each checkpoint's measurements: complete, the same in all, and those of `result.json`."""
    # Check each history, from the newest to the oldest, against what the row measures by then.
    histories = {
        iteration: History.from_json(checkpoint.files["history.json"])
        for iteration, checkpoint in checkpoints.items()
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
            missing, unexpected = expected - set(measured), set(measured) - expected
            return CheckResult(
                "history",
                False,
                f"{iteration:,}: {len(missing)} points are missing, "
                f"{len(unexpected)} do not belong",
            )
        # Compared with values and times: a run that continues only ever adds points.
        if history.points != newest.points[: len(history.points)]:
            return CheckResult(
                "history",
                False,
                f"{iteration:,}: its points are not the first ones of the newest checkpoint",
            )

    # Check that a finished run's result tells what its last checkpoint holds.
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
    """Whether result and last checkpoint have the same attempts.

    What comes after the last checkpoint is left out: the time that saving took, what it cost, and
    attempts that found nothing left to train.
    """

    def trained(attempts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {key: value for key, value in attempt.items() if key not in AFTER_THE_LAST_SAVE}
            for attempt in attempts
            if attempt["from_iteration"] < result["iterations"]
        ]

    return trained(result["attempts"]) == trained(history)


def _provenance(checkpoint: Checkpoint) -> CheckResult:
    """Whether all attempts used the same software and hardware, or were allowed to drift."""
    # Compare each attempt with the one before; "drift" is recorded where a user allowed it.
    attempts = History.from_json(checkpoint.files["history.json"]).attempts
    for before, after in pairwise(attempts):
        differing = drift_text(drift(before, after))
        if differing and "drift" not in after:
            return CheckResult(
                "provenance", False, f"attempts differ, which nobody allowed: {differing}"
            )

    # Say what the run was made with.
    drifts = [attempt["drift"] for attempt in attempts if "drift" in attempt]
    dirty = (
        ", from a checkout with uncommitted changes"
        if any(attempt.get("dirty") for attempt in attempts)
        else ""
    )
    allowed = f"; drift was allowed ({'; '.join(drifts)})" if drifts else ""
    count = f"{len(attempts)} attempt{'s' * (len(attempts) != 1)}"
    return CheckResult("provenance", True, f"{count} on {_kinds(attempts)}{dirty}{allowed}")


def _kinds(attempts: list[dict[str, Any]]) -> str:
    """Each kind of hardware with the commit (12 digits) it ran, in order, without repetition."""
    kinds = [
        f"{attempt.get('hardware', 'unknown hardware')} "
        f"({str(attempt.get('commit', 'unknown commit'))[:12]})"
        for attempt in attempts
    ]
    return ", ".join(dict.fromkeys(kinds))


@dataclass(frozen=True)
class Segment:
    """The part of a run that is trained again, from checkpoint `start` to checkpoint `end`.

    Start 0 is the network's initialisation.
    """

    start: int
    end: int

    @classmethod
    def of(cls, storage: Storage, run: Run, start: int | None) -> "Segment":
        """The segment from `start`, or from the last checkpoint but one, to the newest.

        Damaged checkpoints do not count.

        Raises:
            InputError: `start` is no readable checkpoint, or nothing comes after it.
        """
        readable = sorted(
            i for i in iterations(storage, run) if read_checkpoint(storage, run, i) is not None
        )
        if not readable:
            raise InputError(f"{run}: has no checkpoint yet, so there is nothing to train again")
        if start is None:
            start = readable[-2] if len(readable) > 1 else 0
        # The newest cannot be a start: nothing stored comes after it to compare with.
        if start not in (0, *readable[:-1]):
            choices = ", ".join(map(str, (0, *readable[:-1])))
            raise InputError(
                f"--from {start}: no checkpoint of {run} with another after it; there are {choices}"
            )
        return cls(start, readable[-1])

    def says(self, run: Run) -> str:
        """Which iterations it is, and how much of the run."""
        share = (self.end - self.start) / run.experiment.iterations
        return (
            f"{self.start:,} to {self.end:,} of {run.experiment.iterations:,} iterations "
            f"({share:.0%})"
        )

    def compared(self, storage: Storage, run: Run) -> list[int]:
        """Iterations whose checkpoints are compared: the end, and the lr drops on the way.

        At others the two runs need not both have saved: when they do depends on the clock.
        """
        inside = [i for i in iterations(storage, run) if self.start < i <= self.end]
        return sorted(i for i in inside if i == self.end or milestone(run.experiment, i))

    def prepare(self, storage: Storage, run: Run, copy: Storage) -> None:
        """Write the run as it stood at `start` into another storage, `copy`, to train it there."""
        copy.write(f"{run.folder}/run.json", storage.read(f"{run.folder}/run.json"))
        if self.start:
            names = (*TENSORS, "history.json", "manifest.json")
            for name in names:
                path = f"{folder(run, self.start)}/{name}"
                copy.write(path, storage.read(path))


def first_difference(stored: Checkpoint, again: Checkpoint) -> str:
    """Where two checkpoints of one iteration differ first; empty if they are equal.

    Compared are the tensors' bytes and all measurements but speeds.
    """
    # Weights and momentum, byte by byte.
    for name in TENSORS:
        if stored.files[name] != again.files[name]:
            return f"{name}: {_tensor_difference(stored.files[name], again.files[name])}"

    # Measurements: metric, iteration and exact value, but not when they were taken.
    stored_history, history_again = (
        History.from_json(checkpoint.files["history.json"]) for checkpoint in (stored, again)
    )
    stored_points, points_again = (
        [point for point in history.points if point.metric not in SPEEDS]
        for history in (stored_history, history_again)
    )
    for point, other in zip(stored_points, points_again, strict=False):
        measured = point.metric, point.iteration, point.value
        measured_again = other.metric, other.iteration, other.value
        if measured != measured_again:
            return f"{point.metric} at {point.iteration:,}: {point.value!r}, again {other.value!r}"
    if len(stored_points) != len(points_again):
        return f"{len(stored_points)} points, again {len(points_again)}"

    # What the rest of the run depends on, and what Figure 7 shows; attempts may differ.
    for name in ("warmup_end", "window"):
        if getattr(stored_history, name) != getattr(history_again, name):
            return f"{name} of the history"
    # A run of an earlier version lacks what is measured since, which is no difference of the run.
    if stored_history.converging_rule == history_again.converging_rule:
        for name in ("converging_from", "wrong_counts"):
            if getattr(stored_history, name) != getattr(history_again, name):
                return f"{name} of the history"
    layers_again = history_again.layers
    if all(values.quantity != CONVOLUTION_VARIANCE for values in stored_history.layers):
        layers_again = [v for v in layers_again if v.quantity != CONVOLUTION_VARIANCE]
    if stored_history.layers != layers_again:
        return "layers of the history"
    return ""


def _tensor_difference(stored: bytes, again: bytes) -> str:
    """The first tensor in which two safetensors files differ, and by how much."""
    (before, _), (after, _) = read_tensors(stored, "stored"), read_tensors(again, "again")
    for name in sorted(before.keys() | after.keys()):
        if name not in before or name not in after or before[name].shape != after[name].shape:
            return f"{name} is not in both"
        if not torch.equal(before[name], after[name]):
            unequal = int((before[name] != after[name]).sum())
            most = float((before[name].double() - after[name].double()).abs().max())
            return f"{name}: {unequal:,} of {before[name].numel():,} values, by up to {most:.3g}"
    # The bytes differ, but no tensor does.
    return "the header"
