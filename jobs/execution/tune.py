"""The grid: runs, or packs of them, as Ray Tune trials, each a driver that starts a worker group.

The only user of `ray.tune`. Every grid command builds a fresh Tuner over the unfinished runs: what
is finished is read from the runs' folders. A driver takes no CPU and imports no torch, so that
drivers can never starve the workers they wait for.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from jobs.console.redaction import hiding_secrets
from jobs.execution.cluster import Node, places
from jobs.execution.drive import drive
from jobs.execution.packs import work
from pipeline.errors import last_line
from pipeline.runs.execution import Execution
from pipeline.runs.run import FAILED, SIGNALLED, STOPPED, Run, read_result
from pipeline.storage import Storage

DRIVER = {"CPU": 0, "node:__internal_head__": 0.001}
DRIVER_MEMORY = 0.8e9
"""Bytes of the head's memory that a trial's driver and controller take together."""


@dataclass(frozen=True)
class GridOutcome:
    """How a run of a grid ended: `status` is finished, diverged, signalled or failed."""

    run: Run
    status: str
    reason: str = ""
    """Where it is not finished."""
    published: bool = True
    """Whether MLflow has it all."""


def unfinished(storage: Storage, runs: Iterable[Run], quick_first: bool = False) -> list[Run]:
    """Runs that have something left to do, the costliest first.

    The other way round, the costliest would run alone at the end, on a cluster that idles. With
    `quick_first` they come seed by seed, the cheapest row first: where a first result matters more.
    """
    left = [run for run in runs if read_result(storage, run) is None]
    if quick_first:
        return sorted(left, key=lambda run: (run.seed, work(run.experiment)))
    return sorted(left, key=lambda run: -work(run.experiment))


def max_concurrent_runs(nodes: list[Node], execution: Execution, head_memory: float) -> int:
    """How many trials fit at once: by their workers' CPUs or GPUs, and by the head's memory.

    Every trial's driver is a process on the head, which takes no CPU but memory.
    """
    # A run starts only with all of its workers, so what is left over for half a run counts nothing.
    fit = places(nodes, execution.each_worker) // execution.workers
    return max(1, min(fit, int(head_memory / DRIVER_MEMORY)))


def run_grid(
    packs: list[list[Run]], execution: Execution, at_once: int, tags: dict[Run, dict[str, str]]
) -> list[GridOutcome]:
    """Train packs of runs, `at_once` of them at a time; a run that fails does not stop the others.

    A pack's runs train at once in one worker (`jobs.execution.packs`).
    """
    from ray import tune

    # Tune gets a fresh name each time, and its snapshots are deleted: the runs' folders are the
    # only memory of a grid. Trials are told the number of their pack, as Tune makes names and
    # file names of what it is given.
    storage = Storage(execution.storage)
    name = f"grid-{uuid4().hex[:8]}"
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(
                hiding_secrets(_trial), packs=packs, execution=execution, tags=tags
            ),
            DRIVER,
        ),
        # Not a Tuner over hyper-parameters: a list of packs, of which each is a trial.
        param_space={"pack": tune.grid_search(list(range(len(packs))))},
        tune_config=tune.TuneConfig(max_concurrent_trials=at_once, reuse_actors=True),
        run_config=tune.RunConfig(
            name=name,
            storage_path=storage.uri_of("ray"),
            verbose=0,
        ),
    )
    try:
        results = tuner.fit()
    # Ray writes snapshots here even where a trial fails; nobody ever reads them.
    finally:
        storage.delete(f"ray/{name}")
    return [
        _outcome(storage, run, result)
        for pack, result in zip(packs, results, strict=True)
        for run in pack
    ]


def _trial(
    config: dict[str, int],
    packs: list[list[Run]],
    execution: Execution,
    tags: dict[Run, dict[str, str]],
) -> dict[str, Any]:
    ended = drive({run: tags[run] for run in packs[config["pack"]]}, execution)
    return {"ended": {run.key: how for run, how in ended.items()}}


def _outcome(storage: Storage, run: Run, result: Any) -> GridOutcome:
    """How a run of a trial ended: its folder decides, the trial only says why it did not."""
    reported = (result.metrics or {}).get("ended", {}).get(run.key, {})
    ended = read_result(storage, run)
    published = bool(reported.get("published"))
    if ended is not None:
        return GridOutcome(run, ended["status"], ended.get("reason", ""), published)
    if (status := reported.get("status")) in (STOPPED, SIGNALLED):
        return GridOutcome(run, status, reported.get("reason", ""), published)
    reason = reported.get("reason") or last_line(str(result.error or "")) or "its driver ended"
    return GridOutcome(run, FAILED, reason, published)
