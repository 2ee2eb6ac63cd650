"""Whole studies with a known truth, judged by the code that judges real ones.

Runs are drawn as the frame of run metrics has them; rows may scatter unequally, diverge or be of
unequal numbers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pandas as pd

from analysis.paper.reported import Statement
from analysis.stats import LEVEL
from analysis.verdicts.judgement import Circumstances, Judgement, judge_parts
from analysis.verdicts.parts import Part

STATEMENT = Statement("S", "simulated", "nowhere", "", "")


@dataclass(frozen=True)
class Row:
    """A row's truth: its mean error, deviation, number of runs, and how often a run diverges."""

    mean: float
    std: float = 0.16
    n: int = 5
    diverges: float = 0.0


def run_metrics(rows: dict[str, Row], rng: np.random.Generator) -> pd.DataFrame:
    """The run metrics of one study that is drawn from the truth."""
    names = [name for name, row in rows.items() for _ in range(row.n)]
    errors = np.concatenate([rng.normal(row.mean, row.std, row.n) for row in rows.values()])
    lost = np.concatenate([rng.random(row.n) < row.diverges for row in rows.values()])
    return pd.DataFrame(
        {
            "experiment": names,
            "state": np.where(lost, "diverged", "measured"),
            "classes": 10,
            "test": np.where(lost, np.nan, errors),
        }
    )


def judged(
    parts: Iterable[Part],
    metrics: pd.DataFrame,
    level: Fraction = LEVEL,
    here: Circumstances | None = None,
) -> Judgement:
    """The judgement of a claim that consists of these parts."""
    return judge_parts(STATEMENT, [part.judge(metrics, level) for part in parts], level, here)


def verdicts(
    parts: tuple[Part, ...], rows: dict[str, Row], draws: int, seed: int = 1
) -> dict[str, float]:
    """The share of studies with each verdict."""
    rng = np.random.default_rng(seed)
    said = [judged(parts, run_metrics(rows, rng)).verdict.value for _ in range(draws)]
    return {word: said.count(word) / draws for word in set(said)}
