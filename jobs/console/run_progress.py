"""What a person sees while runs go on: one live table, or plain lines where there is no terminal.

All of it is read from the runs' folders, so it says the same wherever the workers are.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Thread
from time import monotonic
from typing import Any

from rich.live import Live

from jobs.console.console import console
from jobs.console.durations import duration
from jobs.console.tables import FittingTable
from jobs.console.termination import SAVE_SECONDS, TerminatedError, say, signal_behind
from pipeline.errors import InputError
from pipeline.recipe.experiments import Experiment
from pipeline.recipe.layers import layout
from pipeline.recipe.metrics import TEST_ERR
from pipeline.recipe.overrides import title
from pipeline.runs.checkpoint import newest_history
from pipeline.runs.run import Run, read_heartbeat, read_result
from pipeline.storage import Storage

POLL_SECONDS = 2.0
MOST_FAILURES = 3
"""In a row, to reach those who are to save."""
LINE_SECONDS = 20.0
"""Off a terminal, a line about the whole is printed at most this often."""


Beat = Mapping[str, Any] | None
"""A run's last heartbeat."""


@dataclass(frozen=True)
class RunProgress:
    """What a run's folder says of it; `state` is waiting, running, finished or diverged."""

    run: Run
    state: str
    iteration: int
    images_per_second: float
    test_err: float | None

    @property
    def seconds_left(self) -> float | None:
        """Seconds to go at the present rate; None where that is not known."""
        if self.state != "running" or self.images_per_second <= 0:
            return None
        experiment = self.run.experiment
        images = (experiment.iterations - self.iteration) * experiment.global_batch_size
        return images / self.images_per_second


def percent(error: float | None) -> str:
    """A test error as it is shown; empty where there is none."""
    return "" if error is None else f"{error:.2f} %"


def read_progress(storage: Storage, run: Run, earlier: Beat) -> RunProgress:
    """A run as its folder shows it; the heartbeat that was there `earlier` is another attempt's."""
    # result.json is written last: with it, nothing else needs to be asked.
    result = read_result(storage, run)
    if result is not None:
        error = result.get("final", {}).get(TEST_ERR)
        return RunProgress(run, result["status"], result["iterations"], 0.0, error)
    history = newest_history(storage, run)
    error = history.last().get(TEST_ERR) if history else None
    return progress_of(storage, run, history.iteration if history else 0, error, earlier)


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


def follow(
    heading: str,
    storage: Storage,
    runs: list[Run],
    max_concurrent_runs: int,
    job: Callable[[], Any],
    on_interrupt: Callable[[], None] = lambda: None,
    on_terminate: Callable[[], None] = lambda: None,
) -> Any:
    """Run `job` in the background and show its runs until it ends; returns or raises what it does.

    `max_concurrent_runs` is how many runs go at once, for the estimate of the time left. Ctrl-C
    reaches the caller at once, after `on_interrupt` was called; so does the end of whoever reads. A
    signal that asks the command to end does so when the job has ended, which `on_terminate` asks it
    to do, or has had its time.
    """
    outcome: dict[str, Any] = {}
    ended = Event()

    def body() -> None:
        try:
            outcome["value"] = job()
        except BaseException as error:
            outcome["error"] = error
        finally:
            ended.set()

    # The job has the background and the screen the main thread, because Python delivers Ctrl-C to
    # the main thread alone; a daemon, so that it cannot keep an interrupted command alive.
    before, thread = _heartbeats(storage, runs), Thread(target=body, daemon=True)
    thread.start()
    show = _show_table if console.is_terminal else _print_lines
    try:
        show(heading, storage, runs, max_concurrent_runs, before, thread)
    # Ctrl-C, a signal, or nobody reads any more what is shown.
    except (KeyboardInterrupt, SystemExit, TerminatedError) as error:
        signal = signal_behind(error)
        if signal is None:
            on_interrupt()
            raise
        try:
            _let_end(ended, on_terminate, f"{signal}: saving, for {SAVE_SECONDS:.0f} s at most")
        finally:
            if not outcome:
                on_interrupt()
        if not outcome:
            say("not all was saved; the checkpoints before count")
        left = _read_all(storage, runs, before)
        say(f"{heading}: {_summary(left, max_concurrent_runs, stopped=True)}")
        raise signal from None
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]


def _let_end(ended: Event, ask: Callable[[], None], words: str) -> None:
    """Ask a job to end until it has, nobody is left who could be asked, or its time is up."""

    def keep_asking() -> None:
        # A head that is busy answers later. But the signal may have gone to the cluster's own
        # processes too, which end sooner or later, and then nobody answers.
        failures = 0
        while not ended.is_set() and failures < MOST_FAILURES:
            try:
                ask()
                failures = 0
            except Exception:
                failures += 1
            ended.wait(POLL_SECONDS)
        ended.set()

    # Not by `join`, which takes a thread for ended that it was interrupted in (Python 3.11).
    Thread(target=keep_asking, daemon=True).start()
    say(words)
    ended.wait(SAVE_SECONDS)


