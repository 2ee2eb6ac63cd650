"""Runs that one command trains, looked at again and again: how far they are, and what is left."""

from contextlib import suppress
from dataclasses import replace
from statistics import mean

from jobs.console.durations import about, duration
from jobs.console.measured_rates import MeasuredRates
from jobs.console.run_progress import Beat, RunProgress, percent, read_progress
from pipeline.errors import InputError
from pipeline.recipe.experiments import Experiment
from pipeline.recipe.overrides import title
from pipeline.runs.run import Run, read_heartbeat
from pipeline.storage import Storage


class Watch:
    """What is known of `runs`, of which `at_once` go at once; `heading` is what they are called.

    `where` names what trains them.
    """

    def __init__(
        self, heading: str, storage: Storage, runs: list[Run], at_once: int, where: str
    ) -> None:
        self.heading, self.at_once, self.where = heading, at_once, where
        self.rates = MeasuredRates()
        self.progress = [RunProgress(run, "waiting", 0, 0.0, None) for run in runs]
        self._storage = storage
        # What runs said last; nothing of those that cannot be read, which the job will say.
        self._before = dict[Run, Beat]()
        for run in runs:
            with suppress(OSError, ValueError, InputError):
                self._before[run] = read_heartbeat(storage, run)

    def look(self) -> list[RunProgress]:
        """Every run as it is now, in the order of the runs."""
        self.progress = [self._read(each) for each in self.progress]
        self.rates.see(self.progress)
        return self.progress

    def _read(self, last: RunProgress) -> RunProgress:
        if last.ended:
            return last
        # A file may be being replaced just now, or be one that the run itself will refuse with a
        # better message than this could be.
        with suppress(OSError, ValueError, KeyError, InputError):
            read = read_progress(self._storage, last.run, self._before.get(last.run))
            if not read.ended or last.state != "running":
                return read
            # The curve of a run that was watched is complete with its last error.
            final = () if read.test_err is None else (read.test_err,)
            return replace(read, curve=(*last.curve, *final))
        return last

    @property
    def ended(self) -> int:
        """How many runs have ended."""
        return sum(each.ended for each in self.progress)

    @property
    def running(self) -> list[RunProgress]:
        """Those that train."""
        return [each for each in self.progress if each.state == "running"]

    @property
    def seconds_left(self) -> float | None:
        """Until all have ended; None where no rate is known yet."""
        return self.rates.seconds_left(self.progress, self.at_once)

    def name(self, experiment: Experiment) -> str:
        """Its name, with its changes where two experiments of that name are watched."""
        return row_name(experiment, {each.run.experiment for each in self.progress})

    def time_left(self) -> str:
        """In words, of all runs."""
        seconds = self.seconds_left
        return "time left unknown" if seconds is None else f"about {duration(seconds)} left"

    def summary(self) -> str:
        """How far the whole is, in a line."""
        if len(self.progress) == 1 and self.running:
            # Of a single run there is more to say than that it is one of one.
            return f"{self.how_far(self.progress[0])}, {self.time_left()}"
        if len(self.progress) == 1 and self.ended:
            return self.progress[0].state
        if not self.running and self.ended < len(self.progress):
            return f"{self.ended} of {len(self.progress)} finished, starting Ray's workers"
        words = f"{self.ended} of {len(self.progress)} finished, {len(self.running)} running"
        return words if self.ended == len(self.progress) else f"{words}, {self.time_left()}"

    def how_far(self, each: RunProgress) -> str:
        """Iteration, errors and rate of a run that trains."""
        words = f"iteration {each.iteration:,} of {each.run.experiment.iterations:,}"
        rate = rate_text(each.images_per_second)
        return words + both_errors(each) + (f", {rate} images/s" if rate else "")

    def mean_errors(self) -> dict[str, float]:
        """The mean test error of each row that has finished runs, by its name."""
        errors: dict[str, list[float]] = {}
        for each in self.progress:
            if each.state == "finished" and each.test_err is not None:
                errors.setdefault(self.name(each.run.experiment), []).append(each.test_err)
        return {name: mean(of) for name, of in errors.items()}

    def what_is_left(self) -> str:
        """What a command that stops has done, what is left, and how long that takes."""
        if self.ended == len(self.progress):
            return f"all that was to be trained is done: {self.ended} of {len(self.progress)} runs"
        seconds = self.seconds_left
        takes = "how long that takes is unknown" if seconds is None else about(seconds)
        takes += "" if seconds is None else f" of {self.where} at the rates measured"
        if len(self.progress) == 1:
            (each,) = self.progress
            reached = f"iteration {each.iteration:,} of {each.run.experiment.iterations:,}"
            return f"{reached} was reached; left: {each.iterations_left:,} iterations, {takes}"
        begun = sum(not each.ended and each.iteration > 0 for each in self.progress)
        left = len(self.progress) - self.ended
        return (
            f"{self.ended} of {len(self.progress)} runs are done; left: {left}, {begun} of them "
            f"saved on their way; {takes}"
        )


def both_errors(each: RunProgress) -> str:
    """What is known of a run's training and test error, as more of a sentence."""
    errors = (("train", each.train_err), ("test", each.test_err))
    return "".join(f", {split} {percent(error)}" for split, error in errors if error is not None)


def rate_text(rate: float) -> str:
    """Images a second; empty for a worker that has none yet, and never 0 while it trains."""
    return "" if rate <= 0 else f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def row_name(experiment: Experiment, among: set[Experiment]) -> str:
    """An experiment's name, with its changes where `among` has two of that name."""
    namesakes = sum(each.name == experiment.name for each in among)
    return title(experiment) if namesakes > 1 else experiment.name
