"""What the folders of runs say of them, for scripts and in a line each: `status`, `jobs status`."""

from typing import Any

from jobs.console.durations import duration
from jobs.console.run_progress import RunProgress, percent
from pipeline.recipe.metrics import TEST_ERR
from pipeline.runs.checkpoint import newest_history
from pipeline.runs.run import Run, read_heartbeat, read_result
from pipeline.storage import Storage

SILENT_SECONDS = 30.0
"""Of a run that gave no sign for longer, that is said instead of the time it has left."""


def run_line(fact: dict[str, Any]) -> str:
    """A run in a line of less than 80 characters: seed, state, how far it is, its test error,
    and the time left.
    """
    error = percent(fact["test_err"])
    age, life = fact["heartbeat_age_s"], ""
    if fact["state"] == "running":
        life = "no heartbeat yet" if age is None else f"heartbeat {age:.0f} s ago"
        if age is not None and age <= SILENT_SECONDS and fact["seconds_left"] is not None:
            life = f"{duration(fact['seconds_left'])} left"
    reached = f"{fact['iteration']:,}/{fact['iterations']:,}"
    line = f"  seed {fact['seed']:<4} {fact['state']:<12}{reached:>17} {error:>9}  {life}"
    return line.rstrip()


def run_facts(storage: Storage, run: Run, now: int, alive: bool) -> dict[str, Any]:
    """What a run's folder says, for a script; `alive` is whether it is being trained."""
    result, heartbeat = read_result(storage, run), read_heartbeat(storage, run)
    history = newest_history(storage, run)
    # A clock that was put back makes nothing younger than new.
    age = max(0, now - heartbeat["time_ms"]) / 1000 if heartbeat else None
    # The driver's lease says who lives, not the workers' heartbeat: between two worker groups
    # there is none.
    if result is not None:
        state = result["status"]
    elif alive:
        state = "running"
    else:
        state = "not started" if age is None and history is None else "stopped"
    reached = [
        result["iterations"] if result else 0,
        heartbeat["iteration"] if heartbeat else 0,
        history.iteration if history else 0,
    ]
    rate = heartbeat["images_per_second"] if heartbeat else 0.0
    left = RunProgress(run, state, max(reached), rate, None).seconds_left
    return {
        "experiment": run.experiment.name,
        "dataset": run.dataset_key,
        "seed": run.seed,
        "state": state,
        "reason": (result or {}).get("reason"),
        "iteration": max(reached),
        "iterations": run.experiment.iterations,
        "test_err": (history.last() if history else {}).get(TEST_ERR),
        "heartbeat_age_s": age,
        "seconds_left": left,
        "overrides": run.experiment.deviations(),
        "folder": storage.path(run.folder),
    }
