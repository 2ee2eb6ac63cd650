"""A cell: what seeds measured where the paper prints one number, and whether that reproduces it.

An equivalence test: the interval of (our mean - the paper's mean) has to lie within a margin, which
is two one-sided tests (TOST). It contradicts where it lies wholly outside. What the paper prints is
one run of most networks, so the interval is widened by the noise of one run, taken to be ours; of
ResNet-110 it is the mean of five, with their own deviation. Margins and their reasons are in
`paper/margins.csv`; `docs/verdicts.md` has the error rates and powers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import isfinite, isnan, nan

from analysis import power, stats
from analysis.paper import reported
from analysis.verdicts.words import Qualifier, Verdict, by_seeds

NAME_SEEDS = "finish them, or name the seeds to be judged (report --seeds)"
"""What to do about runs that gave no result."""


@dataclass(frozen=True)
class RowRuns:
    """The runs of a row as a cell counts them.

    `values` are the errors of finished runs; `diverged` is how many gave none for good, whose error
    is that of `chance`; `lost` says in words which runs crashed or go on.
    """

    values: Sequence[float]
    diverged: int = 0
    lost: str = ""
    chance: float = 90.0


@dataclass(frozen=True)
class PaperNumber:
    """A number that the paper prints: the mean of `runs` runs, with their deviation if it has one.

    `margin` is in points. `neighbours` are the paper's numbers of other networks, by name.
    """

    value: float
    margin: float
    runs: int = 1
    std: float = nan
    neighbours: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """A cell's numbers in percent, and its verdict.

    `low95` and `high95` bound our mean, `low` and `high` its difference from the paper's. `p` is
    that of equivalence, `p_against` that of its opposite. `power` is how often so many seeds, so
    scattered, find a network that equals the paper's. `not_excluded` names neighbours.
    """

    n: int
    mean: float
    std: float
    low95: float
    high95: float
    best: float
    worst: float
    diverged: int
    paper: float
    margin: float
    low: float
    high: float
    p: float
    p_against: float
    power: float
    not_excluded: tuple[str, ...]
    verdict: Verdict
    qualifiers: tuple[str, ...]
    why: str

    @property
    def difference(self) -> float:
        return self.mean - self.paper


def judge_cell(
    runs: RowRuns,
    paper: PaperNumber,
    level: Fraction = stats.LEVEL,
    not_comparable: str = "",
) -> Cell:
    """The cell of these runs; if they are not compared with the paper, `not_comparable` says why.

    Raises:
        ValueError: a value is not finite.
    """
    values = list(runs.values)
    if not all(map(isfinite, values)):
        raise ValueError("a cell holds finite values only")
    summary = stats.summarise(values)
    # For people the usual 95 %; the verdict reads the interval that belongs to its level.
    low95, high95 = _interval(values) if summary.n > 1 else (nan, nan)
    compared = summary.n > 1 and isfinite(paper.value) and not not_comparable
    p, p_against, low, high = _tested(runs, paper, level) if compared else (nan,) * 4
    verdict, why = _verdict(runs, summary, paper, level, not_comparable, p, p_against)
    # Said only of a number that was found again: elsewhere the interval speaks for itself.
    near: tuple[str, ...] = ()
    if verdict in (Verdict.REPRODUCED, Verdict.SUGGESTIVE):
        near = _not_excluded(values, paper, level)
        why += f"; it does not exclude {', '.join(near)}" if near else ""
    found = compared and summary.std > 0
    return Cell(
        n=summary.n,
        mean=summary.mean,
        std=summary.std,
        low95=low95,
        high95=high95,
        best=summary.best,
        worst=summary.worst,
        diverged=runs.diverged,
        paper=paper.value,
        margin=paper.margin,
        low=low,
        high=high,
        p=p,
        p_against=p_against,
        power=_power(summary, paper, level) if found else nan,
        not_excluded=near,
        verdict=verdict,
        qualifiers=(Qualifier.NOT_JUDGED.value,) if not_comparable and summary.n else (),
        why=why,
    )


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a mean error: within 0 to 100 %, whatever the t distribution allows."""
    low, high = stats.mean_interval(values, Fraction(1, 40))
    return max(0.0, low), min(100.0, high)


