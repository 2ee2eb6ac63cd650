"""Templates to pages: one Jinja environment, and the symbols that verdicts have on every page."""

import re
from functools import cache
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from analysis.tables.table_text import MISSING
from analysis.verdicts.words import Verdict

INDEX = "index.html"
"""The page that a folder of a report opens with."""

TEMPLATES = Path(__file__).parent / "templates"
SYMBOLS = {
    Verdict.REPRODUCED.value: "✓",
    Verdict.SUGGESTIVE.value: "(✓)",
    Verdict.SEEN_HERE.value: "→",
    Verdict.UNDECIDED.value: "?",
    Verdict.CONTRADICTED.value: "✗",
    Verdict.SUGGESTIVE_AGAINST.value: "(✗)",
    Verdict.OPPOSITE_SEEN_HERE.value: "←",
    Verdict.NOT_RUN.value: "–",
}


def render(template: str, **content: object) -> bytes:
    """A page of a template."""
    return (
        _environment().get_template(template).render(symbols=SYMBOLS, **content).rstrip() + "\n"
    ).encode()


def without_empty_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """A table as a page shows it: columns in which no row has anything would only be in the way."""
    empty = [name for name in frame if frame[name].isin(["", MISSING]).all()]
    return frame.drop(columns=empty) if len(frame) else frame


def stacked(text: str) -> Markup:
    """A cell of Table 1: what stands in a bracket is one layer a line, as the paper prints it."""
    before, bracket, after = re.fullmatch(r"([^[]*)(?:\[(.*)\])?(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    # The pooling before the first block has a line of its own.
    lines = [escape(part) for part in before.split("; ") if part]
    if bracket:
        layers = Markup("<br>").join(map(escape, bracket.split("; ")))
        lines.append(Markup('<span class="bracket">{}</span>{}').format(layers, after))
    return Markup("<br>").join(lines)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        # Names and reasons may come from elsewhere; a name that a template misspells must fail, not
        # print nothing.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["without_empty_columns"] = without_empty_columns
    environment.filters["stacked"] = stacked
    return environment
