"""Templates to pages: one Jinja environment, and the symbols that verdicts have on every page."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

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


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        # Names and reasons may come from elsewhere; a name that a template misspells must fail, not
        # print nothing.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
