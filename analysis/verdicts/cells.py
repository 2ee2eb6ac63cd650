"""A cell: what several seeds measured where the paper prints one number, and the verdict on whether
it was reproduced.

The interval of (our mean - the paper's number, taken as fixed) has to lie within a margin: two
one-sided tests at 5 %. It contradicts where it lies wholly outside. Margins are half a point unless
`paper/margins.csv` says otherwise, and why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite, nan
from typing import Literal

from analysis import stats
from analysis.paper import reported

Verdict = Literal["reproduced", "contradicted", "undecided", "not run"]

VERDICTS: tuple[Verdict, ...] = ("reproduced", "contradicted", "undecided", "not run")


@dataclass(frozen=True)
class Cell:
    """Numbers in percent: `low95` and `high95` bound our mean, `low` and `high` its difference from
    the paper's number.
    """

    n: int
    mean: float
    std: float
    low95: float
    high95: float
    best: float
    worst: float
    paper: float
    margin: float
    low: float
    high: float
    verdict: Verdict
    why: str

    @property
    def difference(self) -> float:
        return self.mean - self.paper


def judge_cell(
    values: Sequence[float],
    paper: float,
    margin: float,
    level: Fraction = stats.LEVEL,
    not_comparable: str = "",
) -> Cell:
    """The cell of these values; `not_comparable` says why they are not compared with the paper's
    number, if they are not.

    Raises:
        ValueError: a value is not finite.
    """
    if not all(map(isfinite, values)):
        raise ValueError("a cell holds finite values only")
    summary = stats.summarise(values)
    low95, high95 = stats.mean_interval(values, 0.95) if summary.n > 1 else (nan, nan)
    half = stats.half_width(summary.std, summary.n, level)
    difference = summary.mean - paper
    low, high = (difference - half, difference + half) if isfinite(half) else (nan, nan)
    verdict, why = _verdict(summary, paper, margin, low, high, level, not_comparable)
    if not_comparable or not isfinite(paper):
        low = high = nan
    return Cell(
        summary.n, summary.mean, summary.std, low95, high95, summary.best, summary.worst,
        paper, margin, low, high, verdict, why,
    )  # fmt: skip


def _verdict(
    summary: stats.Summary,
    paper: float,
    margin: float,
    low: float,
    high: float,
    level: Fraction,
    not_comparable: str,
) -> tuple[Verdict, str]:
    if summary.n == 0:
        return "not run", "no finished run"
    if not_comparable:
        return "not run", f"not comparable: {not_comparable}"
    if not isfinite(paper):
        return "not run", "the paper gives no number"
    if summary.n < stats.MIN_SEEDS:
        return (
            "undecided",
            f"{summary.n} finished seed{'s' * (summary.n > 1)}; at least {stats.MIN_SEEDS} are "
            "needed",
        )
    within = f"±{margin:g}"
    interval = f"{stats.percent(stats.confidence(level))} interval of the difference {_signed(low)} to {_signed(high)}"
    if -margin <= low and high <= margin:
        return "reproduced", f"{interval}, within {within}"
    if low > margin or high < -margin:
        return "contradicted", f"{interval}, outside {within}"
    return (
        "undecided",
        f"{interval}, across {within}; {_what_would_decide(summary, paper, margin, level)}",
    )


def _what_would_decide(summary: stats.Summary, paper: float, margin: float, level: Fraction) -> str:
    """The difference that so many seeds could have shown to be small enough, and the seeds that
    would decide.
    """
    reach = margin - stats.half_width(summary.std, summary.n, level)
    seen = f"a difference of up to {reach:.2f}" if reach > 0 else "no difference, however small,"
    seeds = stats.seeds_to_place(
        summary.mean - paper, summary.std, summary.n, -margin, margin, level
    )
    return f"{summary.n} seeds could have shown {seen} to be within it; {would_decide(seeds)}"


def would_decide(seeds: int | None) -> str:
    """In words, how many seeds would decide."""
    return (
        f"about {seeds} seeds would decide"
        if seeds
        else f"more than {stats.MANY_SEEDS} seeds would be needed"
    )


def margin_of(experiment: str, metric: str) -> float:
    """The margin of a row's number, in points."""
    return reported.margins().get((experiment, metric), reported.MARGIN)


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
