"""Figures 1 and 6 (Sec. 1 and 4.2): a study in, a matplotlib Figure out; what they show and leave
out is in `captions`.

Axes, colours and line styles are the paper's. Where the study is not the paper's schedule the
x-axis counts its own iterations, and where its errors do not fit, the y-axis grows. Nothing is read
or written here.
"""

from dataclasses import dataclass
from math import ceil
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from analysis.figures import style
from analysis.paper import reported
from analysis.paper.reported import PAPER_ITERATIONS
from analysis.studies.curves import curve
from analysis.studies.studies import Study
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.metrics import TEST_ERR, TRAIN_ERR

METRIC = {"train": TRAIN_ERR, "test": TEST_ERR}
PAPER_LIMIT = 20.0
"""Percent: the top of the y-axis in Figures 1 and 6."""

NOT_DISPLAYED = 60.0
"""Figure 6: "The error of plain-110 is higher than 60% and not displayed"; a lower one is
displayed.
"""


@dataclass(frozen=True)
class CurvePanel:
    """One pair of axes: its rows, splits and paper panel; `start` is where x begins, as a share of
    the schedule.
    """

    paper_panel: str
    experiments: tuple[str, ...]
    splits: tuple[str, ...]
    label: str
    ticks: tuple[float, ...]
    start: float = 0.0


@dataclass(frozen=True)
class Line:
    """A curve of a panel: its row, its split and its points."""

    experiment: str
    split: str
    points: pd.DataFrame


_SHALLOW_DEEP = ("plain20", "plain56")
_PLAIN = ("plain20", "plain32", "plain44", "plain56", "plain110")
_RESNET = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")
_BOTH = ("train", "test")

FIGURE_1 = (
    CurvePanel("fig1_left", _SHALLOW_DEEP, ("train",), "{depth}-layer", (0, 10, 20)),
    CurvePanel("fig1_right", _SHALLOW_DEEP, ("test",), "{depth}-layer", (0, 10, 20)),
)
FIGURE_6 = (
    CurvePanel("fig6_left", _PLAIN, _BOTH, "plain-{depth}", (0, 5, 10, 20)),
    CurvePanel("fig6_middle", _RESNET, _BOTH, "ResNet-{depth}", (0, 5, 10, 20)),
    CurvePanel(
        "fig6_right",
        ("resnet110", "resnet1202"),
        _BOTH,
        "residual-{depth}",
        (0, 1, 5, 10, 20),
        start=3.5 / 6.4,
    ),
)


def figure_1(study: Study) -> Figure:
    """Figure 1: training (left) and test error (right) of the plain networks of 20 and 56 layers."""
    with mpl.rc_context(style.RC):
        figure, axes = _canvas(study, FIGURE_1, (7.2, 2.75))
        for ax, split in zip(axes, ("training", "test"), strict=True):
            ax.set_ylabel(f"{split} error (%)")
        _finish(figure, study, FIGURE_1)
    return figure


def figure_6(study: Study) -> Figure:
    """Figure 6: plain networks, residual networks, and the residual networks of 110 and 1202
    layers.
    """
    with mpl.rc_context(style.RC):
        figure, axes = _canvas(study, FIGURE_6, (11.0, 3.35))
        for ax in axes:
            ax.set_ylabel("error (%)")
        _finish(figure, study, FIGURE_6)
    return figure


def lines(study: Study, panel: CurvePanel) -> list[Line]:
    """The curves that a panel shows: rows with points, but for a plain-110 above 60 %."""
    names = [name for name in panel.experiments if name not in hidden(study, panel)]
    found = [
        Line(name, split, curve(study, name, METRIC[split]))
        for name in names
        for split in panel.splits
    ]
    return [line for line in found if len(line.points)]


def hidden(study: Study, panel: CurvePanel) -> tuple[str, ...]:
    """The rows left out as the paper does it: plain-110, if its error ends above 60 %."""
    finals = (
        curve(study, "plain110", TEST_ERR)["mean"]
        if "plain110" in panel.experiments
        else pd.Series(dtype=float)
    )
    return ("plain110",) if len(finals) and finals.iloc[-1] > NOT_DISPLAYED else ()


def iterations(study: Study) -> int:
    """The length of the x-axis: the longest schedule of the study's CIFAR rows."""
    cifar = [
        name in EXPERIMENTS and EXPERIMENTS[name].family == "cifar"
        for name in study.runs.experiment
    ]
    longest = study.runs.iterations[cifar].max()
    return PAPER_ITERATIONS if pd.isna(longest) else int(longest)


def y_limit(study: Study, panels: tuple[CurvePanel, ...]) -> float:
    """Percent: the paper's 20 if all curves end below it, else a multiple of 20 that holds all but
    the first tenth.
    """
    points = [line.points for panel in panels for line in lines(study, panel)]
    if max((p["high"].iloc[-1] for p in points), default=0.0) < PAPER_LIMIT:
        return PAPER_LIMIT
    start = iterations(study) / 10
    highest = max(float(p.high[p.iteration >= start].max()) for p in points)
    return min(100.0, 20.0 * ceil(highest / 20))


