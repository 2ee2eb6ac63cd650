"""Tables that somebody else could hand in: valid ones in which hypothesis changes a few values."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from hypothesis import strategies as st

from analysis.measured.schema import Column

Tables = dict[str, pd.DataFrame]

NAMES = [
    "",
    "a",
    "../../x",
    "$\\frac$",
    "$x_1$",
    "=1+1",
    "<b>",
    "a\x00b",
    "\x1b[31m",
    "\u202e",
    "é" * 300,
    "a" * 100_000,
    "a/b",
    "\\",
    "'",
    "%s{}",
    "resnet20",
    "plain56",
    "nan",
    "{}",
    "null",
    "[]",
    '{"lr_drops": 3}',
    '{"iterations": "x"}',
    '{"a": {"b": 1}}',
    '["a"]',
    '[["a"]]',
    "[" * 9_999,
    '{"lr": NaN}',
    '{"lr": 1e999}',
    '{"lr": ' + "9" * 5_000 + "}",
    '{"lr_drops": [5, 3]}',
    '{"$\\\\frac$": "$x$"}',
    "train/top1_err",
    "test/top1_err",
    "FINISHED",
    "DIVERGED",
    "RUNNING",
    "peer",
    "ensemble",
    "ten_crop",
    "center_crop",
    "response_std",
    "gradient_norm",
    "http://a/$\\frac$",
    "javascript:alert(1)",
    "\n| a |",
    "-0.5",
    "- a",
]
INTEGERS = [-1, 0, 1, 2, 3, 7, 100, 63_999, 64_000, 10**9, 10**9 + 1, 2**31, 2**53, 2**62, -(2**63)]
NUMBERS = [0.0, -1.0, 0.5, 1.0, 50.0, 100.0, 100.1, 1e-300, 1e38, 1e300, -1e300, float("inf"),
           float("-inf"), float("nan"), 1.7976931348623157e308]  # fmt: skip
OF_KIND: dict[str, st.SearchStrategy[Any]] = {
    "text": st.sampled_from(NAMES) | st.text(max_size=20),
    "integer": st.sampled_from(INTEGERS) | st.integers(-(2**63), 2**63 - 1),
    "number": st.sampled_from(NUMBERS) | st.floats(),
    "boolean": st.booleans(),
}


@st.composite
def changed(draw: st.DrawFn, tables: Tables, schemas: Mapping[str, Mapping[str, Column]]) -> Tables:
    """The tables with one to four changes: a value, a whole column, or a row that is gone."""
    result = dict(tables)
    for _ in range(draw(st.integers(1, 4))):
        name = draw(st.sampled_from(sorted(result)))
        table = result[name]
        if not len(table):
            continue
        column = draw(st.sampled_from(sorted(schemas[name].keys() & set(table.columns))))
        # Seldom of another kind: such are refused at once, and nothing behind is reached.
        kind = schemas[name][column].kind
        if draw(st.integers(0, 9)) == 0:
            kind = draw(st.sampled_from(sorted(OF_KIND)))
        value = draw(OF_KIND[kind] | st.none() if draw(st.integers(0, 9)) == 0 else OF_KIND[kind])
        values = table[column].astype(object)
        match draw(st.sampled_from(["one", "all", "gone"])):
            case "one":
                values = values.copy()
                values.iloc[draw(st.integers(0, len(table) - 1))] = value
                result[name] = table.assign(**{column: values})
            case "all":
                result[name] = table.assign(**{column: [value] * len(table)})
            case "gone":
                result[name] = table.drop(index=table.index[draw(st.integers(0, len(table) - 1))])
    return result
