"""The signals that ask a command to end and be continued: SIGTERM, SIGHUP and SIGUSR1.

Batch systems send them before a time limit or a preemption, `kill` and `systemctl stop` SIGTERM,
and a terminal that is closed SIGHUP. Ctrl-C is another thing: it waits for nobody to save.
"""

import os
import signal
import sys
from contextlib import suppress
from time import monotonic
from types import FrameType

CONTINUE = os.EX_TEMPFAIL
"""The exit code of a command that such a signal has ended: 75, "try again" in sysexits.h."""
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
SAVE_SECONDS = 45.0
"""How long a command waits for its workers to save; signals that come meanwhile change nothing."""


class TerminatedError(BaseException):
    """A command is to end: by what has this name, a signal mostly, its own or a worker's.

    As KeyboardInterrupt, it is none of the errors that `except Exception` is about.
    """


def raise_on_signals() -> list[str]:
    """From now on each signal raises `TerminatedError` here; the names of those that came.

    It has to be called in the main thread, which is the one that they interrupt.
    """
    came: list[str] = []
    first = 0.0

    def on_signal(number: int, _: FrameType | None) -> None:
        # Several mostly come at once: what waits for the workers is not to be interrupted. Raised
        # where nobody let it through (in a destructor, say), the first one is not the last.
        nonlocal first
        if came and monotonic() - first < SAVE_SECONDS:
            return
        first = monotonic()
        came.append(signal.Signals(number).name)
        raise TerminatedError(came[-1])

    for number in SIGNALS:
        # As under nohup: whoever started this command does not want it to end by that.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, on_signal)
    return came


def signal_behind(error: BaseException) -> TerminatedError | None:
    """The signal that an error came of: with a terminal that is closed, what is shown fails too."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, TerminatedError):
        seen = seen.__context__
    return seen


def say(words: str) -> None:
    """Say on standard error what becomes of a command that ends, whether anybody still reads it."""
    with suppress(SystemExit):
        print(words, file=sys.stderr, flush=True)


def stop_after(minutes: float | None) -> None:
    """From now on so long, then end as by one of the signals; never without a number."""

    def on_alarm(_: int, __: FrameType | None) -> None:
        raise TerminatedError("--stop-after")

    if minutes is not None:
        signal.signal(signal.SIGALRM, on_alarm)
        signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