def canvas(panels: int, inches: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels side by side."""
    figure = Figure(figsize=inches, layout=ConstrainedLayoutEngine(wspace=0.07))
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def _canvas(
    study: Study, panels: tuple[CurvePanel, ...], inches: tuple[float, float]
) -> tuple[Figure, list[Axes]]:
    figure, axes = canvas(len(panels), inches)
    limit = y_limit(study, panels)
    for ax, panel in zip(axes, panels, strict=True):
        _frame_axes(ax, study, panel, limit)
        _draw(ax, study, panel)
    return figure, axes


def _frame_axes(ax: Axes, study: Study, panel: CurvePanel, limit: float) -> None:
    total = iterations(study)
    ax.set(xlim=(panel.start * total, total), ylim=(0, limit))
    ax.set_yticks(panel.ticks if limit == PAPER_LIMIT else range(0, int(limit) + 1, 20))
    iteration_axis(ax, total, tick=10_000, most=8)


def iteration_axis(ax: Axes, total: int, tick: int, most: int) -> None:
    """Count ten thousands of iterations as the paper does, a tick each `tick` and `most` of them;
    few ones as they are.
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


def _draw(ax: Axes, study: Study, panel: CurvePanel) -> None:
    shown = lines(study, panel)
    if not shown:
        ax.grid(False)
        style.say(ax, "not run")
        return
    ends = {}
    for line in shown:
        depth = EXPERIMENTS[line.experiment].depth
        look = (
            style.SINGLE
            if len(panel.splits) == 1
            else {"train": style.TRAIN, "test": style.TEST}[line.split]
        )
        if study.comparable:
            paper = reported.curve(panel.paper_panel, line.experiment, line.split)
            ax.plot(
                paper.iteration,
                paper.error,
                color=style.COLOURS[depth],
                zorder=1.5,
                **style.PAPER_CURVE,
            )
        draw_curve(ax, line.points, style.COLOURS[depth], look)
        ends[depth] = line.points["mean"].iloc[-1]
    label_ends(ax, {panel.label.format(depth=d): (y, style.COLOURS[d]) for d, y in ends.items()})


def draw_curve(ax: Axes, points: pd.DataFrame, colour: str, look: dict[str, Any]) -> None:
    """A curve of `analysis.studies.curves`: the mean as a line and, of several seeds, a band from
    the lowest to the highest.
    """
    if len(points) and points.n.iloc[0] > 1:
        ax.fill_between(points.iteration, points.low, points.high, color=colour, **style.BAND)
    ax.plot(points.iteration, points["mean"], color=colour, **look)


def label_ends(ax: Axes, ends: dict[str, tuple[float, str]]) -> None:
    """Name each curve beside its end, outside the axes, moved apart where the ends lie close."""
    bottom, top = ax.get_ylim()
    names = sorted(ends, key=lambda name: ends[name][0])
    wanted = [ends[name][0] - bottom for name in names]
    places = [
        bottom + place for place in spread(wanted, gap=0.062 * (top - bottom), top=top - bottom)
    ]
    beside = ax.get_yaxis_transform()
    for name, place in zip(names, places, strict=True):
        y, colour = ends[name]
        ax.plot(
            (1.0, 1.035), (y, place), transform=beside, color=colour, linewidth=1.2, clip_on=False
        )
        ax.text(1.045, place, name, transform=beside, va="center", fontsize=9, color=style.INK)


def spread(wanted: list[float], gap: float, top: float) -> list[float]:
    """Places at least `gap` apart, in the same (rising) order, near the wanted ones and not above
    `top`.
    """
    places = list(wanted)
    for _ in range(200):
        for low, high in zip(range(len(places) - 1), range(1, len(places)), strict=True):
            overlap = gap - (places[high] - places[low])
            if overlap > 1e-9:
                places[low] -= overlap / 2
                places[high] += overlap / 2
        over = max(0.0, places[-1] - top) if places else 0.0
        places = [max(place - over, gap * i) for i, place in enumerate(places)]
    return places


def _finish(figure: Figure, study: Study, panels: tuple[CurvePanel, ...]) -> None:
    """Add the key of line styles above the panels (the curves are named at their ends) and fix the
    layout.
    """
    grey = "#444444"
    entries: dict[str, Line2D] = {}
    if any(len(panel.splits) > 1 for panel in panels):
        entries |= {"training error": Line2D([], [], color=grey, **style.TRAIN)}
        entries |= {"test error": Line2D([], [], color=grey, **style.TEST)}
    else:
        entries |= {"measured here": Line2D([], [], color=grey, **style.SINGLE)}
    if study.comparable:
        entries |= {"the paper's curve, digitised": Line2D([], [], color=grey, **style.PAPER_CURVE)}
    if len(entries) > 1:
        figure.legend(
            entries.values(), entries.keys(), loc="outside upper center", ncols=len(entries)
        )
    settle(figure)


def settle(figure: Figure) -> None:
    """Fix the layout: each further drawing would move it by a hair, and the bytes with it."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
