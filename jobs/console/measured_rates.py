"""How fast runs are, as this command sees them, and how long the rest takes at that.

A heartbeat's rate is of SGD steps alone. What is left takes evaluations and checkpoints as well, so
it is reckoned by the iterations that were seen to pass, over some minutes to be steady; and by the
seconds that runs were seen to take until they train.
"""

from collections import deque
from collections.abc import Callable, Iterable
from functools import cache
from statistics import mean
from time import monotonic

from jobs.console.run_progress import RunProgress
from pipeline.recipe.experiments import Experiment
from pipeline.recipe.layers import layout
from pipeline.runs.run import Run

WINDOW_SECONDS = 180.0
"""Over which a rate is averaged."""
LEAST_SECONDS = 15.0
"""That have to be seen; before, a run's own heartbeat is believed."""


class MeasuredRates:
    """Iterations a second of each run; of those that have ended, their last ones."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now, self._began = now, now()
        self._trained: dict[Run, tuple[float, float]] = {}  # from when to when
        self._seen: dict[Run, deque[tuple[float, int]]] = {}
        self._said: dict[Run, float] = {}

    def see(self, progress: Iterable[RunProgress]) -> None:
        """Take in how far runs are now."""
        now = self._now()
        for each in progress:
            if each.state != "running":
                continue
            self._trained[each.run] = self._trained.get(each.run, (now, now))[0], now
            batch = each.run.experiment.global_batch_size
            if each.images_per_second > 0:
                self._said[each.run] = each.images_per_second / batch
            seen = self._seen.setdefault(each.run, deque())
            if seen and each.iteration < seen[-1][1]:  # its workers began again, further back
                seen.clear()
            if not seen or each.iteration > seen[-1][1]:
                seen.append((now, each.iteration))
            while len(seen) > 2 and now - seen[1][0] > WINDOW_SECONDS:
                seen.popleft()

    def iterations_per_second(self, run: Run) -> float | None:
        """Of a run that trains or has trained meanwhile; None where nothing is known yet."""
        seen = self._seen.get(run)
        if seen and seen[-1][0] - seen[0][0] >= LEAST_SECONDS:
            return (seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0])
        return self._said.get(run)

    def run_seconds_left(self, each: RunProgress) -> float | None:
        """Until a run that trains has ended; None where that is not known, or it does not train."""
        rate = self.iterations_per_second(each.run)
        return each.iterations_left / rate if each.state == "running" and rate else None

    def seconds_left(self, progress: list[RunProgress], at_once: int) -> float | None:
        """Until all have ended, so many of them at once; None where no rate is known yet."""
        rates = {each.run: self.iterations_per_second(each.run) for each in progress}
        # A command that stops before it saw any of its runs has what they were saved with.
        if not any(rates.values()):
            rates = {each.run: each.kept_rate for each in progress}
        # A run that has not begun is as fast as others of its row, else by its multiply-adds.
        by_row: dict[Experiment, list[float]] = {}
        for run, rate in rates.items():
            if rate:
                by_row.setdefault(run.experiment, []).append(rate)
        if not by_row:
            return None
        work_rate = mean(
            mean(known) * _work_an_iteration(experiment) for experiment, known in by_row.items()
        )

        def seconds(each: RunProgress) -> float:
            experiment = each.run.experiment
            rate = rates[each.run] or (
                mean(by_row[experiment])
                if experiment in by_row
                else work_rate / _work_an_iteration(experiment)
            )
            begins = each.state == "waiting" and each.run not in self._trained
            return each.iterations_left / rate + (start if begins else 0.0)

        start = self._start_seconds(at_once)
        left = [seconds(each) for each in progress]
        # Spread over all that run at once; but the longest single run cannot be spread.
        return max(max(left), sum(left) / max(at_once, 1))

    def _start_seconds(self, at_once: int) -> float:
        """What a run takes besides its training, such as its workers' start: as seen until now."""
        trained = sum(end - begin for begin, end in self._trained.values())
        idle = at_once * (self._now() - self._began) - trained
        return max(0.0, idle) / (len(self._trained) or max(1, at_once))


@cache
def _work_an_iteration(experiment: Experiment) -> int:
    """Multiply-adds of a batch, forwards."""
    return layout(experiment).multiply_adds * experiment.global_batch_size
