"""The parts a claim is made of, and what the measured runs say about each: holds, opposite, open or
missing.

Five kinds: an ordering of two rows (permutation test), a mean within bounds (t-interval), two means
that are similar (Welch interval), a bound that every run keeps, and ResNet-110's slow start
(footnote 5). Which claim has which parts is in `claims`.
"""

from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from math import hypot, inf, isfinite, nan
from typing import Literal, Protocol

import pandas as pd

from analysis import stats
from analysis.measured.frames import each
from analysis.stats import LEVEL
from analysis.studies.run_metrics import MEASURED
from analysis.verdicts.cells import would_decide
from pipeline.recipe.experiments import EXPERIMENTS

Outcome = Literal["holds", "opposite", "open", "missing"]

QUANTITIES: dict[str, dict[str, str]] = {
    "test": {"test": "test error"},
    "train": {
        "train_clean": "training error (whole set)",
        "train_running": "training error (running, last 22 %)",
    },
    "plateau": {"train_plateau": "training error (running, before the last drop)"},
    "response": {"response": "mean deviation of layer responses"},
    "forward": {"forward": "weakest forward variance of any layer"},
    "backward": {"backward": "weakest gradient norm of any layer, as a share of the last one's"},
    "params": {"params": "parameters"},
    "warmup_end": {"warmup_end": "iterations of warm-up"},
    "early_5": {"early_5": "validation error at 5/60 of training"},
    "early_10": {"early_10": "validation error at 10/60 of training"},
    "ten_crop_1": {"ten_crop_1": "10-crop top-1 error"},
    "ten_crop_5": {"ten_crop_5": "10-crop top-5 error"},
    "multi_scale_1": {"multi_scale_1": "multi-scale top-1 error"},
    "multi_scale_5": {"multi_scale_5": "multi-scale top-5 error"},
}
"""What can be compared: the columns of `measures` that give it, in words; the first that all runs
have is used.
"""

TRAINING_IMAGES = 50_000
"""Of CIFAR-10, for the length of an epoch in footnote 5, which is judged on CIFAR-10 alone."""


@dataclass(frozen=True)
class Evidence:
    """One part of a claim on one study: the numbers, the test and its outcome, and in a few words
    why.

    `p` is one-sided in the claimed direction; `low` and `high` are the ends of a 90 % interval.
    """

    comparison: str
    experiment: str
    n: int
    mean: float
    best: float
    against: str
    n_against: int
    mean_against: float
    p: float
    low: float
    high: float
    outcome: Outcome
    why: str


class Part(Protocol):
    """A part of a claim: the rows it needs, and how it is judged on the frame of
    `measures.measure`.
    """

    @property
    def experiments(self) -> tuple[str, ...]: ...

    def judge(self, measures: pd.DataFrame, level: Fraction = LEVEL) -> Evidence: ...


