"""How numbers and tables become text: `8.75 ± 0.12 (5)`, signs, Markdown and LaTeX.

Every table of a report goes through here, so that one number looks alike wherever it is printed.
"""

import re
from collections.abc import Collection
from typing import Any

import pandas as pd

MISSING = "–"
"""What a cell without a number shows."""


def mean_std_n(mean: float, std: float, n: int) -> str:
    """`8.75 ± 0.12 (5)`: what was measured of a cell, as text."""
    if n == 0:
        return MISSING
    return f"{mean:.2f} ± {std:.2f} ({n})" if n > 1 else f"{mean:.2f} ({n})"


def difference(row: Any) -> str:
    """The difference from the paper with its sign, or why there is none."""
    if pd.notna(row.difference):
        return signed(row.difference)
    return "not comparable" if row.n and not row.comparable else MISSING


def amount(value: float, digits: int = 3) -> str:
    """`1,235`, `88.1`, `0.000123`: all digits before the point, and so many in all at least."""
    if pd.isna(value):
        return MISSING
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) - 0.05 else f"{value:.{digits}g}"


def signed(value: float) -> str:
    """`+0.12` or `−0.12`, with a minus sign and not a hyphen."""
    return f"{value:+.2f}".replace("-", "−")


def to_markdown(table: pd.DataFrame) -> str:
    """A Markdown table of a frame of text."""
    heads = list(table.columns)
    rows = [heads, ["---" for _ in heads], *table.to_numpy().tolist()]
    return "".join(
        # A bar inside a cell would end it.
        "| " + " | ".join(markdown_text(cell).replace("|", "\\|") for cell in row) + " |\n"
        for row in rows
    )


def markdown_text(text: str) -> str:
    """A text that may come from elsewhere, as Markdown shows it: no HTML, no link, one line."""
    text = TAG.sub("&lt;", ENTITY.sub("&amp;", text))
    return " ".join(text.splitlines()).replace("](", "]\\(")


TAG = re.compile(r"<(?=[A-Za-z/!?])")
"""What opens a tag, a comment or a link in HTML and Markdown; `p < 0.05` opens none."""

ENTITY = re.compile(r"&(?=#|[A-Za-z][A-Za-z0-9]*;)")
"""What would be shown as another letter."""


def to_csv(table: pd.DataFrame) -> bytes:
    """A frame as CSV in which no text is a formula to whoever opens it as a spreadsheet."""
    safe = table.copy()
    for name in table.columns:
        if pd.api.types.is_object_dtype(table[name]) or pd.api.types.is_string_dtype(table[name]):
            safe[name] = table[name].map(_no_formula)
    return safe.to_csv(index=False).encode()


def _no_formula(cell: Any) -> Any:
    """A text with a quote before what a spreadsheet would compute; a number stays one."""
    if not isinstance(cell, str) or not cell.startswith(FORMULA) or NUMBER.fullmatch(cell):
        return cell
    return f"'{cell}"


FORMULA = ("=", "+", "-", "@", "\t", "\r")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "†": r"\dag{}",
    ">": "$>$",
    "<": "$<$",
}
"""What LaTeX reads as something else, as it is written there."""


def to_latex(table: pd.DataFrame, caption: str, numeric: Collection[str]) -> str:
    """A LaTeX table (booktabs) of a frame of text; `numeric` columns are set flush right."""
    align = "".join("r" if name in numeric else "l" for name in table.columns)
    rows = [" & ".join(map(_latex, row)) + r" \\" for row in table.to_numpy().tolist()]
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            rf"\caption{{{_latex(caption)}}}",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            " & ".join(map(_latex, table.columns)) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)
