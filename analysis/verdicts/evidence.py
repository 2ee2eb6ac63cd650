"""What the measured runs say about one part of a claim: the numbers, the test and its outcome.

An outcome is `holds`, `opposite`, `open`, `missing` or `not judged`. Which parts there are is in
`parts`, which claim has which in `claims`; what follows from the parts is in `judgement`.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from math import inf, isfinite, nan
from typing import Literal

import numpy as np
import pandas as pd

from analysis import power, stats
from analysis.measured.frames import each
from analysis.stats import LEVEL, StudentEstimate
from analysis.studies.run_metrics import DIVERGED_RUN, MEASURED, lost_runs

Outcome = Literal["holds", "opposite", "open", "missing", "not judged"]
Values = dict[str, list[float]]

QUANTITIES: dict[str, dict[str, str]] = {
    "test": {"test": "test error"},
    "train": {
        "train_clean": "training error (whole set)",
        "train_running": "training error (running, last 22 %)",
    },
    "first_phase": {"train_first": "training error (running, before the first drop)"},
    "plateau": {"train_plateau": "training error (running, before the last drop)"},
    "response": {"response": "mean deviation of layer responses"},
    "forward": {"forward": "weakest variance before batch norm of any layer"},
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
"""What can be compared: by quantity, the columns of `run_metrics` that give it, in words.

Of several columns the first that all runs have is used: one claim never mixes two kinds of error.
"""

NO_ERRORS = ("response", "forward", "backward", "warmup_end")
"""Quantities that a diverged run does not have; of an error it has that of chance."""


@dataclass(frozen=True)
class Evidence:
    """One part of a claim on one study: the numbers, the test, its outcome, and why in a few words.

    `p` is one-sided in the claimed direction and `p_against` in the other, the larger of two where
    two tests have to hold; `exact` and `exact_against` are the permutation test's alone. `effect`
    is what was tested, with the interval `low` to `high` whose ends are one-sided tests at the
    level (90 % for 5 %); `seen` is how far from the bound it would be found with 80 % power.
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
    p_against: float
    exact: float
    exact_against: float
    effect: float
    low: float
    high: float
    seen: float
    outcome: Outcome
    why: str


@dataclass(frozen=True)
class Tested:
    """What the tests of a part give, before anything is concluded; the fields are `Evidence`'s."""

    p: float = nan
    p_against: float = nan
    exact: float = nan
    exact_against: float = nan
    effect: float = nan
    low: float = nan
    high: float = nan
    seen: float = nan
    why: str = ""

    def outcome(self, level: Fraction) -> Outcome:
        return outcome_of(self.p, self.p_against, level)


def outcome_of(p: float, p_against: float, level: Fraction) -> Outcome:
    """What two one-sided p, for and against, say at a level."""
    # The two cannot both be small, so testing twice does not make either err more often.
    if stats.at_most(p, level):
        return "holds"
    return "opposite" if stats.at_most(p_against, level) else "open"


# The numbers of a part.


def values_of(
    run_metrics: pd.DataFrame, quantity: str, experiments: tuple[str, ...]
) -> tuple[str, Values, tuple[Outcome, str] | None]:
    """The words of a quantity, each row's values, and, if they cannot be judged, how that counts.

    The values are those of finished runs. The last is an outcome and why, None where a test can be
    made.
    """
    columns = QUANTITIES[quantity]
    of_rows = run_metrics[run_metrics.experiment.isin(experiments)]
    runs = of_rows[of_rows.state == MEASURED]
    # The clean training error where every run has one, else the running one for all of them.
    column = next((name for name in columns if runs[name].notna().all()), list(columns)[-1])
    values = {
        name: runs.loc[runs.experiment == name, column].astype("float64").tolist()
        for name in experiments
    }
    diverged = diverged_runs(run_metrics, experiments)
    problem = _problem(values, columns[column], diverged, quantity)
    # What became of runs that crashed or go on is not known: the others would be a selection.
    lost = {name: lost_runs(run_metrics, name) for name in experiments}
    if (problem is None or problem[0] == "open") and any(lost.values()):
        problem = "open", "; ".join(f"{name}: {what}" for name, what in lost.items() if what)
    return columns[column], values, problem


