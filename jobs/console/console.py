"""The terminal that every command prints to: tables, a progress bar, and how a failure is said."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from rich.console import Console, ConsoleDimensions
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from pipeline.errors import redacted

UNBOUNDED = 100_000
"""Columns of a pipe or a file, where whoever reads on needs every value whole and on its line."""


class RedactedConsole(Console):
    """Rich's console, which colours and breaks texts, and so may cut a password in two.

    They are redacted before that: what is printed, a table's cells and its title.
    """

    @property  # type: ignore[misc]  # Rich's can be set as well, which nobody does
    def size(self) -> ConsoleDimensions:
        """Columns and lines of the terminal; off a terminal as many as it takes."""
        return super().size if self.is_terminal else ConsoleDimensions(UNBOUNDED, UNBOUNDED)

    def render_str(self, text: str, *arguments: Any, **keywords: Any) -> Text:
        """A text, or a cell of a table, as Rich renders it."""
        return super().render_str(redacted(text), *arguments, **keywords)


console = RedactedConsole()
LINE_SECONDS = 5.0
"""Off a terminal, a count is printed at most this often."""


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for something counted, as a function of (done, total).

    Off a terminal, a bar would fill a log with its repetitions: there it is a line now and then.
    """
    if not console.is_terminal:
        last_line = monotonic()

        def line(done: int, total: int) -> None:
            nonlocal last_line
            if monotonic() - last_line >= LINE_SECONDS:
                last_line = monotonic()
                print(f"{what}: {done:,} of {total:,}", flush=True)

        yield line
        return
    # How many and how long: what is counted differs between commands, its size says little.
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)  # pulses until the first report says of how many
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


def failed(message: str) -> SystemExit:
    """Say on standard error what failed; the exit to raise for it, with code 1."""
    print(f"error: {message}", file=sys.stderr)
    return SystemExit(1)
