"""The few numbers of each run that tables and claims rest on, one row per run (errors in percent).

Table 6 reports the final iterate, so a final error is the one measured at the iteration where the
run ends: never the best, never the last one available. It averages nothing over runs and judges
nothing.
"""

from functools import lru_cache
from math import nan

import pandas as pd

from analysis.measured.frames import DIVERGED, FAILED, FINISHED, each
from analysis.paper.reported import PAPER_ITERATIONS
from analysis.studies.studies import Study
from pipeline.data.catalogue.table import DATASETS
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.metrics import (
    CONVOLUTION_VARIANCE,
    GRADIENT_NORM,
    IMAGES_PER_SECOND,
    PROTOCOLS,
    RESPONSE_STD,
    TEST_ERR,
    TRAIN_CLEAN_ERR,
    TRAIN_ERR,
    protocol_err,
)
from pipeline.runs.history import DEVICE_SECONDS, JOULES

LATE_SHARE = 50_000 / PAPER_ITERATIONS
"""The share of the iterations from which on running training errors are averaged to a final one.

They scatter from point to point, so the last one alone would be luck.
"""

MEASURED, NO_RESULT, DIVERGED_RUN, FAILED_RUN, UNFINISHED_RUN = STATES = (
    "measured",
    "no final error",
    "diverged",
    "failed",
    "unfinished",
)

History = dict[tuple[str, str], pd.DataFrame]

EARLY_SHARES = {"early_5": 5 / 60, "early_10": 10 / 60}
"""Shares of the schedule at which claim I9 compares: 50,000 and 100,000 of 600,000 iterations."""

FINAL_TESTS = {
    f"{protocol}_{k}": protocol_err(protocol, k) for protocol in PROTOCOLS for k in (1, 5)
}
"""What finished ImageNet networks are tested by: `ten_crop_1` is the top-1 error of ten crops."""

NOTED = ["warmup_end", "converging_from", "converging_rule"]
"""What a run notes of itself while it trains, as whole numbers."""

COSTS = [DEVICE_SECONDS, JOULES]
"""What a run records of its cost, as numbers."""

COLUMNS = [
    "test",
    "train_clean",
    "train_running",
    "train_first",
    "train_plateau",
    "images_per_second",
    *EARLY_SHARES,
    *FINAL_TESTS,
    "response",
    "forward",
    "backward",
]


@lru_cache(maxsize=16)
def measure(study: Study) -> pd.DataFrame:
    """One row per run of the study, NaN where a number was not measured.

    Columns beside those of the run: `state` (`measured`: finished with a final test error; `no
    final error`: finished without, never averaged; `diverged`: a result, and at no finite loss;
    `failed`; `unfinished`), `classes` of the dataset, `test`, `train_clean` and `train_running`
    (final errors), `train_first` and `train_plateau` (mean running error before the first learning
    rate drop, and between the last two), `images_per_second` (the median of its training rates),
    `device_seconds` and `joules` (its cost), `early_5` and `early_10` (test error early in
    training), `ten_crop_1`, ... (`FINAL_TESTS`), `response` (mean over layers of the final standard
    deviation of their responses), `forward` and `backward` (the weakest signal in any layer, at the
    start, at drops and at the end: variance before batch norm, and gradient norm relative to the
    last layer's).

    Computed once per study: treat it as read-only.
    """
    # Grouped once, not searched for every run and metric.
    grouped = study.metrics.groupby(["run_id", "metric"])
    history: History = {(str(run), str(name)): points for (run, name), points in grouped}
    identity = ["run_id", "experiment", "seed", "status", "reason", "iterations", "params"]
    kept = study.runs[[*identity, *NOTED, *COSTS]]

    # What was measured in layers becomes one number a run: a mean (C12, C13), or the weakest (I4).
    deviations = (
        study.layers[study.layers.quantity == RESPONSE_STD]
        .groupby(["run_id", "iteration"])
        .value.mean()
    )
    forward, backward = (
        _weakest(study, CONVOLUTION_VARIANCE),
        _weakest(study, GRADIENT_NORM, relative=True),
    )
    # One dictionary a run, all with the same keys, in the order of the study's runs.
    numbers = pd.DataFrame(
        [
            _numbers_of(run.run_id, run.iterations, _drops(study, run.experiment), history)
            | {"response": float(deviations.get((run.run_id, run.iterations), nan))}
            | {
                "forward": float(forward.get(run.run_id, nan)),
                "backward": float(backward.get(run.run_id, nan)),
            }
            for run in each(kept)
        ],
        columns=COLUMNS,
        index=kept.index,
        dtype="float64",
    )
    measured = pd.concat([kept, numbers], axis=1)
    # A finished run without a final test error is not measured: it must be seen, never averaged.
    measured["state"] = [
        _state(status, test) for status, test in zip(measured.status, measured.test, strict=True)
    ]
    measured["classes"] = _classes(study)
    # As floats, like every other number: what is missing is NaN.
    for name in NOTED:
        measured[name] = measured[name].astype("float64")
    return measured