def _problem(
    values: Values, words: str, diverged: dict[str, int], quantity: str
) -> tuple[Outcome, str] | None:
    """Why no test can be made of these values; None if one can."""
    if any(not row and not diverged[name] for name, row in values.items()):
        return "missing", "not run"
    # A run without the number cannot be left out: the rest would be a choice made after the fact.
    for name, row in values.items():
        if not all(map(isfinite, row)):
            return "open", f"{name} has a run without {words}"
        if diverged[name] and quantity in NO_ERRORS:
            return "open", f"{diverged[name]} of {name} diverged and have no such number"
    if few := [name for name, row in values.items() if len(row) < stats.MIN_SEEDS]:
        counted = ", ".join(
            f"{name} has {len(values[name])}"
            + (f" and {diverged[name]} that diverged" if diverged[name] else "")
            for name in few
        )
        return "open", f"too few finished seeds: {counted}, at least {stats.MIN_SEEDS} are needed"
    return None


def diverged_runs(run_metrics: pd.DataFrame, experiments: tuple[str, ...]) -> dict[str, int]:
    """How many runs of each row diverged."""
    diverged = run_metrics[run_metrics.state == DIVERGED_RUN].experiment
    return {name: int((diverged == name).sum()) for name in experiments}


# Tests.


def both_ways(
    test: Callable[[Values], Tested], run_metrics: pd.DataFrame, quantity: str, values: Values
) -> Tested:
    """A test with diverged runs left out, and with them at chance error: both have to hold.

    So a network that fails to train helps no claim, and hides behind none of its finished runs.
    """
    alone = test(values)
    diverged = diverged_runs(run_metrics, tuple(values))
    if not any(diverged.values()) or quantity == "params":
        return alone
    chance = chance_error(run_metrics, quantity)
    both = test({name: [*row, *[chance] * diverged[name]] for name, row in values.items()})
    # Errors of which some are chance are nothing like normal: of an ordering the permutation test
    # alone is asked there, and Welch's where it means something.
    if both.exact == both.exact:
        both = replace(both, p=both.exact, p_against=both.exact_against)
    named = ", ".join(f"{count} of {name}" for name, count in diverged.items() if count)
    return Tested(
        p=max(alone.p, both.p),
        p_against=max(alone.p_against, both.p_against),
        exact=max(alone.exact, both.exact),
        exact_against=max(alone.exact_against, both.exact_against),
        effect=alone.effect,
        low=alone.low,
        high=alone.high,
        seen=alone.seen,
        why=f"{alone.why}; with {named} that diverged at {number_text(chance)} %: {both.why}",
    )


def chance_error(run_metrics: pd.DataFrame, quantity: str) -> float:
    """The error of guessing in percent: 90 in ten classes, 99.5 for the top 5 of a thousand."""
    guesses = 5 if quantity.endswith("_5") and not quantity.startswith("early") else 1
    return 100 * (1 - guesses / int(run_metrics.classes.iloc[0]))


def judge_ordering(first: list[float], second: list[float], level: Fraction) -> Tested:
    """Whether the mean of `first` is higher, by a permutation test and Welch's test besides.

    The permutation test alone is not exact where rows scatter unequally, Welch's not where they
    are not normal: each guards the other. Without any spread in either row Welch's says nothing
    and agrees.
    """
    estimate = stats.of_difference(first, second)
    tests = stats.p_ordering(np.array([first]), np.array([second]))
    exact, exact_against = float(tests.exact[0]), float(tests.exact_against[0])
    welch, welch_against = float(tests.welch[0]), float(tests.welch_against[0])
    p, p_against = float(tests.both[0]), float(tests.both_against[0])
    low, high = estimate.interval(level)
    seen = power.detectable_ordering(first, second, level)
    why = f"p = {format_p(exact)} by permutation, {format_p(welch)} by Welch"
    if stats.at_most(exact_against, level):
        why += f"; the reverse {format_p(exact_against)} and {format_p(welch_against)}"
    # "Not significant" alone says nothing: what these seeds could have shown goes with it.
    if outcome_of(p, p_against, level) == "open":
        seeds = power.would_decide(power.seeds_for_ordering(first, second, level))
        could = (
            f"with 80 % power could have seen a difference of {number_text(seen)}"
            if isfinite(seen)
            else "so few seeds cannot show it"
        )
        why += f"; {could}; {seeds}"
    return Tested(p, p_against, exact, exact_against, float(estimate.value), low, high, seen, why)


