"""How signals travel: each layer's forward variance and gradient norm, by start and by norm.

From the paper's text (Sec. 1 and 4.1) and its references on initialisation and batch norm, not one
of its figures. Plain and residual networks of 56 layers, at the start and at the end of training.
Nothing is read or written here.
"""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor, log10
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import style
from analysis.measured.frames import DIVERGED
from analysis.studies.curves import over_runs
from analysis.studies.studies import Study
from pipeline.recipe.experiments import EXPERIMENTS, Experiment
from pipeline.recipe.metrics import FORWARD_VARIANCE, GRADIENT_NORM

SHOWN = tuple(name for name, experiment in EXPERIMENTS.items() if "signals" in experiment.artifacts)
QUANTITIES = {FORWARD_VARIANCE: "forward variance", GRADIENT_NORM: "gradient norm"}
STARTS = {"he_fan_in": "He", "xavier": "Xavier", "gaussian_0.01": "N(0, 0.01²)"}
COLOURS = dict(zip(STARTS, ("#0072b2", "#e69f00", "#7a1f10"), strict=True))
FLOOR, CEILING = 1e-20, 1e8
"""The lowest and highest value drawn: smaller ones, even 0, lie on the floor, overflows on top."""


@dataclass(frozen=True)
class SignalPanel:
    """One pair of axes: plain or residual networks, at the start or at the end of training."""

    network: str
    at_end: bool

    @property
    def title(self) -> str:
        network = "plain-56" if self.network == "plain56" else "ResNet-56"
        return f"{network}, {'end' if self.at_end else 'start'}"

    @property
    def experiments(self) -> list[str]:
        return [name for name in SHOWN if name.partition("-")[0] == self.network]


PANELS = tuple(
    SignalPanel(network, at_end) for network in ("plain56", "resnet56") for at_end in (False, True)
)


@lru_cache(maxsize=256)
def signal_curve(study: Study, experiment: str, quantity: str, at_end: bool) -> pd.DataFrame:
    """Columns layer, mean of logarithms, low, high over the runs of a row that measured it, and n.

    A run that diverged has a start and no end.
    """
    runs = study.runs[study.runs.experiment == experiment]
    layers = study.layers[
        (study.layers.quantity == quantity) & study.layers.run_id.isin(runs.run_id)
    ]
    moments = layers.merge(runs[["run_id", "iterations"]], on="run_id")
    # Iteration 0 is before the first step, the last one after training.
    chosen = moments[moments.iteration == (moments.iterations if at_end else 0)]
    wide = chosen.pivot(index="layer", columns="run_id", values="value").sort_index()
    # Signals differ by orders of magnitude, so their mean is that of the logarithms; what
    # overflowed (NaN) counts as the ceiling.
    curve = over_runs(wide.clip(FLOOR, CEILING).fillna(CEILING).map(log10))
    curve[["mean", "low", "high"]] = 10 ** curve[["mean", "low", "high"]]
    return curve


def rows_shown(study: Study) -> list[str]:
    """The rows of the figure that have any signal measured."""
    return [name for name in SHOWN if len(signal_curve(study, name, FORWARD_VARIANCE, False))]


def figure_signals(study: Study) -> Figure:
    """Forward variance (top) and gradient norm (bottom) by layer, at the start and at the end."""
    with style.drawing(style.POWERS_OF_TEN):
        figure = Figure(figsize=(11.0, 5.4), layout="constrained")
        grid = figure.subplots(
            len(QUANTITIES), len(PANELS), sharex=True, sharey="row", squeeze=False
        )
        for axes, quantity in zip(grid, QUANTITIES, strict=True):
            for ax, panel in zip(axes, PANELS, strict=True):
                _draw(ax, study, quantity, panel)
            axes[0].set_ylabel(QUANTITIES[quantity])
        for ax, panel in zip(grid[0], PANELS, strict=True):
            ax.set_title(panel.title, fontsize=10)
        for ax in grid[-1]:
            ax.set_xlabel("layer index")
        _key(figure, study)
        style.settle(figure)
    return figure


def _draw(ax: Axes, study: Study, quantity: str, panel: SignalPanel) -> None:
    # Logarithmic: without batch norm signals change by orders of magnitude from layer to layer.
    ax.set_yscale("log")
    ax.set_ylim(*_limits(study, quantity))
    curves = {name: signal_curve(study, name, quantity, panel.at_end) for name in panel.experiments}
    if not any(map(len, curves.values())):
        # Measured at the start and not at the end: the runs did not get there.
        diverged = set(panel.experiments) & set(rows_shown(study))
        style.say(ax, "diverged" if diverged else "not run")
        return
    for name, curve in curves.items():
        if len(curve):
            line_style = _line_style(EXPERIMENTS[name])
            if curve.n.iloc[0] > 1:
                ax.fill_between(
                    curve.layer, curve.low, curve.high, color=line_style["color"], **style.BAND
                )
            ax.plot(curve.layer, curve["mean"], **line_style)


def _limits(study: Study, quantity: str) -> tuple[float, float]:
    """Whole powers of ten around all curves of a quantity, a decade of room on each side."""
    curves = [signal_curve(study, name, quantity, end) for name in SHOWN for end in (False, True)]
    # Over the whole row of panels: they share the axis, and only so can they be compared.
    low = min((float(curve.low.min()) for curve in curves if len(curve)), default=1e-3)
    high = max((float(curve.high.max()) for curve in curves if len(curve)), default=1e3)
    return 10.0 ** (floor(log10(low)) - 1), 10.0 ** (ceil(log10(high)) + 1)


def _line_style(experiment: Experiment) -> dict[str, Any]:
    linestyle = "-" if experiment.norm == "batch" else style.TRAIN["linestyle"]
    return {"color": COLOURS[experiment.initialisation], "linestyle": linestyle, "linewidth": 1.3}


def _key(figure: Figure, study: Study) -> None:
    experiments = [EXPERIMENTS[name] for name in rows_shown(study)]
    # With batch norm first, then by how much care the start takes.
    starts = list(STARTS)
    experiments.sort(key=lambda row: (row.norm, starts.index(row.initialisation)))
    lines = {}
    for experiment in experiments:
        norm = "batch norm" if experiment.norm == "batch" else "no norm"
        label = f"{STARTS[experiment.initialisation]}, {norm}"
        lines[label] = Line2D([], [], **_line_style(experiment))
    if lines:
        figure.legend(list(lines.values()), list(lines), loc="outside upper center", ncols=6)


def outcomes(study: Study) -> str:
    """Which networks diverged, with how many seeds, and so have no end: for the caption."""
    shown = study.runs[study.runs.experiment.isin(rows_shown(study))]
    seeds = Counter(shown.experiment)
    diverged_seeds = Counter(shown[shown.status == DIVERGED].experiment)
    diverged = [f"{name} ({count} of {seeds[name]})" for name, count in diverged_seeds.items()]
    return f"Diverged, and so without an end: {', '.join(diverged)}." if diverged else ""
