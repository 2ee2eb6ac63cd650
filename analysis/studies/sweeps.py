"""Sweeps and the recipe ledger: one row under several values, and what each change is worth.

They stand apart from the reproduction: nothing here is compared with the paper or judged as a
claim. Each change's test errors are set beside those of the unchanged row, with an interval of the
difference.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite, nan

import pandas as pd

from analysis.measured.frames import Frames, each
from analysis.paper.ledger import LEDGER
from analysis.stats import difference_interval, summarise
from analysis.studies.run_metrics import MEASURED, measure
from analysis.studies.studies import Study, study_of
from pipeline.stored_json import parse

AS_IT_IS = "as it is"
"""How the cell without any change is printed."""


@dataclass(frozen=True, eq=False)
class MeasuredSweep:
    """One sweep: its cells in the order asked for, and a study of all its runs.

    The study's recipe is the unchanged one.
    """

    id: str
    name: str
    cells: pd.DataFrame
    study: Study

    @property
    def title(self) -> str:
        what = (
            "The recipe ledger"
            if self.name == LEDGER
            else f"Sweep of {self.name.replace('_', ' ')}"
        )
        return f"{what}: {self.study.title}"

    @property
    def slug(self) -> str:
        return f"sweep-{re.sub('[^a-z0-9]+', '-', self.name.lower())}-{self.id}"


def split_sweeps(frames: Frames) -> list[MeasuredSweep]:
    """The sweeps of checked frames that have any run, by name and dataset."""
    sweeps = []
    for (sweep_id, dataset_id), cells in frames.sweeps.groupby(["sweep", "dataset_id"]):
        # A fingerprint says which recipe was trained, whoever asked for it: runs that a grid made
        # count too.
        same_dataset = frames.runs.dataset_id == dataset_id
        runs = frames.runs[same_dataset & frames.runs.fingerprint.isin(cells.fingerprint)]
        # A sweep that was asked for and has not begun has nothing to show.
        if len(runs):
            official = bool(frames.runs[same_dataset].comparable.any())
            study = study_of(min(runs.dataset), parse(cells.base.iloc[0]), official, runs, frames)
            sweeps.append(
                MeasuredSweep(
                    str(sweep_id), str(cells.name.iloc[0]), cells.sort_values("position"), study
                )
            )
    return sorted(
        sweeps, key=lambda sweep: (sweep.name != LEDGER, sweep.name, sweep.study.dataset, sweep.id)
    )


@lru_cache(maxsize=64)
def sweep_table(sweep: MeasuredSweep) -> pd.DataFrame:
    """One row per cell: its final test errors (percent), and the difference to the unchanged row.

    Columns for the errors: n, mean, std, best.

    `difference` is in points, with its 90 % Welch interval `low` to `high`; NaN where the unchanged
    row was not run. Treat it as read-only.
    """
    rows = []
    for cell in each(sweep.cells):
        values = errors(sweep, cell.experiment, cell.fingerprint)
        numbers = summarise(values)
        # The cell to compare with: the same experiment, unchanged. It is not compared with itself.
        base = sweep.cells[
            sweep.cells.unchanged & (sweep.cells.experiment == cell.experiment)
        ].fingerprint
        reference = (
            errors(sweep, cell.experiment, base.iloc[0]) if len(base) and not cell.unchanged else []
        )
        compared = bool(values and reference)
        # Welch's interval: two cells need not scatter alike.
        low, high = difference_interval(values, reference) if compared else (nan, nan)
        rows.append(
            {
                "experiment": cell.experiment,
                "change": cell.change or AS_IT_IS,
                "unchanged": cell.unchanged,
                "n": numbers.n,
                "mean": numbers.mean,
                "std": numbers.std,
                "best": numbers.best,
                "difference": numbers.mean - summarise(reference).mean if compared else nan,
                "low": low if isfinite(low) else nan,
                "high": high if isfinite(high) else nan,
                "unmeasured": _unmeasured(sweep, cell.fingerprint),
            }
        )
    return pd.DataFrame(rows)


def errors(sweep: MeasuredSweep, experiment: str, fingerprint: str) -> list[float]:
    """Final test errors of a cell's finished runs, by seed."""
    run_metrics = measure(sweep.study)
    runs = (sweep.study.runs.fingerprint == fingerprint) & (run_metrics.state == MEASURED)
    return [
        float(error)
        for error in run_metrics[runs & (run_metrics.experiment == experiment)]
        .sort_values("seed")
        .test
    ]


def _unmeasured(sweep: MeasuredSweep, fingerprint: str) -> int:
    run_metrics = measure(sweep.study)
    return int(
        ((sweep.study.runs.fingerprint == fingerprint) & (run_metrics.state != MEASURED)).sum()
    )