def judge_bounds(
    estimate: StudentEstimate, bounds: tuple[float, float], level: Fraction, of: str = ""
) -> Tested:
    """Whether the truth lies within two bounds (an equivalence test), with the words for it.

    An interval wholly within them is two one-sided tests, each at the level (TOST); one wholly
    outside is the opposite of the claim; one across a bound leaves it open.
    """
    p, p_against = stats.p_within(estimate, bounds)
    low, high = estimate.interval(level)
    share = stats.percent(stats.confidence(level))
    seen = power.detectable(estimate, level)
    return Tested(
        p=float(p),
        p_against=float(p_against),
        effect=float(estimate.value),
        low=low,
        high=high,
        seen=seen,
        why=f"{of}{share} interval {number_text(low)} to {number_text(high)}",
    )


def evidence_of(
    comparison: str,
    experiments: tuple[str, ...],
    values: Values,
    outcome: Outcome,
    why: str,
    finding: Tested | None = None,
) -> Evidence:
    """The evidence of a part's values and its test; the first two rows are those compared."""
    first = stats.summarise(values[experiments[0]])
    against = experiments[1] if len(experiments) > 1 else ""
    second = stats.summarise(values.get(against, []))
    tested = finding or Tested()
    return Evidence(
        comparison=comparison,
        experiment=experiments[0],
        n=first.n,
        mean=first.mean,
        best=first.best,
        against=against,
        n_against=second.n,
        mean_against=second.mean,
        p=tested.p,
        p_against=tested.p_against,
        exact=tested.exact,
        exact_against=tested.exact_against,
        effect=tested.effect,
        low=tested.low,
        high=tested.high,
        seen=tested.seen,
        outcome=outcome,
        why=why,
    )


def found(
    comparison: str,
    experiments: tuple[str, ...],
    values: Values,
    finding: Tested,
    level: Fraction = LEVEL,
) -> Evidence:
    """The evidence of a finding, with the outcome that its p have at the level."""
    outcome = finding.outcome(level)
    return evidence_of(comparison, experiments, values, outcome, finding.why, finding)


# Evidence as tables and text.


def format_p(p: float) -> str:
    """Three decimals, as far as 20,000 splits carry."""
    if p != p:
        return "–"
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def frame(evidence: list[Evidence]) -> pd.DataFrame:
    """The evidence as a table, one row per part."""
    return pd.DataFrame(
        [asdict(part) for part in evidence], columns=[field.name for field in fields(Evidence)]
    )


def printed(numbers: pd.DataFrame) -> pd.DataFrame:
    """The evidence as text, one row per part that has any number.

    Means are followed by their number of runs; a part that follows from the layer lists has none.
    """
    # A part without any run has nothing to print; a count of layers has no runs, and a result.
    shown = numbers[(numbers.n > 0) | (numbers.n_against > 0) | (numbers.experiment == "")]
    return pd.DataFrame(
        {
            "part": shown.comparison,
            "mean (n)": [
                f"{number_text(row.mean)} ({row.n})" if row.experiment else ""
                for row in each(shown)
            ],
            "against (n)": [
                f"{number_text(row.mean_against)} ({row.n_against})" if row.against else ""
                for row in each(shown)
            ],
            "effect (interval)": [
                effect_text(row.effect, row.low, row.high) for row in each(shown)
            ],
            "outcome": shown.outcome.replace("missing", "not run"),
            "test": shown.why,
        }
    )


def effect_text(effect: float, low: float, high: float) -> str:
    """`0.31 (0.12 to 0.50)`; a dash where nothing was tested."""
    if effect != effect:
        return "–"
    return f"{number_text(effect)} ({number_text(low)} to {number_text(high)})"


def number_text(value: float) -> str:
    """A number of any size: `0.00012`, `8.75`, `1,727,962`; a dash for NaN."""
    if value != value:
        return "–"
    if abs(value) == inf:
        return "∞" if value > 0 else "−∞"
    # A signal may be 1e-20, an error 8.75, a count of parameters a million.
    if 0 < abs(value) < 0.1:
        return f"{value:.2g}".replace("-", "−")
    return (f"{value:,.0f}" if abs(value) > 100 else f"{value:.2f}").replace("-", "−")
