"""The driver of a run or of a pack: starts its worker group, publishes what it measures, and says
how each run ended.

Imports no torch.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jobs.execution.launch import pack_on_ray
from jobs.execution.packs import Outcome
from jobs.tracking.run_publisher import Publisher, outcome_of, remember_tags
from pipeline.errors import InputError, reason_of
from pipeline.runs.execution import Execution
from pipeline.runs.run import FAILED, REFUSED, SIGNALLED, Run
from pipeline.storage import Storage


def drive(
    tags: Mapping[Run, dict[str, str]],
    execution: Execution,
    was_interrupted: Callable[[], bool] = bool,
) -> dict[Run, dict[str, Any]]:
    """Train and publish runs, all at once in one worker, and say how each ended.

    `tags` are what MLflow is told of each. Whoever takes Ray away from under them answers yes to
    `was_interrupted`, and says so in MLflow instead.

    Returns for each run `status` (finished, diverged, failed, signalled, or refused for what the
    user has to mend), `reason` where it is not finished, and `published`, whether MLflow has it
    all.
    """
    storage = Storage(execution.storage)
    publishers = {
        run: Publisher(execution.tracking, storage, run, tags[run], was_interrupted) for run in tags
    }

    def on_lease_acquired(run: Run) -> None:
        remember_tags(storage, run, tags[run])
        publishers[run].start()

    try:
        outcomes = pack_on_ray(list(tags), execution, on_lease_acquired, was_interrupted)
    except Exception as error:
        if was_interrupted():
            raise
        outcomes = dict.fromkeys(tags, error)
    # At once: where the server is away, each waits for it as long as the others.
    with ThreadPoolExecutor(len(publishers)) as threads:
        ended = threads.map(_conclude, publishers.values(), [outcomes[run] for run in tags])
        return dict(zip(tags, ended, strict=True))


def _conclude(publisher: Publisher, outcome: Outcome) -> dict[str, Any]:
    """Publish how a run ended, and say it."""
    if not isinstance(outcome, Exception):
        status, reason = outcome["status"], outcome.get("reason", "")
        if status == SIGNALLED:
            reason = "ended by a signal"
            published = publisher.started and publisher.stop("KILLED", reason)
        else:
            published = publisher.stop(outcome_of(outcome), reason)
        return {"status": status, "reason": reason, "published": published}
    status, reason = (REFUSED if isinstance(outcome, InputError) else FAILED), reason_of(outcome)
    # Another's run, or none: nothing is to be said of it.
    published = not publisher.started or publisher.stop("FAILED", reason)
    return {"status": status, "reason": reason, "published": published}
