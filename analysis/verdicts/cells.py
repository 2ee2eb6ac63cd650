"""A cell: what seeds measured where the paper prints one number, and whether that reproduces it.

An equivalence test: the interval of (our mean - the paper's number, taken as fixed) has to lie
within a margin, which is two one-sided tests at 5 % (TOST). It contradicts where it lies wholly
outside. Margins are half a point unless `paper/margins.csv` says otherwise, and why. Since the
paper's number is itself one run, reproduced means "within the margin of what it printed", not "of
its true mean".
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
    """A cell's numbers in percent, and its verdict.

    `low95` and `high95` bound our mean, `low` and `high` its difference from the paper's number.
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
    """The cell of these values; if they are not compared with the paper, `not_comparable` says why.

    Raises:
        ValueError: a value is not finite.
    """
    if not all(map(isfinite, values)):
        raise ValueError("a cell holds finite values only")
    summary = stats.summarise(values)
    # For people the usual 95 %; the verdict reads the interval that belongs to its level.
    low95, high95 = stats.mean_interval(values, 0.95) if summary.n > 1 else (nan, nan)
    # Of (our mean - the paper's number) only our mean varies: the interval is that of the mean,
    # shifted.
    half = stats.half_width(summary.std, summary.n, level)
    difference = summary.mean - paper
    low, high = (difference - half, difference + half) if isfinite(half) else (nan, nan)
    verdict, why = _verdict(summary, paper, margin, low, high, level, not_comparable)
    # A difference from a number about something else must not appear anywhere.
    if not_comparable or not isfinite(paper):
        low = high = nan
    return Cell(
        n=summary.n,
        mean=summary.mean,
        std=summary.std,
        low95=low95,
        high95=high95,
        best=summary.best,
        worst=summary.worst,
        paper=paper,
        margin=margin,
        low=low,
        high=high,
        verdict=verdict,
        why=why,
    )


def _verdict(
    summary: stats.Summary,
    paper: float,
    margin: float,
    low: float,
    high: float,
    level: Fraction,
    not_comparable: str,
) -> tuple[Verdict, str]:
    # First whether there is anything to judge, then whether there are seeds enough to.
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
    share = stats.percent(stats.confidence(level))
    interval = f"{share} interval of the difference {_signed(low)} to {_signed(high)}"
    # Equivalence, its opposite, or neither: only an interval wholly on one side decides.
    if -margin <= low and high <= margin:
        return "reproduced", f"{interval}, within {within}"
    if low > margin or high < -margin:
        return "contradicted", f"{interval}, outside {within}"
    return (
        "undecided",
        f"{interval}, across {within}; {_what_would_decide(summary, paper, margin, level)}",
    )


def _what_would_decide(summary: stats.Summary, paper: float, margin: float, level: Fraction) -> str:
    """The difference that these seeds could have shown to be within it, and how many would."""
    # How far our mean may lie from the paper's number with its interval still inside the margin.
    reach = margin - stats.half_width(summary.std, summary.n, level)
    shown = f"a difference of up to {reach:.2f}" if reach > 0 else "no difference, however small,"
    seeds = stats.seeds_for_equivalence(
        summary.mean - paper, summary.std, summary.n, -margin, margin, level
    )
    return f"{summary.n} seeds could have shown {shown} to be within it; {would_decide(seeds)}"


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
