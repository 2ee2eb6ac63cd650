"""A run as a Ray Train worker group: the one place where Ray Train is configured.

The run's folder in storage decides where it continues; each start gets a fresh Ray name and none of Ray's checkpoints.
"""

import os
from dataclasses import dataclass
from time import sleep
from typing import Any
from uuid import uuid4

from pipeline.checkpoint import check_ours
from pipeline.errors import InputError
from pipeline.provenance import source_commit
from pipeline.runs import Run, read_result, start_run
from pipeline.storage import Storage

STARTS = 3
"""Times a worker group is started before a run is given up; Ray's own retries do not cover a failing start."""

WORKER_FAILURES = 3
"""Times a started group may lose a worker before the same."""


@dataclass(frozen=True)
class Execution:
    """How and where runs are carried out; nothing here changes what they measure except, in the last bits, `threads`."""

    storage: str
    tracking: str
    workers: int = 1
    threads: int = 1
    use_gpu: bool = False
    gpus: float = 1.0
    """GPUs of each worker where `use_gpu`: a fraction lets several runs share one."""
    checkpoint_seconds: float = 30.0


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
    from ray.train import ControllerError

    storage = Storage(execution.storage)
    result = read_result(storage, run)
    if result is not None:
        return result
    check_ours(storage, run)
    threads = start_run(storage, run, execution.threads)
    for start in range(1, STARTS + 1):
        name = f"{run.experiment.name}-{run.seed}-{uuid4().hex[:8]}"
        try:
            _trainer(run, execution, threads, name, storage).fit()
            break
        except ControllerError:
            if start == STARTS:
                raise
            sleep(2**start)
        finally:
            storage.delete(f"ray/{name}")
    finished = read_result(storage, run)
    if finished is None:
        raise RuntimeError(f"{run}: its workers ended without writing result.json to {storage.path(run.folder)}")
    return finished


def _trainer(run: Run, execution: Execution, threads: int, name: str, storage: Storage) -> Any:
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from jobs.worker import Work, work

    total = ray.cluster_resources().get("CPU", 1)
    # A resumed run keeps its threads on a smaller machine too: it then shares the CPUs instead of waiting for more.
    cpus = max(1, min(threads, total // execution.workers))
    job = Work(
        run=run,
        storage=storage.uri,
        threads=threads,
        use_gpu=execution.use_gpu,
        checkpoint_seconds=execution.checkpoint_seconds,
        provenance={**source_commit(), "driver": os.uname().nodename},
    )
    resources = {"CPU": 1 if execution.use_gpu else cpus}
    if execution.use_gpu:
        resources["GPU"] = execution.gpus
    return DataParallelTrainer(
        work,
        train_loop_config={"work": job},
        scaling_config=ScalingConfig(
            num_workers=execution.workers, use_gpu=execution.use_gpu, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage.path("ray") if storage.local else f"{storage.uri.rstrip('/')}/ray",
            failure_config=FailureConfig(max_failures=WORKER_FAILURES),
        ),
    )