def lost_runs(run_metrics: pd.DataFrame, experiment: str) -> str:
    """The runs of a row that gave no result, in words: `2 failed, 1 unfinished`, or nothing.

    A diverged run is a result and not among them.
    """
    states = run_metrics.loc[run_metrics.experiment == experiment, "state"].value_counts()
    lost = (FAILED_RUN, UNFINISHED_RUN, NO_RESULT)
    words = {NO_RESULT: "finished without a final error"}
    return ", ".join(
        f"{states[state]} {words.get(state, state)}" for state in lost if state in states
    )


def _classes(study: Study) -> int:
    """How many classes the dataset has: that of its name, or of the paper's kind of data."""
    known = DATASETS.get(study.dataset) or DATASETS[study.papers_dataset.lower().replace("-", "")]
    return known.spec.classes


def _weakest(study: Study, quantity: str, relative: bool = False) -> pd.Series:
    """By run, the smallest value of a quantity in any layer.

    If `relative`, as a share of the last layer's.
    """
    layers = study.layers[study.layers.quantity == quantity].sort_values("layer")
    last = layers.groupby(["run_id", "iteration"]).value.transform("last")
    # An overflow carries no signal, so it counts as the weakest one there is.
    values = layers.value / last if relative else layers.value
    weakest = values.where(values < float("inf"), 0.0).groupby(layers.run_id).min()
    # A run that an earlier version began has its first moments without a quantity added since: what
    # is left of it is not "at the start, at drops and at the end".
    moments, expected = _moments(study, quantity), _moments(study, GRADIENT_NORM)
    return weakest[moments == expected.reindex(moments.index)]


def _moments(study: Study, quantity: str) -> pd.Series:
    """By run, how often a quantity was taken."""
    layers = study.layers[study.layers.quantity == quantity]
    return layers.groupby("run_id").iteration.nunique()


def _state(status: str, test: float) -> str:
    if status == FINISHED:
        return MEASURED if pd.notna(test) else NO_RESULT
    if status == DIVERGED:
        return DIVERGED_RUN
    return FAILED_RUN if status in FAILED else UNFINISHED_RUN


def _numbers_of(run: str, end: int, drops: list[int], history: History) -> dict[str, float]:
    running, test = _points(history, run, TRAIN_ERR), _points(history, run, TEST_ERR)
    # With fewer than two drops the missing ends are the start of training.
    start, last = [0, 0, *drops][-2:]
    return {
        "test": _value_at(test, end),
        "train_clean": _value_at(_points(history, run, TRAIN_CLEAN_ERR), end),
        "train_running": float(running[running.index >= LATE_SHARE * end].mean()),
        "train_first": float(running[running.index <= min(drops, default=0)].mean()),
        "train_plateau": float(running[(running.index > start) & (running.index <= last)].mean()),
        "images_per_second": float(_points(history, run, IMAGES_PER_SECOND).median()),
        **{name: _first_value_from(test, share * end) for name, share in EARLY_SHARES.items()},
        **{
            name: _value_at(_points(history, run, metric), end)
            for name, metric in FINAL_TESTS.items()
        },
    }


def _points(history: History, run: str, metric: str) -> pd.Series:
    """The finite values of one metric of a run, by iteration."""
    points = history.get((run, metric))
    if points is None:
        return pd.Series(dtype="float64", index=pd.Index([], dtype="int64"))
    finite = points[points.value.abs() < float("inf")]
    return finite.set_index("iteration").value.sort_index()


def _value_at(points: pd.Series, iteration: int) -> float:
    return float(points.get(iteration, nan))


def _first_value_from(points: pd.Series, iteration: float) -> float:
    """The first point at or after an iteration; NaN if there is none."""
    # Evaluations need not fall on the share exactly: an own schedule rounds them.
    later = points[points.index >= iteration]
    return float(later.iloc[0]) if len(later) else nan


def _drops(study: Study, experiment_name: str) -> list[int]:
    """The iterations at which the learning rate drops, in order."""
    experiment = EXPERIMENTS.get(experiment_name)
    return [*study.overrides.get("lr_drops", experiment.lr_drops if experiment else ())]
