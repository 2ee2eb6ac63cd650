"""Figure 7 (Sec. 4.2): deviations of layer responses, in order (top) and sorted (bottom).

Colours are by depth; plain networks dashed and residual ones solid, as in the paper. With several
seeds a line is the mean over them; in the bottom panel each run is sorted before. Nothing is read
or written here.
"""

from functools import lru_cache
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import style
from analysis.paper import reported
from analysis.studies.curves import over_runs
from analysis.studies.run_metrics import MEASURED, measure
from analysis.studies.studies import Study
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.metrics import RESPONSE_STD

# The rows of the paper's figure.
SHOWN = ("plain20", "plain56", "resnet20", "resnet56", "resnet110")
PANELS = {"top": "layer index (original)", "bottom": "layer index (sorted by magnitude)"}


@lru_cache(maxsize=64)
def response_curve(study: Study, experiment: str, panel: str) -> pd.DataFrame:
    """Columns layer, mean, low, high over the finished runs of a row, and n.

    For `bottom` each run is sorted before the mean is taken.
    """
    run_metrics = measure(study)
    runs = run_metrics[(run_metrics.experiment == experiment) & (run_metrics.state == MEASURED)]
    layers = study.layers[
        (study.layers.quantity == RESPONSE_STD) & study.layers.run_id.isin(runs.run_id)
    ]
    # The responses of the final network: a run may have measured some before.
    final = layers.merge(runs[["run_id", "iterations"]], on="run_id").query(
        "iteration == iterations"
    )
    wide = final.pivot(index="layer", columns="run_id", values="value").sort_index()
    # A run at a time: sorting the mean would mix the ranks of different layers.
    if panel == "bottom":
        wide = wide.apply(lambda values: sorted(values, reverse=True))
    return over_runs(wide)


def rows_shown(study: Study) -> list[str]:
    """The rows of Figure 7 that have been measured."""
    return [name for name in SHOWN if len(response_curve(study, name, "top"))]


def figure_7(study: Study) -> Figure:
    """Figure 7: the standard deviation of each 3x3 layer's response, in order and by magnitude."""
    with style.drawing():
        figure = Figure(figsize=(6.4, 5.2), layout="constrained")
        for ax, panel in zip(figure.subplots(2, 1), PANELS, strict=True):
            _draw(ax, study, panel)
        _key(figure, study)
        style.settle(figure)
    return figure


def _draw(ax: Axes, study: Study, panel: str) -> None:
    ax.set(xlabel=PANELS[panel], ylabel="std")
    names = rows_shown(study)
    if not names:
        ax.grid(False)
        ax.set(xticks=[], yticks=[])
        style.say(ax, "not run")
        return
    for name in names:
        line_style = _line_style(name)
        if study.comparable:
            # Below ours, and only where both are of the same data and recipe.
            paper = reported.responses()
            paper = paper[(paper.panel == panel) & (paper.experiment == name)]
            ax.plot(
                paper.layer,
                paper["std"],
                color=line_style["color"],
                zorder=1.5,
                **style.PAPER_CURVE,
            )
        # Bands only where there is more than one run to have a range.
        shown = response_curve(study, name, panel)
        if shown.n.iloc[0] > 1:
            ax.fill_between(
                shown.layer, shown.low, shown.high, color=line_style["color"], **style.BAND
            )
        ax.plot(shown.layer, shown["mean"], **line_style)
    ax.set_xlim(0, max(response_curve(study, name, panel).layer.max() for name in names) + 1)
    ax.set_ylim(bottom=0)


def _line_style(name: str) -> dict[str, Any]:
    plain = name.startswith("plain")
    return {
        "color": style.COLOURS[EXPERIMENTS[name].depth],
        "linestyle": style.TRAIN["linestyle"] if plain else "-",
        "linewidth": 1.2,
        "marker": "s" if plain else "o",
        "markersize": 2.0,
    }


def _key(figure: Figure, study: Study) -> None:
    """The curves cross, so they are named above the panels and not at their ends."""
    titles = {
        name: f"{'plain' if name.startswith('plain') else 'ResNet'}-{EXPERIMENTS[name].depth}"
        for name in SHOWN
    }
    lines = {titles[name]: Line2D([], [], **_line_style(name)) for name in rows_shown(study)}
    if study.comparable and lines:
        lines["the paper's, digitised"] = Line2D([], [], color="#444444", **style.PAPER_CURVE)
    if lines:
        figure.legend(list(lines.values()), list(lines), loc="outside upper center", ncols=3)
