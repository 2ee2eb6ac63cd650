"""A run's driver: starts its worker group, publishes what it measures, and says how it ended. Imports no torch."""

from typing import Any

from jobs.launch import Execution, run_on_ray
from jobs.publisher import Publisher
from pipeline.errors import InputError
from pipeline.runs import Run
from pipeline.storage import Storage


def drive(run: Run, execution: Execution, tags: dict[str, str]) -> dict[str, Any]:
    """Train and publish a run; returns `status` (finished, diverged or failed) and, where it failed, the `reason`."""
    publisher = Publisher(execution.tracking, Storage(execution.storage), run, tags)
    publisher.start()
    try:
        result = run_on_ray(run, execution)
    except Exception as error:
        reason = reason_of(error)
        publisher.stop("FAILED", reason)
        return {"status": "failed", "reason": reason}
    except BaseException:
        publisher.stop("KILLED", "interrupted")
        raise
    finished = result["status"] == "finished"
    publisher.stop("FINISHED" if finished else "DIVERGED", result.get("reason"))
    return {"status": result["status"], "reason": result.get("reason", "")}


def reason_of(error: BaseException) -> str:
    """The line of an error that tells a user most: ours if there is one in its chain, else its last."""
    if isinstance(error, InputError):
        return str(error)
    failures = getattr(error, "worker_failures", None) or {}
    for cause in [*failures.values(), error.__cause__, getattr(error, "cause", None)]:
        if isinstance(cause, BaseException) and cause is not error:
            return reason_of(cause)
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].strip()}" if lines else type(error).__name__
