"""A pack of runs as its driver sees it: who trains beside whom, and who is to blame for a failure.

Knows nothing of Ray: `jobs.execution.launch` starts what is decided here.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Any

from jobs.execution.processors import kernel_settings
from pipeline.errors import InputError, StorageLostError, reason_of
from pipeline.recipe.experiments import Experiment
from pipeline.recipe.layers import layout
from pipeline.runs.checkpoint import newest_iteration
from pipeline.runs.execution import Execution
from pipeline.runs.lease import Lease
from pipeline.runs.run import FAILED, LOST, PREEMPTED, REFUSED, SIGNALLED, STOPPED, Run, read_result
from pipeline.storage import Storage

Outcome = dict[str, Any] | Exception
"""How a run ended: its `result.json` (or status `stopped` or `signalled`), or why it did not."""

MAX_RESTARTS = 10
"""The retry budget of a command: failures of a run's workers; preemptions do not count."""

MAX_FAILURES_IN_COMPANY = 3
"""Failures of a whole pack after which its halves are tried apart, progress or not."""
MAX_FAILURES_WITHOUT_PROGRESS = 3
"""Failures in a row without a new checkpoint after which a retry would only repeat them."""


def packs_of(
    runs: Sequence[Run], execution: Execution, places: int, most: Callable[[Experiment], int]
) -> list[list[Run]]:
    """Share runs out as packs: at most `most` of an experiment at once, and no place left idle.

    A pack's runs have one dataset, want the same of their process's kernels, and none has less than
    half of another's work: it would leave early, and the others a GPU that idles. Where one pack on
    one GPU holds them all, they share it whatever their work: nobody waits to take a place in it.
    Photographs are trained alone: a network for them fills a GPU.
    """
    share, leagues = ceil(len(runs) / max(places, 1)), dict[tuple[Any, ...], list[list[Run]]]()
    for run in runs:
        experiment = run.experiment
        size = 1 if experiment.family == "imagenet" else min(share, most(experiment))
        # The size is part of what packs have in common: a large network keeps its packs small.
        alike = leagues.setdefault(
            (size, run.dataset_id, kernel_settings(experiment, execution)), []
        )
        together = places == 1 and len(runs) <= size
        apart = bool(alike) and work(experiment) < work(alike[-1][0].experiment) / 2
        if not alike or (apart and not together):
            alike.append([])
        alike[-1].append(run)
    packs = [
        pack
        for (size, *_), alike in leagues.items()
        for league in alike
        for pack in _evenly(league, ceil(len(league) / size))
    ]
    # In the order of their first runs, which is the costliest first.
    order = {run: number for number, run in enumerate(runs)}
    return sorted(packs, key=lambda pack: order[pack[0]])


def _evenly(runs: list[Run], parts: int) -> list[list[Run]]:
    """Runs in order as so many parts, which differ by one run at most."""
    borders = [round(part * len(runs) / parts) for part in range(parts + 1)]
    return [runs[start:end] for start, end in pairwise(borders)]


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
    """Of its own: while it was alone, or while its pack went on."""
    without_progress: int = 0
    """Of those, in a row since its last new checkpoint."""
    in_company: int = 0
    """Failures of the whole pack, since it was last started in other company."""
    stalled: bool = False
    """Whether it failed in company without a new checkpoint."""
    failed_itself: bool = False
    """Whether its last attempt failed while its pack went on."""
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
        elif status in (STOPPED, SIGNALLED):
            self.outcome = answer
        elif status == FAILED:
            self._failed(storage, failure or RuntimeError(reason), alone or self.failed_itself)
        elif status != PREEMPTED:
            where = storage.path(self.run.folder)
            missing = f"{self.run}: its workers ended without writing result.json to {where}"
            self.outcome = read_result(storage, self.run) or RuntimeError(missing)

    def _failed(self, storage: Storage, error: Exception, itself: bool) -> None:
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
        progressed = self.reached > before
        # What took a whole pack down may be another run's fault: it is not held against this one.
        if not itself:
            self.in_company += 1
            self.stalled = not progressed
            return
        self.failures += 1
        self.without_progress = 0 if progressed else self.without_progress + 1
        stuck = self.without_progress == MAX_FAILURES_WITHOUT_PROGRESS
        if stuck or self.failures > MAX_RESTARTS:
            trouble = import_trouble(error)
            self.outcome = InputError(trouble) if trouble else error


def import_trouble(error: BaseException) -> str:
    """What to do where workers could not import this code; empty if that was not their trouble."""
    # Of ours alone: what is missing besides, such as a library of CUDA's, has another remedy.
    ours = r"\b(ModuleNotFoundError|ImportError): .*\b(pipeline|jobs|analysis)\b.*"
    found = re.search(ours, reason_of(error))
    if found is None:
        return ""
    return (
        f"workers cannot import this command's code ({found[0]}); install the same commit on every "
        "node, or give the command to `resnet-repro submit`, which ships its code"
    )


def next_groups(group: list[PackedRun], all_failed: bool) -> list[list[PackedRun]]:
    """Which of a group's members to start next, and with whom.

    After a failure of the whole group it is started again, once where some run made no progress:
    nodes are lost now and then. Then its halves are started, one after the other: in the end the
    run that is to blame fails alone. Those that failed while the others went on, as without memory,
    are a group of their own, or in halves where nobody went on.
    """
    left = [member for member in group if member.outcome is None]
    if all_failed:
        stalled = any(member.stalled for member in left)
        often = max((member.in_company for member in left), default=0)
        again = often < (2 if stalled else MAX_FAILURES_IN_COMPANY)
        return [left] if again and left else _halves(left)
    together = [member for member in left if not member.failed_itself]
    apart = [member for member in left if member.failed_itself]
    if len(apart) == len(group):
        return _halves(apart)
    return [part for part in (together, apart) if part]


def _halves(members: list[PackedRun]) -> list[list[PackedRun]]:
    """Two smaller groups, whose failures are counted anew."""
    half = (len(members) + 1) // 2
    for member in members:
        member.in_company, member.stalled = 0, False
    return [part for part in (members[:half], members[half:]) if part]
