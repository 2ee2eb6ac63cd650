"""A run as a Ray Train worker group: the one place where Ray Train is configured.

The run's folder in storage decides where it continues; each start gets a fresh Ray name and none of
Ray's checkpoints.
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from time import sleep
from typing import Any
from uuid import uuid4

from jobs.execution.cluster import RAY_TRAIN_ENVIRONMENT, cpus_that_fit, nodes
from pipeline.errors import InputError, StorageLostError
from pipeline.runs import run as run_status
from pipeline.runs.checkpoint import newest_checkpoint, newest_iteration
from pipeline.runs.execution import Execution
from pipeline.runs.lease import Lease
from pipeline.runs.provenance import source_commit
from pipeline.runs.run import PREEMPTED, Run, read_result, start_run
from pipeline.storage import Storage

MAX_RESTARTS = 10
"""The retry budget of a command: failures of a run's workers; preemptions do not count."""

MAX_FAILURES_WITHOUT_PROGRESS = 3
"""Failures in a row without a new checkpoint after which a retry would only repeat them."""


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


def run_on_ray(
    run: Run,
    execution: Execution,
    on_lease_acquired: Callable[[], None] = lambda: None,
    was_interrupted: Callable[[], bool] = bool,
) -> dict[str, Any]:
    """Train a run to its end, from wherever its folder stands, and return its `result.json`.

    Where `execution.until` comes before the end, the result is {"status": "stopped"}.

    Everything that a restart can cure is restarted: workers and nodes that die or are preempted,
    and failures while a worker group starts. Each start continues from the newest checkpoint, under
    one lease (`pipeline.runs.lease`); `on_lease_acquired` is called once it is held. Whoever takes
    Ray away answers yes to `was_interrupted` first: then nothing is restarted.

    Raises:
        InputError: the run's folder holds something that is not ours, another driver holds the run,
            or it would drift.
        StorageLostError: the run could not be saved any more.
        ray.train.TrainingFailedError: the retry budget is used up.
    """
    storage = Storage(execution.storage)
    result = read_result(storage, run)
    if result is not None:
        return result

    # Refuses what is not ours, and speaks of damage here, where a user can hear it.
    say = partial(print, file=sys.stderr, flush=True)
    newest_checkpoint(storage, run, say)

    # One lease over all restarts: no other command gets in between two worker groups.
    with Lease(storage, run, say) as lease:
        on_lease_acquired()
        threads = start_run(storage, run, execution.threads)
        execution = replace(execution, storage=storage.uri, threads=threads)
        answer = _run_until_done(run, execution, lease, storage, was_interrupted)

    # A worker that was refused or lost its storage returned normally, so that Ray did not retry it.
    match answer.get("status"):
        case run_status.REFUSED:
            raise InputError(answer["reason"])
        case run_status.LOST:
            raise StorageLostError(answer["reason"])
        case run_status.STOPPED:
            return answer
    finished = read_result(storage, run)
    if finished is None:
        raise RuntimeError(
            f"{run}: its workers ended without writing result.json to {storage.path(run.folder)}"
        )
    return finished


def _run_until_done(
    run: Run,
    execution: Execution,
    lease: Lease,
    storage: Storage,
    was_interrupted: Callable[[], bool],
) -> dict[str, Any]:
    """Start worker groups until one ends by itself; what its rank 0 returned."""
    from ray.train import TrainingFailedError

    failures, without_progress, reached = 0, 0, newest_iteration(storage, run)
    while True:
        # A fresh name for each start: Ray Train would otherwise restore its own snapshot.
        name = f"{run.experiment.name}-{run.seed}-{uuid4().hex[:8]}"
        try:
            trainer = _trainer(run, execution, name, lease.holder, storage)
            answer = trainer.fit().return_value or {}
            if answer.get("status") != PREEMPTED:
                return dict(answer)
        except TrainingFailedError:
            if was_interrupted():
                raise
            if not lease.held():
                raise InputError(
                    f"{run}: another command has taken it over; it goes on there"
                ) from None
            # A new checkpoint is progress: then the next failure is another one, not the same.
            before, reached = reached, newest_iteration(storage, run)
            failures += 1
            without_progress = 0 if reached > before else without_progress + 1
            if without_progress == MAX_FAILURES_WITHOUT_PROGRESS or failures > MAX_RESTARTS:
                raise
            if without_progress:
                sleep(2**without_progress)
        finally:
            with suppress(OSError):
                storage.delete(f"ray/{name}")


def _trainer(run: Run, execution: Execution, name: str, holder: str, storage: Storage) -> Any:
    """A Ray Train trainer for one worker group of the run."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    from jobs.execution.trainer import WorkerGroupTrainer
    from jobs.execution.worker import WorkerTask, train_on_worker

    resources, fewest = execution.each_worker, execution.workers
    most = max(fewest, min(execution.most_workers or fewest, run.experiment.groups))
    if not execution.use_gpu:
        # A resumed run keeps its threads on a smaller machine too: it then shares the CPUs instead
        # of waiting for more.
        resources["CPU"] = cpus_that_fit(nodes(), fewest, execution.threads)
    provenance = {**source_commit(), "driver": os.uname().nodename}
    for variable, value in RAY_TRAIN_ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    return WorkerGroupTrainer(
        train_on_worker,
        train_loop_config={"task": WorkerTask(run, execution, holder, provenance)},
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
