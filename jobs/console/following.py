"""A job in the background, and its runs on the screen until it ends or is to end.

All that is shown is read from the runs' folders.
"""

from collections.abc import Callable
from threading import Event, Thread
from typing import Any

from rich.live import Live

from jobs.console.console import console
from jobs.console.progress_log import ProgressLog
from jobs.console.progress_table import table
from jobs.console.termination import SAVE_SECONDS, TerminatedError, say, signal_behind
from jobs.console.watch import Watch
from pipeline.runs.run import Run
from pipeline.storage import Storage

POLL_SECONDS = 2.0
MOST_FAILURES = 3
"""In a row, to reach those who are to save."""


def follow(
    heading: str,
    storage: Storage,
    runs: list[Run],
    max_concurrent_runs: int,
    job: Callable[[], Any],
    on_interrupt: Callable[[], None] = lambda: None,
    on_terminate: Callable[[], None] = lambda: None,
    where: str = "this machine",
) -> Any:
    """Run `job` in the background and show its runs until it ends; returns or raises what it does.

    `max_concurrent_runs` is how many runs go at once, for the estimate of the time left, and
    `where` what they train on. Ctrl-C reaches the caller at once, after `on_interrupt` was called;
    so does the end of whoever reads. A signal that asks the command to end does so when the job has
    ended, which `on_terminate` asks it to do, or has had its time. Whoever ends so is told what is
    left; a job says that a signal ended it by TerminatedError.
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
    watch = Watch(heading, storage, runs, max_concurrent_runs, where)
    thread = Thread(target=body, daemon=True)
    thread.start()
    show = _show_table if console.is_terminal else _print_lines
    try:
        show(watch, thread)
    # Ctrl-C, a signal, or nobody reads any more what is shown.
    except (KeyboardInterrupt, SystemExit, TerminatedError) as error:
        signal = signal_behind(error)
        if signal is None:
            on_interrupt()
            # As it was seen last: Ctrl-C waits for nothing.
            if isinstance(error, KeyboardInterrupt):
                say(f"{heading}: {watch.what_is_left()}")
            raise
        try:
            _let_end(ended, on_terminate, f"{signal}: saving, for {SAVE_SECONDS:.0f} s at most")
        finally:
            if not outcome:
                on_interrupt()
        if not outcome:
            say("not all was saved; the checkpoints before count")
        _say_what_is_left(watch)
        raise signal from None
    if isinstance(outcome.get("error"), TerminatedError):
        _say_what_is_left(watch)
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]


def _say_what_is_left(watch: Watch) -> None:
    watch.look()
    say(f"{watch.heading}: {watch.what_is_left()}")


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


def _show_table(watch: Watch, thread: Thread) -> None:
    """One table that is drawn again and again in its place, the last time after the end."""
    with Live(console=console, refresh_per_second=2, transient=False) as live:
        running = True
        while running:
            running = thread.is_alive()
            watch.look()
            live.update(table(watch))
            thread.join(POLL_SECONDS)


def _print_lines(watch: Watch, thread: Thread) -> None:
    """What happens to the runs, a line each, the last ones after the end."""
    log = ProgressLog(watch)
    running = True
    while running:
        running = thread.is_alive()
        watch.look()
        log.tell()
        thread.join(POLL_SECONDS)
