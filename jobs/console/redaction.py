"""What a process of ours shows or logs, without passwords: set up once, where the process begins.

Commands print, libraries warn, Python shows tracebacks and loggers write: all of it goes through
the two streams and the log records of this module. What is passed on to others stays as it is.
Here is also what becomes of letters that a locale lacks, and of a reader that has gone.
"""

import codecs
import errno
import logging
import os
import sys
import unicodedata
from collections.abc import Callable
from functools import wraps
from io import TextIOWrapper
from threading import RLock
from typing import Any, TextIO

from pipeline.errors import redacted

READER_GONE = 141
"""The exit code of a command whose output nobody reads any more: a shell's for SIGPIPE."""

SPELT = "spelt"
"""The name of how letters are written that the locale's encoding lacks: see `_spelt`."""
_SPELLINGS = str.maketrans(
    {"→": "->", "–": "-", "—": "-", "−": "-", "×": "x", "±": "+/-", "…": "...", "†": "+"}
    | {"≤": "<=", "≥": ">=", "∞": "inf", "‘": "'", "’": "'", "“": '"', "”": '"', "·": "*"}
)


def _spelt(error: UnicodeError) -> tuple[str, int]:
    """Letters that an encoding lacks in ASCII, as `x` for a times sign; else by their number."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    plain = unicodedata.normalize("NFKD", lacking.translate(_SPELLINGS))
    # Accents, which the normal form has taken off their letters.
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return plain.encode("ascii", "backslashreplace").decode("ascii"), error.end


codecs.register_error(SPELT, _spelt)


class RedactedStream:
    """A text stream that writes what it is given without passwords.

    Lines are written whole, since a password may come in pieces: what has no end yet is kept until
    it has one, or until the stream is flushed.

    Where the reader has gone, as `| head -1` does, the command ends: as it does after Ctrl-C, and
    without a word.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._begun, self._lock = stream, "", RLock()

    def write(self, text: str) -> int:
        """Write the lines that are complete."""
        with self._lock:
            lines, end, self._begun = (self._begun + text).rpartition("\n")
            if end:
                self._pass_on(redacted(lines) + end)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write several texts one after another."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Write also the line that has been begun."""
        with self._lock:
            begun, self._begun = self._begun, ""
            self._pass_on(redacted(begun), flush=True)

    def _pass_on(self, text: str, flush: bool = False) -> None:
        try:
            if text:
                self._stream.write(text)
            if flush:
                self._stream.flush()
        except OSError as error:
            # A pipe without a reader, or a terminal that was closed.
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            # What is still kept for the pipe would be tried again at the end of the process.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            raise SystemExit(READER_GONE) from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def hide_secrets() -> None:
    """From now on this process shows and logs no password; calling it again changes nothing."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, RedactedStream):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors=SPELT)
            setattr(sys, name, RedactedStream(stream))
    # Handlers that others have made hold streams of their own: what they are given is redacted.
    logging.setLogRecordFactory(_redacted_record)


def hiding_secrets(begins: Callable[..., Any]) -> Callable[..., Any]:
    """A function, or an actor's class, with which a process of a cluster's begins, as `main` does.

    All that Ray is given goes through here: its processes are those of whoever started the cluster.
    """
    if isinstance(begins, type):

        class Hiding(begins):  # type: ignore[valid-type, misc]
            def __init__(self, *arguments: Any, **keywords: Any) -> None:
                hide_secrets()
                super().__init__(*arguments, **keywords)

        Hiding.__name__ = begins.__name__
        return Hiding

    @wraps(begins)
    def begun(*arguments: Any, **keywords: Any) -> Any:
        hide_secrets()
        return begins(*arguments, **keywords)

    return begun


def _redacted_record(*arguments: Any, **keywords: Any) -> logging.LogRecord:
    record = logging.LogRecord(*arguments, **keywords)
    try:
        record.msg, record.args = redacted(record.getMessage()), ()
    except (TypeError, ValueError):  # a message that its arguments do not fit: logging says so
        return record
    if record.exc_info:
        # Formatters use the text that is there instead of making their own of the exception.
        record.exc_text = redacted(logging.Formatter().formatException(record.exc_info))
    return record
