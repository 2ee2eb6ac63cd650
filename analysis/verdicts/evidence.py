"""What the measured runs say about one part of a claim: the numbers, the test and its outcome.

An outcome is `holds`, `opposite`, `open` or `missing`. Which parts there are is in `parts`, which
claim has which in `claims`; a claim's verdict follows from the outcomes of its parts alone.
"""

from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from math import isfinite, nan
from typing import Literal

import pandas as pd

from analysis import stats
from analysis.measured.frames import each
from analysis.studies.run_metrics import MEASURED

Outcome = Literal["holds", "opposite", "open", "missing"]

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


@dataclass(frozen=True)
class Evidence:
    """One part of a claim on one study: the numbers, the test, its outcome, and why in a few words.

    `p` is one-sided in the claimed direction; `low` and `high` are the ends of the interval whose
    ends are one-sided tests at the study's level (90 % for 5 %).
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


def values_of(
    run_metrics: pd.DataFrame, quantity: str, experiments: tuple[str, ...]
) -> tuple[str, dict[str, list[float]], tuple[Outcome, str] | None]:
    """The words of a quantity, each row's values, and, if they cannot be judged, how that counts.

    The last is an outcome and why, None where a test can be made.
    """
    columns = QUANTITIES[quantity]
    runs = run_metrics[run_metrics.experiment.isin(experiments) & (run_metrics.state == MEASURED)]
    # The clean training error where every run has one, else the running one for all of them.
    column = next((name for name in columns if runs[name].notna().all()), list(columns)[-1])
    values = {
        name: runs.loc[runs.experiment == name, column].astype("float64").tolist()
        for name in experiments
    }
    return columns[column], values, _problem(values, columns[column])


def _problem(values: dict[str, list[float]], words: str) -> tuple[Outcome, str] | None:
    """Why no test can be made of these values; None if one can."""
    if not all(values.values()):
        return "missing", "not run"
    # A run without the number cannot be left out: the rest would be a choice made after the fact.
    for name, row_values in values.items():
        if not all(map(isfinite, row_values)):
            return "open", f"{name} has a run without {words}"
    if min(map(len, values.values())) < stats.MIN_SEEDS:
        return "open", "too few seeds"
    return None


def judge_ordering(
    first: list[float], second: list[float], level: Fraction
) -> tuple[Outcome, float, float]:
    """Whether the mean of `first` is higher by a permutation test, p, and the reverse's p."""
    # Two one-sided tests, each at the level: one supports the claim, the other contradicts it. They
    # cannot both be significant, so testing twice does not make either err more often.
    claimed = stats.permutation_test(first, second)
    reverse = stats.permutation_test(second, first)
    outcome: Outcome = "open"
    if claimed.significant(level):
        outcome = "holds"
    elif reverse.significant(level):
        outcome = "opposite"
    return outcome, claimed.p, reverse.p


def judge_interval(
    interval: tuple[float, float], above: float, below: float, level: Fraction, of: str = ""
) -> tuple[Outcome, str]:
    """Whether an interval lies within two bounds (an equivalence test), and the words for it.

    An interval wholly within them is two one-sided tests, each at the level (TOST); one wholly
    outside is the opposite of the claim; one across a bound leaves it open.
    """
    low, high = interval
    share = stats.percent(stats.confidence(level))
    why = f"{of}{share} interval {number_text(low)} to {number_text(high)}"
    if above < low and high < below:
        return "holds", why
    return ("opposite" if high <= above or low >= below else "open"), why


def evidence_of(
    comparison: str,
    experiments: tuple[str, ...],
    values: dict[str, list[float]],
    outcome: Outcome,
    why: str,
    p: float = nan,
    interval: tuple[float, float] = (nan, nan),
) -> Evidence:
    """The evidence of a part's values and its test; the first two rows are those compared."""
    first = stats.summarise(values[experiments[0]])
    against = experiments[1] if len(experiments) > 1 else ""
    second = stats.summarise(values.get(against, []))
    return Evidence(
        comparison=comparison,
        experiment=experiments[0],
        n=first.n,
        mean=first.mean,
        best=first.best,
        against=against,
        n_against=second.n,
        mean_against=second.mean,
        p=p,
        low=interval[0],
        high=interval[1],
        outcome=outcome,
        why=why,
    )


def format_p(p: float) -> str:
    """Three decimals, as far as 20,000 splits carry."""
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
            "test": shown.why,
            "outcome": shown.outcome.replace("missing", "not run"),
        }
    )


def number_text(value: float) -> str:
    """A number of any size: `0.00012`, `8.75`, `1,727,962`; a dash for NaN."""
    if value != value:
        return "–"
    # A signal may be 1e-20, an error 8.75, a count of parameters a million.
    if 0 < abs(value) < 0.1:
        return f"{value:.2g}".replace("-", "−")
    return (f"{value:,.0f}" if abs(value) > 100 else f"{value:.2f}").replace("-", "−")
