"""Tables that never cut a value: where one is too wide for the terminal, its rows become lists."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from jobs.console.console import UNBOUNDED
from pipeline.errors import redacted

Row = Mapping[str, str]
"""By column, the text of its cell."""

NARROWEST = 24
"""Columns that a text is not squeezed below: a row as a list is easier to read."""


class FittingTable:
    """Rows under named columns, as a table where every value fits on one line.

    Texts of the columns in `wrapping` may take several lines; numbers and names may not. Where the
    terminal is narrower, those texts stand below their rows; where it is narrower still, each row
    is a list of its columns and values.
    """

    def __init__(
        self,
        *columns: str,
        title: str = "",
        left: Collection[str] = (),
        wrapping: Collection[str] = (),
    ) -> None:
        self._columns, self._title = columns, redacted(title)
        self._left, self._wrapping = {*left, *wrapping}, [*wrapping]
        self._rows: list[Row] = []
        self._section_ends: set[int] = set()

    def add_row(self, *cells: str) -> None:
        """Add a row, a text for each column."""
        self._rows.append(dict(zip(self._columns, map(redacted, cells), strict=True)))

    def add_section(self) -> None:
        """Draw a line below the rows that there are."""
        self._section_ends.add(len(self._rows) - 1)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        fixed = [name for name in self._columns if name not in self._wrapping]
        for columns in (self._columns, fixed):
            table = self._table(columns, self._rows)
            # Unbounded, as Rich would say at most what there is room for.
            needed = Measurement.get(console, options.update(max_width=UNBOUNDED), table).minimum
            if needed <= options.max_width:
                yield from [table] if columns is self._columns else self._stacked(fixed)
                return
        yield from self._lists()

    def _table(self, columns: Sequence[str], rows: Sequence[Row]) -> Table:
        """A table of these columns and rows, each column as wide as in all rows."""
        table = Table(
            title=Text(self._title, style="bold") if self._title else None,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for name in columns:
            widest = max(cell_len(text) for text in (name, *(row[name] for row in self._rows)))
            wraps = name in self._wrapping
            table.add_column(
                name,
                justify="left" if name in self._left else "right",
                no_wrap=not wraps,
                overflow="fold",
                min_width=min(widest, NARROWEST) if wraps else widest,
            )
        # As texts, in which brackets are no markup.
        for number, row in enumerate(rows):
            ends = number in self._section_ends
            table.add_row(*(Text(row[name]) for name in columns), end_section=ends)
        return table

    def _stacked(self, fixed: Sequence[str]) -> Iterator[RenderableType]:
        """Rows without their texts, which stand below them."""
        yield self._table(fixed, [])
        for row in self._rows:
            table = self._table(fixed, [row])
            table.show_header = table.show_edge = False
            table.title = None
            yield Padding(table, (0, 0, 0, 1))
            for name in self._wrapping:
                if row[name]:
                    yield Padding(Text(f"{name}: {row[name]}", overflow="fold"), (0, 0, 0, 5))

    def _lists(self) -> Iterator[RenderableType]:
        if self._title:
            yield Text(self._title, style="bold")
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, style="bold")
        table.add_column(overflow="fold")
        for row in self._rows:
            table.add_row("", "")
            for name, cell in row.items():
                table.add_row(name, Text(cell))
        yield table
