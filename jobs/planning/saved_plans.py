"""Plans kept in storage, so that a grid can say at its end what it was thought to take."""

from collections.abc import Iterable
from hashlib import blake2b
from json import dumps
from time import time
from typing import Any

from typing_extensions import TypedDict

from jobs.planning.estimate import Plan
from pipeline.errors import InputError
from pipeline.runs.provenance import source_commit
from pipeline.runs.run import Run
from pipeline.storage import Storage
from pipeline.stored_json import read_json

FORMAT = "resnet-repro/plan/1"


class KeptPlan(TypedDict):
    """A plan's file, as far as it is read."""

    format: str
    seconds: float
    low: float
    high: float


def path_of(runs: Iterable[Run]) -> str:
    """Where the plan about these runs lies: a function of what was left when it was made."""
    # So the grid finds the plan without being told: it is about the same runs.
    keys = sorted(run.key for run in runs)
    return f"plans/{blake2b(dumps(keys).encode(), digest_size=6).hexdigest()}.json"


def keep(storage: Storage, plan: Plan, about: dict[str, Any]) -> str:
    """Write a plan before its grid is begun; returns its full path."""
    path = path_of(estimate.run for estimate in plan.runs)
    low, high = plan.interval
    content = {
        "format": FORMAT,
        "made": int(time()),
        **source_commit(),
        "seconds": round(plan.seconds, 1),
        "low": round(low, 1),
        "high": round(high, 1),
        "runs": {
            estimate.run.key: {"run": str(estimate.run), "seconds": round(estimate.seconds, 1)}
            for estimate in plan.runs
        },
        **about,
    }
    storage.write(path, dumps(content, indent=1).encode())
    return storage.path(path)


def compare(storage: Storage, runs: Iterable[Run], seconds: float) -> str:
    """Note in the plan about these runs what they took; the two in a line, empty without a plan."""
    path = path_of(runs)
    # A plan that is damaged or of another format is no reason for a finished grid to fail.
    try:
        planned: Any = read_json(storage, path, KeptPlan)
        if planned is None or planned["format"] != FORMAT:
            return ""
        # Kept beside the estimate: how good plans are can then be looked up.
        planned["took"] = round(seconds, 1)
        storage.write(path, dumps(planned, indent=1).encode())
        off = seconds / planned["seconds"] - 1
    except (OSError, InputError, ArithmeticError):
        return ""
    between = f"{planned['low']:,.0f} to {planned['high']:,.0f}"
    return (
        f"took {seconds:,.0f} s; planned were {planned['seconds']:,.0f} s ({between}): {off:+.0%}"
    )
