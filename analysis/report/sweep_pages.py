"""Sweeps and the recipe ledger: the same row under several values of its fields, and what each
change is worth.

They are reported apart from the reproduction: nothing here is compared with the paper or judged as
a claim. The table gives each change's test error beside that of the unchanged row, with an interval
of the difference.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from json import loads
from math import isfinite, nan
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.measured.frames import Frames, each
from analysis.paper.ledger import LEDGER, LEDGER_SWITCHES
from analysis.report.overview import run_list
from analysis.stats import difference_interval, summarise
from analysis.studies.run_metrics import MEASURED, measure
from analysis.studies.studies import Study, study_of
from analysis.tables.table_6 import mean_std_n

AS_IT_IS = "as it is"


@dataclass(frozen=True, eq=False)
class MeasuredSweep:
    """One sweep: its cells in the order asked for, and a study of all its runs (whose recipe is the
    unchanged one).
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
            else f"MeasuredSweep of {self.name.replace('_', ' ')}"
        )
        return f"{what}: {self.study.title}"

    @property
    def slug(self) -> str:
        return f"sweep-{re.sub('[^a-z0-9]+', '-', self.name.lower())}-{self.id}"


def split_sweeps(frames: Frames) -> list[MeasuredSweep]:
    """The sweeps of checked frames that have any run, by name and dataset."""
    found = []
    for (key, dataset_id), cells in frames.sweeps.groupby(["sweep", "dataset_id"]):
        same = frames.runs.dataset_id == dataset_id
        runs = frames.runs[same & frames.runs.fingerprint.isin(cells.fingerprint)]
        if len(runs):
            official = bool(frames.runs[same].comparable.any())
            study = study_of(min(runs.dataset), loads(cells.base.iloc[0]), official, runs, frames)
            found.append(
                MeasuredSweep(
                    str(key), str(cells.name.iloc[0]), cells.sort_values("position"), study
                )
            )
    return sorted(
        found, key=lambda sweep: (sweep.name != LEDGER, sweep.name, sweep.study.dataset, sweep.id)
    )


@lru_cache(maxsize=64)
def sweep_table(sweep: MeasuredSweep) -> pd.DataFrame:
    """One row per cell: n, mean, std, best of the final test errors (percent), and the difference
    to the unchanged row.

    `difference` is in points, with its 90 % Welch interval `low` to `high`; NaN where the unchanged
    row was not run. Treat it as read-only.
    """
    rows = []
    for cell in each(sweep.cells):
        values = errors(sweep, cell.experiment, cell.fingerprint)
        numbers = summarise(values)
        base = sweep.cells[
            sweep.cells.unchanged & (sweep.cells.experiment == cell.experiment)
        ].fingerprint
        reference = (
            errors(sweep, cell.experiment, base.iloc[0]) if len(base) and not cell.unchanged else []
        )
        compared = bool(values and reference)
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
    measures = measure(sweep.study)
    runs = (sweep.study.runs.fingerprint == fingerprint) & (measures.state == MEASURED)
    return [
        float(error)
        for error in measures[runs & (measures.experiment == experiment)].sort_values("seed").test
    ]


def _unmeasured(sweep: MeasuredSweep, fingerprint: str) -> int:
    measures = measure(sweep.study)
    return int(((sweep.study.runs.fingerprint == fingerprint) & (measures.state != MEASURED)).sum())


def printed(sweep: MeasuredSweep) -> pd.DataFrame:
    """The table as text; the ledger's with the two readings of each switch."""
    table = sweep_table(sweep)
    shown = pd.DataFrame(
        {
            "experiment": table.experiment,
            "change": [
                f"{row.change} (no change)" if _by_value(row) else row.change for row in each(table)
            ],
            "error (%)": [_mean_std_n(row) for row in each(table)],
            "best": [f"{row.best:.2f}" if row.n else "–" for row in each(table)],
            "worth": [_worth(row) for row in each(table)],
        }
    )
    if sweep.name == LEDGER:
        readings = {
            (switch.experiment, switch.setting.partition("=")[0]): switch
            for switch in LEDGER_SWITCHES
        }
        found = [
            readings.get((row.experiment, row.change.partition("=")[0])) for row in each(table)
        ]
        shown["here"] = [switch.here if switch else "" for switch in found]
        shown["elsewhere"] = [switch.elsewhere if switch else "" for switch in found]
    return shown


def runs_shown(sweep: MeasuredSweep) -> pd.DataFrame:
    """The list of a sweep's runs, with the change of each."""
    changes = dict(zip(sweep.cells.fingerprint, sweep.cells.change, strict=True))
    listed = run_list(sweep.study)
    listed.insert(
        1,
        "change",
        [changes[fingerprint] or AS_IT_IS for fingerprint in sweep.study.runs.fingerprint],
    )
    return listed


def _by_value(row: Any) -> bool:
    return bool(row.unchanged) and row.change != AS_IT_IS


def _mean_std_n(row: Any) -> str:
    missing = f", {row.unmeasured} without a result" if row.unmeasured else ""
    return mean_std_n(row.mean, row.std, row.n) + missing


def _worth(row: Any) -> str:
    """The difference to the unchanged row in points, with its interval where there are seeds enough
    for one.
    """
    if pd.isna(row.difference):
        return "–"
    interval = f" ({row.low:+.2f} to {row.high:+.2f})" if pd.notna(row.low) else ""
    return f"{row.difference:+.2f}{interval}".replace("-", "−")


def figure_sweep(sweep: MeasuredSweep) -> Figure:
    """Each change's final test errors: a dot per seed and a bar at their mean, a panel per
    experiment.
    """
    names = list(dict.fromkeys(sweep.cells.experiment))
    counts = [int((sweep.cells.experiment == name).sum()) for name in names]
    with mpl.rc_context(style.RC):
        figure = Figure(
            figsize=(7.2, 0.9 * len(names) + 0.27 * sum(counts)),
            layout="constrained",
            dpi=style.DPI,
        )
        axes = figure.subplots(
            len(names), 1, squeeze=False, gridspec_kw={"height_ratios": [n + 1.5 for n in counts]}
        )
        for ax, name in zip(axes[:, 0], names, strict=True):
            _draw(ax, sweep, name)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    return figure


def _draw(ax: Axes, sweep: MeasuredSweep, experiment: str) -> None:
    cells = sweep.cells[sweep.cells.experiment == experiment]
    for place, cell in enumerate(each(cells)):
        values = errors(sweep, experiment, cell.fingerprint)
        colour = style.INK if cell.unchanged else style.COLOURS[32]
        ax.plot(
            values,
            [place] * len(values),
            "o",
            color=colour,
            markersize=4,
            alpha=0.55,
            markeredgewidth=0,
        )
        if values:
            mean = summarise(values).mean
            ax.plot([mean, mean], [place - 0.3, place + 0.3], color=colour, linewidth=2)
            if cell.unchanged:
                ax.axvline(mean, color="#bdbdbd", linewidth=0.8, zorder=0.5)
    ax.set(
        yticks=range(len(cells)),
        ylim=(len(cells) - 0.4, -0.6),
        xlabel="test error (%)",
        title=experiment,
    )
    ax.set_yticklabels([change or AS_IT_IS for change in cells.change])
    ax.grid(False)
