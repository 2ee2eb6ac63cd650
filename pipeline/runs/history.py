"""Where a run stands besides its tensors, as JSON: its iteration, and all that it measured.

It is part of each checkpoint, so what was measured can neither be lost nor doubled by a resume.
Torch-free.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from json import dumps
from math import isfinite
from typing import Any

from pipeline.recipe.metrics import METRICS, WINDOW, LayerValues, Point
from pipeline.recipe.schedule import CONVERGING_RULE
from pipeline.stored_json import parse_as

DEVICE_SECONDS, JOULES = "device_seconds", "joules"
"""Fields of an attempt: seconds times devices that it held them, and the energy that it used."""


def cost_of(attempts: Sequence[dict[str, Any]]) -> dict[str, float]:
    """What a run's attempts cost together, by field; left out what any of them did not record."""
    known = [
        name
        for name in (DEVICE_SECONDS, JOULES)
        if attempts and all(_is_amount(attempt.get(name)) for attempt in attempts)
    ]
    return {name: round(sum(attempt[name] for attempt in attempts), 3) for name in known}


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and isfinite(value)


@dataclass
class History:
    """A run's state after `iteration` finished steps, tensors excepted.

    `window` holds [loss, wrong] of the last 25 iterations, each in slot iteration % 25.
    """

    iteration: int = 0
    warmup_end: int | None = None
    converging_from: int | None = None
    """The first of the checks, every 25 iterations, from which on the run did better than guessing.

    `pipeline.recipe.schedule.converging_from` says how that is found.
    """
    converging_rule: int = CONVERGING_RULE
    """The version of that rule. A run that began under an earlier one keeps it to its end."""
    wrong_counts: list[int] = field(default_factory=list)
    """Wrong predictions of each check from the first one on, from which the rule decides.

    Those of the first `KEPT_LOOKS` checks, and more while the run does not converge.
    """
    window: list[list[float]] = field(default_factory=lambda: [[0.0, 0.0]] * WINDOW)
    seconds: float = 0.0
    """Time spent in SGD steps, over all attempts."""
    points: list[Point] = field(default_factory=list)
    layers: list[LayerValues] = field(default_factory=list)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    """Provenance of each start: versions, hardware, workers, and the iteration it began at."""

    def record(self, values: dict[str, float], time_ms: int) -> None:
        """Add one point per metric at the current iteration."""
        for metric, value in values.items():
            if metric not in METRICS:
                raise KeyError(f"{metric} is not in pipeline.recipe.metrics")
            self.points.append(Point(self.iteration, metric, value, time_ms))

    def last(self) -> dict[str, float]:
        """The newest value of each metric."""
        return {point.metric: point.value for point in self.points}

    def to_json(self) -> bytes:
        """Everything, floats exactly."""
        return dumps(asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, content: bytes, where: str = "history.json") -> "History":
        """The inverse of `to_json`; `where` names the file in messages.

        Raises:
            InputError: it is something else.
        """
        return cls(**vars(parse_as(content, StoredHistory, where)))


@dataclass(kw_only=True)
class StoredHistory(History):
    """A history's file: the first version had no layers, and the first rule of convergence."""

    iteration: int = field()
    points: list[Point] = field()
    converging_rule: int = 1
