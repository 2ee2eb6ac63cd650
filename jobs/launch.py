"""A run as a Ray Train worker group: the one place where Ray Train is configured.

The run's folder in storage decides where it continues; each start gets a fresh Ray name and none of Ray's checkpoints.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from time import sleep
from typing import Any
from uuid import uuid4

from jobs.cluster import Node, cpus_that_fit, nodes
from pipeline.checkpoint import check_ours, newest_iteration
from pipeline.errors import InputError
from pipeline.provenance import source_commit
from pipeline.runs import REFUSED, Run, read_result, start_run
from pipeline.storage import Storage

STARTS = 3
"""Times in a row that Ray Train may give up without a new checkpoint; its own retries do not cover a failing start."""

WORKER_FAILURES = 3
"""Times that a started group may lose a worker before Ray Train gives up."""


@dataclass(frozen=True)
class Execution:
    """How and where runs are carried out.

    Of it only device, `threads` and `one_pass` can change what they measure, in the last bits.
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
            f"{run.experiment.name}: --workers {workers} is more than its {groups} batch-norm groups of "
            f"{run.experiment.bn_group} images; use at most {groups}"
        )
    if workers < 1 or workers & (workers - 1):
        raise InputError(f"--workers {workers}: a power of two is needed, at most {groups} for {run.experiment.name}")


def run_on_ray(run: Run, execution: Execution) -> dict[str, Any]:
    """Train a run to its end, from wherever its folder stands; returns its `result.json`.

    Raises:
        InputError: the run's folder holds something that is not ours.
        ray.train.TrainingFailedError: worker groups failed more often than is allowed.
    """
    from ray.train import TrainingFailedError

    storage = Storage(execution.storage)
    result = read_result(storage, run)
    if result is not None:
        return result
    check_ours(storage, run)
    threads = start_run(storage, run, execution.threads)
    failures, reached = 0, newest_iteration(storage, run)
    while True:
        name = f"{run.experiment.name}-{run.seed}-{uuid4().hex[:8]}"
        try:
            answer = _trainer(run, execution, threads, name, storage).fit().return_value
            break
        except TrainingFailedError:
            before, reached = reached, newest_iteration(storage, run)
            failures = 0 if reached > before else failures + 1
            if failures == STARTS:
                raise
            sleep(2**failures)
        finally:
            with suppress(OSError):
                storage.delete(f"ray/{name}")
    if answer and answer.get("status") == REFUSED:
        raise InputError(answer["reason"])
    finished = read_result(storage, run)
    if finished is None:
        raise RuntimeError(f"{run}: its workers ended without writing result.json to {storage.path(run.folder)}")
    return finished


def _trainer(run: Run, execution: Execution, threads: int, name: str, storage: Storage) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from jobs.worker import Work, work

    resources = execution.each_worker
    if not execution.use_gpu:
        # A resumed run keeps its threads on a smaller machine too: it then shares the CPUs instead of waiting for more.
        resources["CPU"] = cpus_that_fit(nodes(), execution.workers, threads)
    job = Work(
        run=run,
        storage=storage.uri,
        threads=threads,
        use_gpu=execution.use_gpu,
        checkpoint_seconds=execution.checkpoint_seconds,
        one_pass=execution.one_pass,
        provenance={**source_commit(), "driver": os.uname().nodename},
    )
    return DataParallelTrainer(
        work,
        train_loop_config={"work": job},
        scaling_config=ScalingConfig(
            num_workers=execution.workers, use_gpu=execution.use_gpu, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage.below("ray"),
            failure_config=FailureConfig(max_failures=WORKER_FAILURES),
        ),
    )
