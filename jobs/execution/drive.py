"""A run's driver: starts its worker group, publishes what it measures, and says how it ended.

Imports no torch.
"""

from collections.abc import Callable
from typing import Any

from jobs.execution.launch import run_on_ray
from jobs.tracking.run_publisher import Publisher, outcome_of, remember_tags
from pipeline.errors import InputError, reason_of
from pipeline.runs.execution import Execution
from pipeline.runs.run import REFUSED, Run
from pipeline.storage import Storage


def drive(
    run: Run, execution: Execution, tags: dict[str, str], was_interrupted: Callable[[], bool] = bool
) -> dict[str, Any]:
    """Train and publish a run, and say how that ended.

    Whoever takes Ray away from under the run answers yes to `was_interrupted`, and says so in
    MLflow instead.

    Returns `status` (finished, diverged, failed, or refused for what the user has to mend),
    `reason` where it is not finished, and `published`, whether MLflow has it all.
    """
    storage = Storage(execution.storage)
    publisher = Publisher(execution.tracking, storage, run, tags)

    def on_lease_acquired() -> None:
        remember_tags(storage, run, tags)
        publisher.start()

    try:
        result = run_on_ray(run, execution, on_lease_acquired, was_interrupted)
    except Exception as error:
        if was_interrupted():
            raise
        status, reason = (REFUSED if isinstance(error, InputError) else "failed"), reason_of(error)
        if not publisher.started:  # another's run, or none: nothing is to be said of it
            return {"status": status, "reason": reason, "published": True}
        return {"status": status, "reason": reason, "published": publisher.stop("FAILED", reason)}
    reason = result.get("reason", "")
    published = publisher.stop(outcome_of(result), reason)
    return {"status": result["status"], "reason": reason, "published": published}