def _tested(
    runs: RowRuns, paper: PaperNumber, level: Fraction
) -> tuple[float, float, float, float]:
    """p of lying within the margin, p of lying outside, and the interval of the difference."""
    estimate = stats.of_distance(runs.values, paper.value, paper.runs, paper.std)
    bounds = (-paper.margin, paper.margin)
    p, p_against = map(float, stats.p_within(estimate, bounds))
    if runs.diverged:
        # A network that fails to train now and then is not the paper's, however good the rest is;
        # and it is contradicted by the rest alone, unless chance lies on the other side.
        same_side = float(estimate.value) * (runs.chance - paper.value) > 0
        p, p_against = 1.0, p_against if same_side else 1.0
    low, high = estimate.interval(level)
    return p, p_against, float(low), float(high)


def _verdict(
    runs: RowRuns,
    summary: stats.Summary,
    paper: PaperNumber,
    level: Fraction,
    not_comparable: str,
    p: float,
    p_against: float,
) -> tuple[Verdict, str]:
    # First whether there is anything to judge, then whether there are seeds enough to.
    if summary.n == 0 and not runs.diverged:
        return Verdict.NOT_RUN, f"no finished run{f' ({runs.lost})' if runs.lost else ''}"
    if not_comparable:
        return Verdict.NOT_RUN, f"not comparable: {not_comparable}"
    if not isfinite(paper.value):
        return Verdict.NOT_RUN, "the paper gives no number"
    if runs.lost:
        return Verdict.UNDECIDED, f"{runs.lost}: {NAME_SEEDS}"
    if summary.n == 0 and runs.diverged >= stats.MIN_SEEDS:
        return by_seeds(runs.diverged, against=True), f"all {runs.diverged} runs diverged"
    diverged = f"{runs.diverged} of {summary.n + runs.diverged} runs diverged"
    if summary.n < stats.MIN_SEEDS:
        return Verdict.UNDECIDED, (
            f"{summary.n} finished seed{'s' * (summary.n != 1)}; at least {stats.MIN_SEEDS} are "
            "needed" + (f"; {diverged}" if runs.diverged else "")
        )
    if summary.std == 0 and isnan(paper.std):
        # Zero spread would shrink the paper's single run to a point, too.
        return Verdict.UNDECIDED, (
            f"all {summary.n} seeds gave the same error, which does not say how far a run may lie"
        )
    share = stats.percent(stats.confidence(level))
    estimate = stats.of_distance(runs.values, paper.value, paper.runs, paper.std)
    low, high = estimate.interval(level)
    interval = f"{share} interval of the difference {_signed(low)} to {_signed(high)}"
    within = f"±{paper.margin:g}"
    if stats.at_most(p, level):
        return by_seeds(summary.n), f"{interval}, within {within}"
    if stats.at_most(p_against, level):
        named = f"; {diverged}" if runs.diverged else ""
        return by_seeds(summary.n, against=True), f"{interval}, outside {within}{named}"
    if runs.diverged:
        return Verdict.UNDECIDED, f"{diverged}, which no finished one makes good; {interval}"
    would = _what_would_decide(summary, paper, level)
    return Verdict.UNDECIDED, f"{interval}, not within {within} and not outside; {would}"


def _power(summary: stats.Summary, paper: PaperNumber, level: Fraction) -> float:
    known = None if isnan(paper.std) else paper.std
    return power.power_of_cell(
        summary.std, summary.n, paper.margin, level, float(paper.runs), known
    )


def _what_would_decide(summary: stats.Summary, paper: PaperNumber, level: Fraction) -> str:
    """How often these seeds find a network that equals the paper's, and how many would decide."""
    std = summary.std if isnan(paper.std) else paper.std
    seeds = power.seeds_for_bounds(
        summary.mean - paper.value,
        summary.std,
        summary.n,
        (-paper.margin, paper.margin),
        level,
        std / paper.runs**0.5,
    )
    share = stats.percent(_power(summary, paper, level))
    return (
        f"{summary.n} seeds, so scattered, find an equal network with {share} power; "
        f"{power.would_decide(seeds)}"
    )


def _not_excluded(values: Sequence[float], paper: PaperNumber, level: Fraction) -> tuple[str, ...]:
    """The neighbours whose number our mean could be as well: no difference is in the interval."""
    near = []
    for name, number in paper.neighbours.items():
        low, high = stats.of_distance(values, number).interval(level)
        if low <= 0 <= high:
            near.append(f"{name} ({number:.2f})")
    return tuple(near)


def margin_of(experiment: str, metric: str) -> float:
    """The margin of a row's number, in points."""
    return reported.margins().get((experiment, metric), reported.MARGIN)


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
