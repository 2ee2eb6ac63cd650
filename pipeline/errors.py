"""Mistakes that a user can correct, runs that end by themselves, and the line shown of an error.

The command line prints an `InputError` as a single line and exits with code 2; an exception of
another kind is a defect, and shows a traceback.
"""

import re


def redacted(text: str) -> str:
    """A text as it may be printed and stored: addresses in it without user, password and token."""
    # First `user:password@`, greedily up to the last @ before a blank or quote: passwords hold
    # anything.
    text = re.sub(r"://[^/\s:@]*:[^\s\"']*@", "://", text)
    text = re.sub(r"://[^/\s@]*@", "://", text)
    return re.sub(r"([?&](?:password|secret|token)=)[^&\s]*", r"\1...", text)


class InputError(Exception):
    """What is wrong, where, and what to do about it, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(redacted(message))


class DivergedError(Exception):
    """A run whose loss became NaN or infinite: a retry would repeat it, so there is none."""


class StorageLostError(Exception):
    """Storage could not be written until the retry budget was spent, and the run stopped.

    What it holds stays, and the same command continues from there.
    """


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind where it has none."""
    return redacted(
        next(
            (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
        )
    )


def last_line(text: str) -> str:
    """The last line that is not blank; of a traceback, the one that says what happened."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def reason_of(error: BaseException) -> str:
    """The line of an error that tells a user most: ours if its chain has one, else its last."""
    if isinstance(error, InputError):
        return str(error)
    # Ray wraps what a worker raised, once or twice: the reason is inside, not the wrapper's
    # message.
    failures = getattr(error, "worker_failures", None) or {}
    for cause in [*failures.values(), error.__cause__, getattr(error, "cause", None)]:
        if isinstance(cause, BaseException) and cause is not error:
            return reason_of(cause)
    line = redacted(last_line(str(error)))
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