def _show_table(
    heading: str,
    storage: Storage,
    runs: list[Run],
    max_concurrent_runs: int,
    before: dict[Run, Beat],
    thread: Thread,
) -> None:
    """One table that is drawn again and again in its place, the last time after the end."""
    with Live(console=console, refresh_per_second=2, transient=False) as live:
        running = True
        while running:
            running = thread.is_alive()
            progress = _read_all(storage, runs, before)
            live.update(_table(heading, progress, max_concurrent_runs))
            thread.join(POLL_SECONDS)


def _print_lines(
    heading: str,
    storage: Storage,
    runs: list[Run],
    max_concurrent_runs: int,
    before: dict[Run, Beat],
    thread: Thread,
) -> None:
    """A line for each run that ends, and now and then one about all of them."""
    last_line = -LINE_SECONDS
    states: dict[Run, str] = {}
    while thread.is_alive():
        thread.join(POLL_SECONDS)
        progress = _read_all(storage, runs, before)
        # Only changes are told: a run that had ended before the command began is no news.
        for each in progress:
            told = states.get(each.run)
            states[each.run] = each.state
            if told not in (None, each.state) and each.state in ("finished", "diverged"):
                error = percent(each.test_err)
                print(f"{each.run}: {each.state}, {error} test error", flush=True)
        if monotonic() - last_line >= LINE_SECONDS and thread.is_alive():
            last_line = monotonic()
            print(f"{heading}: {_summary(progress, max_concurrent_runs)}", flush=True)


def _heartbeats(storage: Storage, runs: list[Run]) -> dict[Run, Beat]:
    """What runs said last; nothing of those that cannot be read, which the job will say."""
    beats = dict[Run, Beat]()
    for run in runs:
        with suppress(OSError, ValueError, InputError):
            beats[run] = read_heartbeat(storage, run)
    return beats


def _read_all(storage: Storage, runs: list[Run], before: dict[Run, Beat]) -> list[RunProgress]:
    progress = []
    for run in runs:
        read = RunProgress(run, "waiting", 0, 0.0, None)
        # A file may be being replaced just now, or be one that the run itself will refuse with a
        # better message than this screen could give.
        with suppress(OSError, ValueError, KeyError, InputError):
            read = read_progress(storage, run, before.get(run))
        progress.append(read)
    return progress


def _table(heading: str, progress: list[RunProgress], max_concurrent_runs: int) -> FittingTable:
    table = FittingTable(
        *("experiment", "seed", "state", "iteration", "images/s", "test error", "left"),
        title=f"{heading}: {_summary(progress, max_concurrent_runs)}",
        left=["experiment", "state"],
        wrapping=["experiment"],
    )
    for each in progress:
        experiment = each.run.experiment
        table.add_row(
            _name(progress, experiment),
            str(each.run.seed),
            each.state,
            f"{each.iteration:,}/{experiment.iterations:,}",
            f"{each.images_per_second:,.0f}" if each.images_per_second else "",
            percent(each.test_err),
            duration(each.seconds_left),
        )
    return table


def _name(progress: list[RunProgress], experiment: Experiment) -> str:
    """The experiment's name, with its changes where the table has two experiments of that name."""
    namesakes = {
        each.run.experiment for each in progress if each.run.experiment.name == experiment.name
    }
    return title(experiment) if len(namesakes) > 1 else experiment.name


def _summary(progress: list[RunProgress], max_concurrent_runs: int, stopped: bool = False) -> str:
    finished = sum(each.state in ("finished", "diverged") for each in progress)
    running = sum(each.state == "running" for each in progress)
    words = f"{finished} of {len(progress)} finished, {running} "
    words += "saved on their way" if stopped else "running"
    # Of a single run there is more to say than that it is one of one.
    if len(progress) == 1 and running:
        only = progress[0]
        words = f"iteration {only.iteration:,} of {only.run.experiment.iterations:,}, "
        words += f"{only.images_per_second:,.0f} images/s"
        words += f", {percent(only.test_err)} test error" if only.test_err is not None else ""
    seconds = _seconds_left(progress, max_concurrent_runs)
    return words + (f", about {duration(seconds)} left" if seconds is not None else "")


def _seconds_left(progress: list[RunProgress], max_concurrent_runs: int) -> float | None:
    """Seconds until all are done, going by the multiply-adds a second of the running ones."""

    def multiply_adds_left(each: RunProgress) -> float:
        experiment = each.run.experiment
        images = experiment.global_batch_size * (experiment.iterations - each.iteration)
        return layout(experiment).multiply_adds * images

    speeds = [
        layout(each.run.experiment).multiply_adds * each.images_per_second
        for each in progress
        if each.state == "running" and each.images_per_second
    ]
    if not speeds:
        return None
    left = sum(
        multiply_adds_left(each) for each in progress if each.state in ("running", "waiting")
    )
    mean_speed = sum(speeds) / len(speeds)
    # The work spread over all that run at once; but the longest single run cannot be spread.
    longest = max((each.seconds_left or 0.0) for each in progress)
    return max(longest, left / (mean_speed * max(max_concurrent_runs, 1)))
