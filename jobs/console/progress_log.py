"""Off a terminal: what happens to runs as lines with the time, which read as a story.

A run has a line when its first errors are known, now and then while it trains, and when it ends;
the more rarely the longer it takes.
"""

from collections.abc import Callable
from datetime import datetime
from time import monotonic

from jobs.console.console import console
from jobs.console.durations import duration
from jobs.console.run_progress import RunProgress, percent
from jobs.console.watch import Watch, both_errors
from pipeline.runs.run import Run

EARLY_SECONDS = 20.0
"""Until the first line about the whole, so that it is seen to go on."""
FIRST_SECONDS = 90.0
"""Until the first line about a run without errors, and between its first lines."""
MOST_SECONDS = 900.0
"""Between two lines about the same thing, where few runs go on at once."""
FEW = 4
MOST_ROWS = 8
"""Whose errors are named in one line."""


def announce(words: str) -> None:
    """Say what happens next; off a terminal with the time."""
    print(words if console.is_terminal else stamped(words), flush=True)


def stamped(words: str) -> str:
    """Words behind the time."""
    return f"{datetime.now():%Y-%m-%d %H:%M:%S}  {words}"


class Subject:
    """Something that lines are about: when it was first seen, and what was last said of it."""

    def __init__(self, now: float, wait: float = FIRST_SECONDS) -> None:
        self.first, self.due, self.said = now, now + wait, ""

    def is_due(self, now: float, at_once: int, news: bool = False) -> bool:
        """Whether it is time for a line; if so, the next one comes half its age later."""
        if now < self.due and not news:
            return False
        wait = min(MOST_SECONDS, max(FIRST_SECONDS, (now - self.first) / 2))
        self.due = now + wait * max(1.0, at_once / FEW)
        return True


class ProgressLog:
    """The lines about the runs of a watch, said by `say`."""

    def __init__(
        self,
        watch: Watch,
        say: Callable[[str], None] = announce,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._watch, self._say, self._now = watch, say, now
        self._whole = Subject(now(), EARLY_SECONDS)
        self._subjects: dict[Run, Subject] = {}
        # Only changes are told: a run that had ended before the command began is no news.
        self._news: set[Run] | None = None
        self._rows = 1

    def tell(self) -> None:
        """Say what is new since the last look."""
        watch, now = self._watch, self._now()
        if self._news is None:
            self._news = {each.run for each in watch.progress if not each.ended}
        for each in watch.progress:
            if each.ended and each.run in self._news:
                self._news.discard(each.run)
                self._tell_ended(each)
            # Of a single run the line about the whole says all.
            elif each.state == "running" and len(watch.progress) > 1:
                self._tell_running(each, now)
        self._tell_so_far()
        if watch.ended < len(watch.progress) and self._whole.is_due(now, 1):
            self._tell(self._whole, f"{watch.heading}: {watch.summary()}")

    def _tell_running(self, each: RunProgress, now: float) -> None:
        subject = self._subjects.setdefault(each.run, Subject(now))
        # The first errors are news at once.
        news = not subject.said and each.test_err is not None
        if subject.is_due(now, len(self._watch.running), news):
            left = self._watch.rates.run_seconds_left(each)
            time = "time left unknown" if left is None else f"about {duration(left)} left"
            self._tell(subject, f"{self._name(each)}: {self._watch.how_far(each)}, {time}")

    def _tell(self, subject: Subject, words: str) -> None:
        if words != subject.said:
            subject.said = words
            self._say(words)

    def _tell_ended(self, each: RunProgress) -> None:
        """How a run ended; of a single one its command itself says it."""
        watch, total = self._watch, len(self._watch.progress)
        if total == 1 or self._news is None:
            return
        ended = total - len(self._news)
        at = "" if each.state == "finished" else f" at iteration {each.iteration:,}"
        left = "" if ended == total else f", {watch.time_left()}"
        self._say(
            f"{self._name(each)}: {each.state}{at}{both_errors(each)}; "
            f"{ended} of {total} runs{left}"
        )

    def _tell_so_far(self) -> None:
        """A row's first result is a part of the story, its further seeds are not."""
        means = self._watch.mean_errors()
        if self._rows < len(means) <= MOST_ROWS:
            self._rows = len(means)
            errors = ", ".join(f"{name} {percent(error)}" for name, error in means.items())
            self._say(f"test errors so far: {errors}")

    def _name(self, each: RunProgress) -> str:
        return f"{self._watch.name(each.run.experiment)} seed {each.run.seed}"
