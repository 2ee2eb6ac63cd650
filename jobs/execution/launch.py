"""A run, or a pack of runs, as a Ray Train worker group: the one place that configures Ray Train.

A run's folder in storage decides where it continues; each start gets a fresh Ray name and none of
Ray's checkpoints.
"""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from time import sleep
from typing import Any
from uuid import uuid4

from jobs.execution.cluster import (
    RAY_TRAIN_ENVIRONMENT,
    ask_to_stop,
    asked_to_stop,
    cpus_that_fit,
    nodes,
)
from jobs.execution.packs import Outcome, PackedRun, next_groups
from pipeline.errors import InputError
from pipeline.runs.checkpoint import newest_checkpoint, newest_iteration
from pipeline.runs.execution import Execution
from pipeline.runs.lease import Lease
from pipeline.runs.provenance import source_commit
from pipeline.runs.run import SIGNALLED, Run, read_result, start_run
from pipeline.storage import Storage

logger = logging.getLogger(__name__)


def check_workers(run: Run, workers: int) -> None:
    """Refuse a number of workers that cannot share a run's batch-norm groups evenly.

    Raises:
        InputError: too many workers, or not a power of two.
    """
    groups = run.experiment.groups
    if workers > groups:
        raise InputError(
            f"{run.experiment.name}: --workers {workers} is more than its {groups} batch-norm "
            "groups of "
            f"{run.experiment.bn_group} images; use at most {groups}"
        )
    if workers < 1 or workers & (workers - 1):
        raise InputError(
            f"--workers {workers}: a power of two is needed, at most {groups} for "
            f"{run.experiment.name}"
        )


def run_on_ray(run: Run, execution: Execution) -> dict[str, Any]:
    """Train a run to its end, from wherever its folder stands, and return its `result.json`.

    Where `execution.until` comes before the end, the result is {"status": "stopped"}.

    Raises:
        InputError: the run's folder holds something that is not ours, another driver holds the run,
            or it would drift.
        StorageLostError: the run could not be saved any more.
        ray.train.TrainingFailedError: the retry budget is used up.
    """
    outcome = pack_on_ray([run], execution)[run]
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def pack_on_ray(
    runs: Sequence[Run],
    execution: Execution,
    on_lease_acquired: Callable[[Run], None] = lambda _: None,
    was_interrupted: Callable[[], bool] = bool,
) -> dict[Run, Outcome]:
    """Train runs to their ends, all at once in one worker; how each ended, as `run_on_ray` has it.

    Everything that a restart can cure is restarted: workers and nodes that die or are preempted,
    and failures while a worker group starts. Each start continues from the newest checkpoints,
    under one lease a run (`pipeline.runs.lease`); `on_lease_acquired` is called once it is held.
    A run that is held elsewhere, refused, or ends, leaves the others alone; of a pack that keeps
    failing each half is started by itself, until only what is to blame fails.
    Whoever takes Ray away answers yes to `was_interrupted` first: then nothing is restarted. Nor is
    anything once the command was asked to stop: what has not ended then is `signalled`.

    Raises:
        ray.train.TrainingFailedError: Ray was taken away.
    """
    storage = Storage(execution.storage)
    if asked_to_stop():
        return {run: {"status": SIGNALLED} for run in runs}
    with ExitStack() as leases:

        def take(run: Run) -> PackedRun | Outcome:
            try:
                return _taken(storage, run, execution, leases, on_lease_acquired)
            except Exception as error:  # this run's alone: the others go on
                if not isinstance(error, InputError | OSError):
                    logger.exception("%s could not be taken", run)
                return error

        # Together, since a lease that somebody has left behind is watched for a while.
        with ThreadPoolExecutor(len(runs)) as threads:
            taken = dict(zip(runs, threads.map(take, runs), strict=True))
        outcomes = {run: each for run, each in taken.items() if not isinstance(each, PackedRun)}
        groups = _of_one_kind([each for each in taken.values() if isinstance(each, PackedRun)])
        while groups:
            group, *later = groups
            again = start_group(group, execution, storage, was_interrupted)
            outcomes |= {each.run: each.outcome for each in group if each.outcome is not None}
            groups = [] if asked_to_stop() else again + later
    return {run: outcomes.get(run, {"status": SIGNALLED}) for run in runs}


