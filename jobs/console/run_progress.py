"""How far a run is, as its folder says: the same wherever its workers are."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.recipe.metrics import TEST_ERR, TRAIN_CLEAN_ERR, TRAIN_ERR
from pipeline.runs.checkpoint import newest_history
from pipeline.runs.run import Run, read_heartbeat, read_result
from pipeline.storage import Storage

Beat = Mapping[str, Any] | None
"""A run's last heartbeat."""


@dataclass(frozen=True)
class RunProgress:
    """What a run's folder says of it; `state` is waiting, running, finished or diverged.

    Errors are percent of images.
    """

    run: Run
    state: str
    iteration: int
    images_per_second: float
    test_err: float | None
    train_err: float | None = None
    """Of the images trained on since the last point; of an ended run on the training set."""
    curve: tuple[float, ...] = ()
    """The test errors so far, the oldest first; empty for a run that has ended."""
    kept_rate: float | None = None
    """Iterations a second up to its checkpoint, on whatever it was trained."""

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        return self.state in ("finished", "diverged")

    @property
    def iterations_left(self) -> int:
        """To the run's end."""
        return 0 if self.ended else self.run.experiment.iterations - self.iteration

    @property
    def seconds_left(self) -> float | None:
        """Seconds to go at the present rate; None where that is not known."""
        if self.state != "running" or self.images_per_second <= 0:
            return None
        return self.iterations_left * self.run.experiment.global_batch_size / self.images_per_second


def percent(error: float | None) -> str:
    """An error as it is shown; empty where there is none."""
    return "" if error is None else f"{error:.2f} %"


def read_progress(storage: Storage, run: Run, earlier: Beat) -> RunProgress:
    """A run as its folder shows it; the heartbeat that was there `earlier` is another attempt's."""
    # result.json is written last: with it, nothing else needs to be asked.
    result = read_result(storage, run)
    if result is not None:
        final = result.get("final", {})
        test, train = final.get(TEST_ERR), final.get(TRAIN_CLEAN_ERR, final.get(TRAIN_ERR))
        return RunProgress(run, result["status"], result["iterations"], 0.0, test, train)
    history = newest_history(storage, run)
    if history is None:
        return progress_of(storage, run, 0, None, earlier)
    last = history.last()
    progress = progress_of(storage, run, history.iteration, last.get(TEST_ERR), earlier)
    curve = tuple(point.value for point in history.points if point.metric == TEST_ERR)
    rate = history.iteration / history.seconds if history.seconds > 0 else None
    return replace(progress, train_err=last.get(TRAIN_ERR), curve=curve, kept_rate=rate)


def progress_of(
    storage: Storage, run: Run, iteration: int, error: float | None, earlier: Beat
) -> RunProgress:
    """A run that has not ended, by its heartbeat and the iteration and error of a checkpoint."""
    heartbeat = read_heartbeat(storage, run)
    # Told by its content, as no two machines' clocks agree.
    if heartbeat is None or heartbeat == earlier:
        return RunProgress(run, "waiting", iteration, 0.0, error)
    # Heartbeats come more often than checkpoints, but a resumed run's first one may lie behind.
    iteration = max(iteration, heartbeat["iteration"])
    return RunProgress(run, "running", iteration, heartbeat["images_per_second"], error)