@dataclass(frozen=True)
class Claim:
    """A claim as parts; `absolute` claims are about numbers on the paper's own data, and mean
    nothing on other data.
    """

    parts: tuple[Part, ...]
    absolute: bool = False

    @property
    def experiments(self) -> tuple[str, ...]:
        """The rows it needs, each once."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.experiments))


@dataclass(frozen=True)
class Higher:
    """The mean of `quantity` is higher in row `first` than in row `second`."""

    quantity: str
    first: str
    second: str

    @property
    def experiments(self) -> tuple[str, ...]:
        return self.first, self.second

    def judge(self, measures: pd.DataFrame, level: Fraction = LEVEL) -> Evidence:
        words, values, problem = values_of(measures, self.quantity, self.experiments)
        first, second = values[self.first], values[self.second]
        text = f"{words}: {self.first} > {self.second}"
        if problem:
            return evidence_of(text, self.experiments, values, *problem)
        outcome, p, reverse = ordered(first, second, level)
        shown = f"p = {format_p(p)}"
        if outcome == "opposite":
            shown += f", the reverse {format_p(reverse)}"
        if outcome == "open":
            seen = f"could have seen a difference of {_number(stats.seen_difference(first, second, level))}"
            shown += f"; {seen}, {would_decide(stats.seeds_to_order(first, second, level))}"
        return evidence_of(text, self.experiments, values, outcome, shown, p=p)


@dataclass(frozen=True)
class Within:
    """The mean of `quantity` in one row lies between `above` and `below`, shown by its 90 %
    interval.
    """

    quantity: str
    experiment: str
    above: float = -inf
    below: float = inf

    @property
    def experiments(self) -> tuple[str, ...]:
        return (self.experiment,)

    def judge(self, measures: pd.DataFrame, level: Fraction = LEVEL) -> Evidence:
        words, values, problem = values_of(measures, self.quantity, self.experiments)
        bounds = (
            (sign, bound)
            for sign, bound in ((">", self.above), ("<", self.below))
            if isfinite(bound)
        )
        text = f"{words}: {self.experiment} {' and '.join(f'{sign} {_number(bound)}' for sign, bound in bounds)}"
        if problem:
            return evidence_of(text, self.experiments, values, *problem)
        found = stats.summarise(values[self.experiment])
        interval = stats.mean_interval(values[self.experiment], stats.confidence(level))
        outcome, why = _placed(interval, self.above, self.below, level)
        if outcome == "open":
            why += f"; {would_decide(stats.seeds_to_place(found.mean, found.std, found.n, self.above, self.below, level))}"
        return evidence_of(text, self.experiments, values, outcome, why, interval=interval)


@dataclass(frozen=True)
class Similar:
    """The means of `quantity` in two rows differ by less than `margin`, by the 90 % interval of the
    difference.
    """

    quantity: str
    first: str
    second: str
    margin: float

    @property
    def experiments(self) -> tuple[str, ...]:
        return self.first, self.second

    def judge(self, measures: pd.DataFrame, level: Fraction = LEVEL) -> Evidence:
        words, values, problem = values_of(measures, self.quantity, self.experiments)
        text = f"{words}: {self.first} within {self.margin:g} points of {self.second}"
        if problem:
            return evidence_of(text, self.experiments, values, *problem)
        first, second = stats.summarise(values[self.first]), stats.summarise(values[self.second])
        interval = stats.difference_interval(
            values[self.first], values[self.second], stats.confidence(level)
        )
        outcome, why = _placed(interval, -self.margin, self.margin, level, "difference, ")
        if outcome == "open":
            spread, fewest = hypot(first.std, second.std), min(first.n, second.n)
            difference = first.mean - second.mean
            seeds = stats.seeds_to_place(
                difference, spread, fewest, -self.margin, self.margin, level
            )
            why += f"; {would_decide(seeds)}"
        return evidence_of(text, self.experiments, values, outcome, why, interval=interval)


@dataclass(frozen=True)
class EveryRun:
    """In every run of the row, `quantity` is above a bound."""

    quantity: str
    experiment: str
    above: float

    @property
    def experiments(self) -> tuple[str, ...]:
        return (self.experiment,)

    def judge(self, measures: pd.DataFrame, level: Fraction = LEVEL) -> Evidence:
        words, values, problem = values_of(measures, self.quantity, self.experiments)
        text = f"{words}: {self.experiment} > {self.above:g} in every run"
        if problem:
            return evidence_of(text, self.experiments, values, *problem)
        found = values[self.experiment]
        above = sum(value > self.above for value in found)
        outcome: Outcome = "holds" if above == len(found) else "opposite" if not above else "open"
        return evidence_of(
            text,
            self.experiments,
            values,
            outcome,
            f"{above} of {len(found)}, lowest {min(found):.2g}",
        )


@dataclass(frozen=True)
class SlowStart:
    """Every run of the row goes on for more than one epoch before its running error is clearly
    below 90 %.
    """

    experiment: str

    @property
    def experiments(self) -> tuple[str, ...]:
        return (self.experiment,)

    def judge(self, measures: pd.DataFrame, level: Fraction = LEVEL) -> Evidence:
        epoch = TRAINING_IMAGES / EXPERIMENTS[self.experiment].global_batch_size
        runs = measures[(measures.experiment == self.experiment) & (measures.state == MEASURED)]
        text = f"iterations at 90 % error: {self.experiment} > {epoch:.0f} (one epoch)"
        values = {self.experiment: runs.converging_from.tolist()}
        _, _, problem = values_of(measures, "test", self.experiments)
        if problem:
            return evidence_of(text, self.experiments, values, *problem)
        fast = (
            runs.converging_from <= epoch
        ).sum()  # a run that never converged has no number, and is slow
        slow = len(runs) - fast
        outcome: Outcome = (
            "holds" if slow == len(runs) else "opposite" if fast == len(runs) else "open"
        )
        why = f"{slow} of {len(runs)} runs longer, {fast} shorter"
        return evidence_of(text, self.experiments, values, outcome, why)


def ordered(
    first: list[float], second: list[float], level: Fraction
) -> tuple[Outcome, float, float]:
    """Whether the mean of `first` is higher by a permutation test, with its p and that of the
    reverse.
    """
    claimed, reverse = stats.higher(first, second), stats.higher(second, first)
    outcome: Outcome = (
        "holds"
        if claimed.significant(level)
        else "opposite"
        if reverse.significant(level)
        else "open"
    )
    return outcome, claimed.p, reverse.p


def format_p(p: float) -> str:
    """Three decimals, as far as 20,000 splits carry."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _placed(
    interval: tuple[float, float], above: float, below: float, level: Fraction, of: str = ""
) -> tuple[Outcome, str]:
    low, high = interval
    why = f"{of}{stats.percent(stats.confidence(level))} interval {_number(low)} to {_number(high)}"
    if above < low and high < below:
        return "holds", why
    return ("opposite" if high <= above or low >= below else "open"), why