def _taken(
    storage: Storage,
    run: Run,
    execution: Execution,
    leases: ExitStack,
    on_lease_acquired: Callable[[Run], None],
) -> PackedRun | dict[str, Any]:
    """A run that this driver holds from now on, or how it has ended already.

    Raises:
        InputError: the run's folder holds something that is not ours, or another holds the run.
    """
    result = read_result(storage, run)
    if result is not None:
        return result
    # Refuses what is not ours, and speaks of damage here, where a user can hear it.
    say = partial(print, file=sys.stderr, flush=True)
    newest_checkpoint(storage, run, say)
    # One lease over all restarts: no other command gets in between two worker groups.
    lease = leases.enter_context(Lease(storage, run, say))
    on_lease_acquired(run)
    threads = start_run(storage, run, execution.threads)
    return PackedRun(run, lease, threads, newest_iteration(storage, run))


def _of_one_kind(members: list[PackedRun]) -> list[list[PackedRun]]:
    """Members by the threads of their first starts: a process has one number of them."""
    kinds: dict[int, list[PackedRun]] = {}
    for member in members:
        kinds.setdefault(member.threads, []).append(member)
    return list(kinds.values())


def start_group(
    group: list[PackedRun],
    execution: Execution,
    storage: Storage,
    was_interrupted: Callable[[], bool] = bool,
) -> list[list[PackedRun]]:
    """Train members in one worker group; which groups to start next of those that have not ended.

    Raises:
        ray.train.TrainingFailedError: Ray was taken away.
    """
    from ray.exceptions import RpcError
    from ray.train import TrainingFailedError

    # A run that failed alone without progress is not hammered at.
    if pause := max(member.without_progress for member in group):
        sleep(2**pause)
    # A fresh name for each start: Ray Train would otherwise restore its own snapshot.
    first = group[0].run
    name = f"{first.experiment.name}-{first.seed}-{uuid4().hex[:8]}"
    answers: dict[str, dict[str, Any]] = {}
    failure: Exception | None = None
    try:
        execution = replace(execution, storage=storage.uri, threads=group[0].threads)
        trainer = _trainer(group, execution, name, storage)
        answers = trainer.fit().return_value or {}
    except TrainingFailedError as error:
        if was_interrupted():
            raise
        failure = _without_frames(error)
    finally:
        with suppress(OSError):
            storage.delete(f"ray/{name}")
    # Whoever trains beside these is to save and end as well.
    if any(answer["status"] == SIGNALLED for answer in answers.values()):
        with suppress(RpcError):
            ask_to_stop()
    for member in group:
        try:
            member.judge(storage, answers.get(member.run.key), failure, alone=len(group) == 1)
        except OSError as error:  # its folder cannot be read: the others' can, perhaps
            member.outcome = error
    return next_groups(group, failure is not None)


def _without_frames(error: Exception) -> Exception:
    """An error that keeps nothing alive: the frames that it came through hold Ray's controller, a
    process of some hundred megabytes.
    """
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


def _trainer(group: list[PackedRun], execution: Execution, name: str, storage: Storage) -> Any:
    """A Ray Train trainer for one worker group."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    from jobs.execution.trainer import WorkerGroupTrainer
    from jobs.execution.worker import WorkerTask, train_on_worker

    resources, fewest = execution.each_worker, execution.workers
    groups = min(member.run.experiment.groups for member in group)
    most = max(fewest, min(execution.most_workers or fewest, groups))
    if not execution.use_gpu:
        # A resumed run keeps its threads on a smaller machine too: it then shares the CPUs instead
        # of waiting for more.
        resources["CPU"] = cpus_that_fit(nodes(), fewest, execution.threads)
    provenance = {**source_commit(), "driver": os.uname().nodename}
    if len(group) > 1:
        provenance["runs_at_once"] = len(group)
    for variable, value in RAY_TRAIN_ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    holders = {member.run: member.lease.holder for member in group}
    return WorkerGroupTrainer(
        train_on_worker,
        train_loop_config={"task": WorkerTask(holders, execution, provenance)},
        scaling_config=ScalingConfig(
            num_workers=(fewest, most) if most > fewest else fewest,
            use_gpu=execution.use_gpu,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage.uri_of("ray"),
            # Failures are counted above alone: Ray Train's own count leaves out those of a group
            # that starts.
            failure_config=FailureConfig(max_failures=0, max_preemption_failures=-1),
        ),
    )
