"""A table has every value whole, however narrow the terminal; in a pipe it is as wide as it is."""

import io

import pytest
from rich.cells import cell_len

from jobs.console.console import RedactedConsole
from jobs.console.tables import FittingTable
from tests.test_boundaries import users

NAMES = ("run", "params", "shows")
ROWS = [
    ("resnet110-nowarmup", "1.73M", "all that any table, figure or claim of the paper needs"),
    ("s3://bucket/results/[bold]", "2,829.24M", ""),
]


def table() -> FittingTable:
    made = FittingTable(*NAMES, title="The rows", left=["run"], wrapping=["shows"])
    for row in ROWS:
        made.add_row(*row)
    return made


def shown(width: int | None) -> str:
    """What a terminal of so many columns shows; None: what a pipe gets."""
    out, terminal = io.StringIO(), width is not None
    console = RedactedConsole(file=out, force_terminal=terminal, width=width, color_system=None)
    console.print(table())
    return out.getvalue()


@pytest.mark.parametrize("width", [36, 40, 60, 80, 100, 200])
def test_no_value_is_cut_or_broken_whatever_the_width(width: int) -> None:
    text = shown(width)
    assert "…" not in text and max(map(cell_len, text.splitlines())) <= width
    for run, params, shows in ROWS:
        assert run in text and params in text
        assert set(shows.split()) <= set(text.split())


def test_a_table_gets_narrower_by_steps() -> None:
    row = " ".join([ROWS[0][0], "1.73M", *ROWS[0][2].split()])
    squeezed = [" ".join(line.split()) for line in shown(200).splitlines()]
    assert row in squeezed
    below = shown(45).splitlines()
    assert any("nowarmup" in line and "1.73M" in line for line in below)
    assert any(line.strip().startswith("shows: all that") for line in below)
    assert any(line.split() == ["params", "1.73M"] for line in shown(35).splitlines())


def test_a_pipe_gets_each_row_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    line = next(line for line in shown(None).splitlines() if ROWS[0][0] in line)
    assert all(value in line for value in ROWS[0])


def test_an_encoding_without_box_drawing_gets_ascii() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    RedactedConsole(file=out).print(table())
    out.flush()
    assert b"+---" in raw.getvalue() and b"2,829.24M" in raw.getvalue()


def test_every_table_of_ours_is_such_a_one() -> None:
    assert users("rich.table") == {"jobs/console/tables.py"}