def values_of(
    measures: pd.DataFrame, quantity: str, experiments: tuple[str, ...]
) -> tuple[str, dict[str, list[float]], tuple[Outcome, str] | None]:
    """The words, each row's values, and, where they cannot be judged, the outcome and why."""
    columns = QUANTITIES[quantity]
    rows = measures[measures.experiment.isin(experiments) & (measures.state == MEASURED)]
    column = next((name for name in columns if rows[name].notna().all()), list(columns)[-1])
    values = {
        name: rows.loc[rows.experiment == name, column].astype("float64").tolist()
        for name in experiments
    }
    return columns[column], values, _problem(values, columns[column])


def _problem(values: dict[str, list[float]], words: str) -> tuple[Outcome, str] | None:
    if not all(values.values()):
        return "missing", "not run"
    for name, found in values.items():
        if not all(map(isfinite, found)):
            return "open", f"{name} has a run without {words}"
    if min(map(len, values.values())) < stats.MIN_SEEDS:
        return "open", "too few seeds"
    return None


def evidence_of(
    comparison: str,
    experiments: tuple[str, ...],
    values: dict[str, list[float]],
    outcome: Outcome,
    why: str,
    p: float = nan,
    interval: tuple[float, float] = (nan, nan),
) -> Evidence:
    """The evidence that a part's values and its test make; the first two rows are those compared."""
    first = stats.summarise(values[experiments[0]])
    against = experiments[1] if len(experiments) > 1 else ""
    second = stats.summarise(values.get(against, []))
    return Evidence(
        comparison, experiments[0], first.n, first.mean, first.best, against, second.n, second.mean, p,
        interval[0], interval[1], outcome, why,
    )  # fmt: skip


def frame(evidence: list[Evidence]) -> pd.DataFrame:
    """The evidence as a table, one row per part."""
    return pd.DataFrame(
        [asdict(one) for one in evidence], columns=[field.name for field in fields(Evidence)]
    )


def printed(numbers: pd.DataFrame) -> pd.DataFrame:
    """The evidence as text, one row per part that has any number: means with their number of runs,
    and the test.
    """
    shown = numbers[(numbers.n > 0) | (numbers.n_against > 0) | (numbers.experiment == "")]
    return pd.DataFrame(
        {
            "part": shown.comparison,
            "mean (n)": [
                f"{_number(row.mean)} ({row.n})" if row.experiment else "" for row in each(shown)
            ],
            "against (n)": [
                f"{_number(row.mean_against)} ({row.n_against})" if row.against else ""
                for row in each(shown)
            ],
            "test": shown.why,
            "outcome": shown.outcome.replace("missing", "not run"),
        }
    )


def _number(value: float) -> str:
    if value != value:
        return "–"
    if 0 < abs(value) < 0.1:
        return f"{value:.2g}".replace("-", "−")
    return (f"{value:,.0f}" if abs(value) > 100 else f"{value:.2f}").replace("-", "−")
