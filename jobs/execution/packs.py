"""A pack of runs as its driver sees it: who trains beside whom, and who is to blame for a failure.

Knows nothing of Ray: `jobs.execution.launch` starts what is decided here.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from jobs.execution.processors import kernel_settings
from pipeline.errors import InputError, StorageLostError
from pipeline.recipe.experiments import Experiment
from pipeline.recipe.layers import layout
from pipeline.runs.checkpoint import newest_iteration
from pipeline.runs.execution import Execution
from pipeline.runs.lease import Lease
from pipeline.runs.run import FAILED, LOST, PREEMPTED, REFUSED, STOPPED, Run, read_result
from pipeline.storage import Storage

Outcome = dict[str, Any] | Exception
"""How a run ended: its `result.json` (or status `stopped`), or why it did not."""

MAX_RESTARTS = 10
"""The retry budget of a command: failures of a run's workers; preemptions do not count."""

MAX_FAILURES_WITHOUT_PROGRESS = 3
"""Failures in a row without a new checkpoint after which a retry would only repeat them."""


def packs_of(
    runs: Sequence[Run], execution: Execution, places: int, most: Callable[[Experiment], int]
) -> list[list[Run]]:
    """Share runs out as packs: at most `most` of an experiment at once, and no place left idle.

    A pack's runs have one dataset, want the same of their process's kernels, and none has less than
    half of another's work: it would leave early, and the others a GPU that idles. Photographs are
    trained alone: a network for them fills a GPU.
    """
    share, packs = ceil(len(runs) / max(places, 1)), dict[Hashable, list[list[Run]]]()
    for run in runs:
        experiment = run.experiment
        size = 1 if experiment.family == "imagenet" else min(share, most(experiment))
        # The size is part of what packs have in common: a large network keeps its packs small.
        kind = (run.dataset_id, kernel_settings(experiment, execution), size)
        kin = packs.setdefault(kind, [])
        if not kin or len(kin[-1]) >= size or work(experiment) < work(kin[-1][0].experiment) / 2:
            kin.append([])
        kin[-1].append(run)
    # In the order of their first runs, which is the costliest first.
    order = {run: number for number, run in enumerate(runs)}
    return sorted((pack for kin in packs.values() for pack in kin), key=lambda pack: order[pack[0]])


def work(experiment: Experiment) -> float:
    """A run's multiply-adds for an image of each batch, over all its iterations."""
    return float(layout(experiment).multiply_adds * experiment.iterations)


@dataclass
class PackedRun:
    """A run that this driver holds, one of a pack or alone."""

    run: Run
    lease: Lease
    threads: int
    """CPU threads of the run's first start."""
    reached: int
    """Its newest checkpoint, when that was last looked at."""
    failures: int = 0
    without_progress: int = 0
    """Failures alone since its last new checkpoint."""
    progressed: bool = True
    """Whether it had a new checkpoint when it last failed."""
    failed_itself: bool = False
    """Whether its last attempt failed while its group went on."""
    outcome: Outcome | None = None
    """How it ended; None while it has to go on."""

    def judge(
        self,
        storage: Storage,
        answer: dict[str, Any] | None,
        failure: Exception | None,
        alone: bool,
    ) -> None:
        """Settle what an attempt comes to.

        `answer` is the worker's, None where it never came; `failure` is that of the whole group.
        """
        answer = answer or {"status": FAILED, "reason": "its worker ended without an answer"}
        status, reason = answer["status"], answer.get("reason", "")
        self.failed_itself = failure is None and status == FAILED
        # A worker that was refused or lost its storage returned normally, so that Ray did not retry
        # it.
        if status == REFUSED:
            self.outcome = InputError(reason)
        elif status == LOST:
            self.outcome = StorageLostError(reason)
        elif status == STOPPED:
            self.outcome = answer
        elif status == FAILED:
            self._failed(storage, failure or RuntimeError(reason), alone)
        elif status != PREEMPTED:
            where = storage.path(self.run.folder)
            missing = f"{self.run}: its workers ended without writing result.json to {where}"
            self.outcome = read_result(storage, self.run) or RuntimeError(missing)

    def _failed(self, storage: Storage, error: Exception, alone: bool) -> None:
        """End the run, or count the failure: it may be tried again."""
        # It may have ended before the others took its worker down.
        if (result := read_result(storage, self.run)) is not None:
            self.outcome = result
            return
        if not self.lease.held():
            taken = f"{self.run}: another command has taken it over; it goes on there"
            self.outcome = InputError(taken)
            return
        # A new checkpoint is progress: then the next failure is another one, not the same.
        before, self.reached = self.reached, newest_iteration(storage, self.run)
        self.progressed = self.reached > before
        self.failures += 1
        # In company it may be another run's failure: only those alone are held against it.
        self.without_progress = 0 if self.progressed else self.without_progress + alone
        stuck = self.without_progress == MAX_FAILURES_WITHOUT_PROGRESS
        if stuck or self.failures > MAX_RESTARTS:
            self.outcome = error


def next_groups(group: list[PackedRun], all_failed: bool) -> list[list[PackedRun]]:
    """Which of a group's members to start next, and with whom.

    After a failure of the whole group without progress it is started in halves: in the end the one
    that is to blame fails alone. One that failed while the others went on is started alone at once.
    """
    left = [member for member in group if member.outcome is None]
    if all_failed and not all(member.progressed for member in left):
        half = (len(left) + 1) // 2
        return [part for part in (left[:half], left[half:]) if part]
    together = [member for member in left if not member.failed_itself]
    apart = [[member] for member in left if member.failed_itself]
    return [together, *apart] if together else apart
