"""Mistakes that a user can correct, runs that end by themselves, and the line shown of an error.

The command line prints an `InputError` as a single line and exits with code 2; an exception of
another kind is a defect, and shows a traceback.
"""

import re

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
# A user and a password in an address, up to the last @ before a blank or quote: passwords hold
# anything. The lengths that are given keep a text without blanks from being read many times over.
_LOGIN = re.compile(r"://[^/\s:@]*:[^\s\"']*@")
_USER = re.compile(r"://[^/\s@]*@")
_LOGIN_ALONE = re.compile(r"(?<!\w)[\w.+-]{1,64}:[^\s/@\"']{1,256}@(?=\w)")
_HEADER = re.compile(
    r"(authorization[\"']?\s*[:=]\s*[\"']?)(?:(?:basic|bearer)\s+)?[^\s\"',]+", re.I
)
_SECRET = (
    r"(?:passwor[dt]|passwd|pwd|passphrase|secret|token|credentials?|signature"
    r"|(?:secret|api|access|account|private)[_-]?(?:access[_-]?)?key(?:[_-]?id)?"
    r"|[?&](?:sig|key))"
)
_WORDS = ("passw", "pwd", "passphrase", "secret", "token", "credential", "signature", "key", "sig=")
"""What a text holds that `_SECRET` is found in."""
# NAME=VALUE in queries and texts, and as Python and JSON write it: 'NAME': 'VALUE'.
_QUOTED = re.compile(rf"({_SECRET}[\"']?\s*[=:]\s*)([\"'])(?!\2).*?(?:\2|$)", re.I | re.M)
_PLAIN = re.compile(rf"({_SECRET}[\"']?=)(?![\"'])[^&\s\"']*[^&\s\"':,;)]", re.I)


def redacted(text: str) -> str:
    """A text as it may be shown and kept: without the users, passwords and tokens in it."""
    lower = text.lower()
    # Most texts have nothing to hide, and a look for words takes a hundredth of an expression.
    if "@" in text:
        text = _LOGIN_ALONE.sub("", _USER.sub("://", _LOGIN.sub("://", text)))
    if "authorization" in lower:
        text = _HEADER.sub(r"\1...", text)
    if any(word in lower for word in _WORDS):
        text = _PLAIN.sub(r"\1...", _QUOTED.sub(r"\1\2...\2", text))
    return text


def one_line(text: str) -> str:
    """A text with blanks for its line breaks and other control characters."""
    return _CONTROLS.sub(" ", text).strip()


SHOWN_LETTERS = 1000
"""A message may be longer than any line of ours, but not as long as whatever somebody pasted."""


def shortened(text: str) -> str:
    """A text, or its beginning and its end where it is very long: they say what it is about."""
    if len(text) <= SHOWN_LETTERS:
        return text
    return f"{text[: SHOWN_LETTERS // 2]} ... {text[-SHOWN_LETTERS // 2 :]}"


def is_text(text: str) -> bool:
    """Whether it is one line of letters: no control characters, and no bytes that are no text."""
    return _CONTROLS.search(text) is None and not any(
        "\ud800" <= letter <= "\udfff" for letter in text
    )


class InputError(Exception):
    """What is wrong, where, and what to do about it, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(redacted(message)))


class DivergedError(Exception):
    """A run whose loss became NaN or infinite: a retry would repeat it, so there is none."""


class StorageLostError(Exception):
    """Storage could not be written until the retry budget was spent, and the run stopped.

    What it holds stays, and the same command continues from there.
    """


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind where it has none.

    With the lines after it where they say what it announces by a colon at its end.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return redacted(" ".join(lines) if lines[0].endswith(":") else lines[0])


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
