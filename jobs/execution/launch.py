"""A run as a Ray Train worker group: the one place where Ray Train is configured.

The run's folder in storage decides where it continues; each start gets a fresh Ray name and none of
Ray's checkpoints.
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import sleep
from typing import Any
from uuid import uuid4

from jobs.execution.cluster import Node, cpus_that_fit, nodes
from pipeline.errors import InputError, StorageLostError
from pipeline.runs.checkpoint import newest_checkpoint, newest_iteration
from pipeline.runs.lease import Lease
from pipeline.runs.provenance import source_commit
from pipeline.runs.run import LOST, PREEMPTED, REFUSED, STOPPED, Run, read_result, start_run
from pipeline.storage import Storage

MAX_RESTARTS = 10
"""Failures of a run's workers that a command makes good before it gives the run up; preemptions do
not count.
"""

MAX_FAILURES_WITHOUT_PROGRESS = 3
"""Failures in a row without a new checkpoint after which trying again would only repeat them."""

ENVIRONMENT = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30"}
"""Of Ray Train's controllers: workers that do not come are asked for anew, in what number there is
then.
"""


@dataclass(frozen=True)
class Execution:
    """How and where runs are carried out.

    Of it only device, `threads`, `one_pass` and `allow_drift` can change what they measure, in the
    last bits.
    """

    storage: str
    tracking: str
    workers: int = 1
    gpus: float = 1.0
    """GPUs of each worker where `use_gpu`: a fraction lets several runs share one."""
    checkpoint_seconds: float = 30.0
    one_pass: bool = False
    """All batch-norm groups of a worker in one pass."""
    threads: int = 1
    use_gpu: bool = False
    most_workers: int | None = None
    """Where more than `workers`: a run takes as many workers as there is room for, from `workers`
    to so many.
    """
    allow_drift: bool = False
    deterministic: bool = False
    until: int | None = None
    """Stop after this iteration."""
    datasets: str | None = None
    """Where datasets are read, if not in `storage`."""

    @property
    def each_worker(self) -> Node:
        """What each worker takes of the cluster."""
        return {"CPU": 1, "GPU": self.gpus} if self.use_gpu else {"CPU": self.threads}


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
    """Train a run to its end, from wherever its folder stands; returns its `result.json`.

    Where `execution.until` comes before the end, it returns {"status": "stopped"}.

    All that can be mended by starting anew is: workers and nodes that die or are taken away, and
    failures while a worker group starts. Each start continues from the newest checkpoint, under one
    lease (`pipeline.runs.lease`); `on_lease_acquired` is called once it is held. Whoever takes Ray
    away answers yes to `was_interrupted` before: then nothing is started anew.

    Raises:
        InputError: the run's folder holds something that is not ours, another holds the run, or it
            would drift.
        StorageLostError: the run could not be saved any more.
        ray.train.TrainingFailedError: its workers failed more often than is allowed.
    """
    storage = Storage(execution.storage)
    result = read_result(storage, run)
    if result is not None:
        return result
    say = partial(print, file=sys.stderr, flush=True)
    newest_checkpoint(
        storage, run, say
    )  # refuses what is not ours, and speaks of damage where a user can hear it
    with Lease(storage, run, say) as lease:
        on_lease_acquired()
        threads = start_run(storage, run, execution.threads)
        answer = _run_until_done(run, execution, threads, lease, storage, was_interrupted)
    if answer.get("status") == REFUSED:
        raise InputError(answer["reason"])
    if answer.get("status") == LOST:
        raise StorageLostError(answer["reason"])
    if answer.get("status") == STOPPED:
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
    threads: int,
    lease: Lease,
    storage: Storage,
    was_interrupted: Callable[[], bool],
) -> dict[str, Any]:
    """Start worker groups until one comes to an end; what rank 0 returned then."""
    from ray.train import TrainingFailedError

    failures, in_vain, reached = 0, 0, newest_iteration(storage, run)
    while True:
        name = f"{run.experiment.name}-{run.seed}-{uuid4().hex[:8]}"
        try:
            answer = (
                _trainer(run, execution, threads, name, lease.holder, storage).fit().return_value
                or {}
            )
            if answer.get("status") != PREEMPTED:
                return dict(answer)
        except TrainingFailedError:
            if was_interrupted():
                raise
            if not lease.held():
                raise InputError(
                    f"{run}: another command has taken it over; it goes on there"
                ) from None
            before, reached = reached, newest_iteration(storage, run)
            failures, in_vain = failures + 1, (0 if reached > before else in_vain + 1)
            if in_vain == MAX_FAILURES_WITHOUT_PROGRESS or failures > MAX_RESTARTS:
                raise
            if in_vain:
                sleep(2**in_vain)
        finally:
            with suppress(OSError):
                storage.delete(f"ray/{name}")


def _trainer(
    run: Run, execution: Execution, threads: int, name: str, holder: str, storage: Storage
) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from jobs.execution.worker import Work, work

    resources, fewest = execution.each_worker, execution.workers
    most = max(fewest, min(execution.most_workers or fewest, run.experiment.groups))
    if not execution.use_gpu:
        # A resumed run keeps its threads on a smaller machine too: it then shares the CPUs instead
        # of waiting for more.
        resources["CPU"] = cpus_that_fit(nodes(), fewest, threads)
    job = Work(
        run=run,
        storage=storage.uri,
        datasets=execution.datasets or storage.uri,
        until=execution.until,
        holder=holder,
        threads=threads,
        use_gpu=execution.use_gpu,
        checkpoint_seconds=execution.checkpoint_seconds,
        one_pass=execution.one_pass,
        allow_drift=execution.allow_drift,
        deterministic=execution.deterministic,
        provenance={**source_commit(), "driver": os.uname().nodename},
    )
    os.environ.update({key: os.environ.get(key, value) for key, value in ENVIRONMENT.items()})
    return DataParallelTrainer(
        work,
        train_loop_config={"work": job},
        scaling_config=ScalingConfig(
            num_workers=(fewest, most) if most > fewest else fewest,
            use_gpu=execution.use_gpu,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage.uri_of("ray"),
            # Failures are counted here alone: Ray Train's own count does not cover those of a group
            # that starts.
            failure_config=FailureConfig(max_failures=0, max_preemption_failures=-1),
        ),
    )
