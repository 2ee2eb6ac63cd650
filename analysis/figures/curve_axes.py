"""Axes on which errors are drawn against iterations: shared by Figures 1, 4 and 6.

The x-axis counts as the paper's does, and curves are named at their ends instead of in a legend.
"""

from math import ceil
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from analysis.figures import style


def canvas(panels: int, inches: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels side by side."""
    figure = Figure(figsize=inches, layout=ConstrainedLayoutEngine(wspace=0.07))
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def iteration_axis(ax: Axes, total: int, tick: int, most: int) -> None:
    """Count ten thousands of iterations as the paper does; a short schedule's as they are.

    A tick each `tick` iterations, and at most `most` of them.
    """
    if total >= tick:
        ax.xaxis.set_major_locator(mpl.ticker.MultipleLocator(tick * ceil(total / (most * tick))))
        ax.xaxis.set_major_formatter(lambda x, _: f"{x / 10_000:g}")
        ax.set_xlabel("iter. (1e4)")
    else:
        ax.xaxis.set_major_locator(
            mpl.ticker.MaxNLocator(5, integer=True, steps=[1, 2, 2.5, 5, 10])
        )
        ax.set_xlabel("iter.")


def draw_curve(ax: Axes, points: pd.DataFrame, colour: str, look: dict[str, Any]) -> None:
    """A curve of `analysis.studies.curves`: the mean, and of seeds a band over their range."""
    if len(points) and points.n.iloc[0] > 1:
        ax.fill_between(points.iteration, points.low, points.high, color=colour, **style.BAND)
    ax.plot(points.iteration, points["mean"], color=colour, **look)


def label_ends(ax: Axes, ends: dict[str, tuple[float, str]]) -> None:
    """Name each curve beside its end, outside the axes, moved apart where the ends lie close."""
    bottom, top = ax.get_ylim()
    names = sorted(ends, key=lambda name: ends[name][0])
    heights = [ends[name][0] - bottom for name in names]
    gap = 0.062 * (top - bottom)
    label_heights = [bottom + height for height in spread(heights, gap, top - bottom)]
    # x in shares of the axes, y in their own units: a label stands at its curve's height.
    beside = ax.get_yaxis_transform()
    for name, height in zip(names, label_heights, strict=True):
        y, colour = ends[name]
        ax.plot(
            (1.0, 1.035), (y, height), transform=beside, color=colour, linewidth=1.2, clip_on=False
        )
        ax.text(1.045, height, name, transform=beside, va="center", fontsize=9, color=style.INK)


def spread(heights: list[float], gap: float, top: float) -> list[float]:
    """Places at least `gap` apart, in rising order, near the given heights and below `top`."""
    places = list(heights)
    for _ in range(200):
        # Neighbours that overlap give way by half each; pushing one may push the next, hence the
        # rounds.
        for low, high in zip(range(len(places) - 1), range(1, len(places)), strict=True):
            overlap = gap - (places[high] - places[low])
            if overlap > 1e-9:
                places[low] -= overlap / 2
                places[high] += overlap / 2
        # Then all move down together, and none below its rank's place from the bottom.
        over = max(0.0, places[-1] - top) if places else 0.0
        places = [max(place - over, gap * rank) for rank, place in enumerate(places)]
    return places
