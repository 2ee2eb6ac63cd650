"""`python -m tests.jobs.execution.faulty_workers SCENARIO STORAGE`: a pack on a real Ray, in which
one run's training breaks; prints how each run ended, as JSON by its seed.
"""

import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from jobs.execution import launch, worker
from jobs.execution.cluster import connected
from jobs.execution.worker import WorkerTask
from pipeline.errors import reason_of
from pipeline.runs.execution import Execution
from pipeline.runs.lease import Lease
from pipeline.runs.run import Run
from pipeline.storage import Storage
from tests.pipeline.training.small_runs import small_run

SCENARIOS = {"mixed": 4, "guilty": 2}
"""How many runs each has."""


def mixed(config: dict[str, WorkerTask]) -> Any:
    """Seed 1's worker is killed, once; seed 2 has no memory in company."""
    import torch

    from pipeline.training import packs
    from pipeline.training.loop import train

    task = config["task"]
    marker = Path(Storage(task.execution.storage).path("killed"))

    def faulty(run: Run, *rest: Any) -> dict[str, Any]:
        if run.seed == 2 and len(task.holders) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if run.seed == 1 and not marker.exists():
            train(run, *rest[:3], Execution(checkpoint_seconds=0, until=10), *rest[4:])
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return train(run, *rest)

    packs.train = faulty  # type: ignore[assignment]
    return worker.train_on_worker(config)  # of the worker's process, where it is not replaced


def guilty(config: dict[str, WorkerTask]) -> Any:
    """Seed 1 takes its worker down, whenever it is there."""
    if any(run.seed == 1 for run in config["task"].holders):
        os.kill(os.getpid(), signal.SIGKILL)
    return worker.train_on_worker(config)  # of the worker's process, where it is not replaced


def main(scenario: str, uri: str) -> None:
    """Train the scenario's pack, all of it held by this process but for the last of `mixed`."""
    worker.train_on_worker = globals()[scenario]
    runs = [small_run(seed) for seed in range(SCENARIOS[scenario])]
    starts = []

    def start(group: list[Any], *rest: Any) -> Any:
        starts.append([member.run.seed for member in group])
        return trainer(group, *rest)

    trainer, launch._trainer = launch._trainer, start
    # In a thread, as commands have it: in the main one Ray Train handles Ctrl-C itself.
    with connected(None), ThreadPoolExecutor(1) as thread:
        execution = Execution(storage=uri, checkpoint_seconds=0)
        held = Lease(Storage(uri), runs[-1]) if scenario == "mixed" else nullcontext()
        with held:
            outcomes = thread.submit(launch.pack_on_ray, runs, execution).result()
    said = {
        run.seed: reason_of(how) if isinstance(how, Exception) else how["status"]
        for run, how in outcomes.items()
    }
    print(json.dumps({"ended": said, "starts": starts}))


if __name__ == "__main__":
    main(*sys.argv[1:])
