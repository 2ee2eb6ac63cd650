"""Figures 1 and 6 (Sec. 1 and 4.2): a study in, a matplotlib Figure out; captions in `captions`.

Axes, colours and line styles are the paper's. Where the study is not the paper's schedule the
x-axis counts its own iterations, and where its errors do not fit, the y-axis grows. Nothing is read
or written here.
"""

from dataclasses import dataclass
from math import ceil

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import style
from analysis.figures.curve_axes import canvas, draw_curve, iteration_axis, label_ends
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
"""Percent. Figure 6: "the error of plain-110 is higher than 60% and not displayed"."""


@dataclass(frozen=True)
class CurvePanel:
    """One pair of axes: its rows, splits and paper panel, and where x begins.

    `start` is a share of the schedule.
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

# Ticks and where x begins are read off the paper's figures: the right panel of Figure 6 shows the
# iterations after the first drop.
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
    """Figure 1: training (left) and test error (right) of plain networks of 20 and 56 layers."""
    with style.drawing():
        figure, axes = _canvas(study, FIGURE_1, (7.2, 2.75))
        for ax, split in zip(axes, ("training", "test"), strict=True):
            ax.set_ylabel(f"{split} error (%)")
        _finish(figure, study, FIGURE_1)
    return figure


def figure_6(study: Study) -> Figure:
    """Figure 6: plain networks, residual networks, and residual ones of 110 and 1202 layers."""
    panels = panels_of_figure_6(study)
    with style.drawing():
        figure, axes = _canvas(study, panels, (11.0 * len(panels) / len(FIGURE_6), 3.35))
        for ax in axes:
            ax.set_ylabel("error (%)")
        _finish(figure, study, panels)
    return figure


def panels_of_figure_6(study: Study) -> tuple[CurvePanel, ...]:
    """The panels of Figure 6 that show something; all of them where none does."""
    return tuple(panel for panel in FIGURE_6 if lines(study, panel)) or FIGURE_6


def lines(study: Study, panel: CurvePanel) -> list[Line]:
    """The curves that a panel shows: rows with points, but for a plain-110 above 60 %."""
    # Where nothing is left to draw the panel stays, and says so.
    names = [name for name in panel.experiments if name not in hidden(study, panel)]
    curves = [
        Line(name, split, curve(study, name, METRIC[split]))
        for name in names
        for split in panel.splits
    ]
    return [line for line in curves if len(line.points)]


def hidden(study: Study, panel: CurvePanel) -> tuple[str, ...]:
    """The rows left out as the paper does it: plain-110, if its error ends above 60 %."""
    # A plain-110 that ends below 60 % is displayed: hiding it would hide a finding.
    finals = (
        curve(study, "plain110", TEST_ERR)["mean"]
        if "plain110" in panel.experiments
        else pd.Series(dtype=float)
    )
    return ("plain110",) if len(finals) and finals.iloc[-1] > NOT_DISPLAYED else ()


def iterations(study: Study) -> int:
    """The length of the x-axis: the longest schedule of the study's CIFAR rows."""
    # A study may hold rows of another schedule that these figures do not show.
    cifar = [
        name in EXPERIMENTS and EXPERIMENTS[name].family == "cifar"
        for name in study.runs.experiment
    ]
    longest = study.runs.iterations[cifar].max()
    return PAPER_ITERATIONS if pd.isna(longest) else int(longest)


def y_limit(study: Study, panels: tuple[CurvePanel, ...]) -> float:
    """Percent: the paper's 20 if all curves end below it, else a multiple of 20.

    One that holds all of every curve but its first tenth, which starts at guessing.
    """
    points = [line.points for panel in panels for line in lines(study, panel)]
    if max((curve_points["high"].iloc[-1] for curve_points in points), default=0.0) < PAPER_LIMIT:
        return PAPER_LIMIT
    start = iterations(study) / 10
    highest = max(
        float(curve_points.high[curve_points.iteration >= start].max()) for curve_points in points
    )
    return min(100.0, 20.0 * ceil(highest / 20))


def _canvas(
    study: Study, panels: tuple[CurvePanel, ...], inches: tuple[float, float]
) -> tuple[Figure, list[Axes]]:
    figure, axes = canvas(len(panels), inches)
    # One limit for all panels, so that heights can be compared across them.
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


def _draw(ax: Axes, study: Study, panel: CurvePanel) -> None:
    shown = lines(study, panel)
    if not shown:
        ax.grid(False)
        style.say(ax, "not run")
        return
    ends = {}
    for line in shown:
        # Colour tells the depth, the line's style the split.
        depth = EXPERIMENTS[line.experiment].depth
        line_style = (
            style.SINGLE
            if len(panel.splits) == 1
            else {"train": style.TRAIN, "test": style.TEST}[line.split]
        )
        if study.comparable:
            # Below ours, and only where both are of the same data and recipe.
            paper = reported.curve(panel.paper_panel, line.experiment, line.split)
            ax.plot(
                paper.iteration,
                paper.error,
                color=style.COLOURS[depth],
                zorder=1.5,
                **style.PAPER_CURVE,
            )
        draw_curve(ax, line.points, style.COLOURS[depth], line_style)
        ends[depth] = line.points["mean"].iloc[-1]
    labels = {
        panel.label.format(depth=depth): (height, style.COLOURS[depth])
        for depth, height in ends.items()
    }
    label_ends(ax, labels)


def _finish(figure: Figure, study: Study, panels: tuple[CurvePanel, ...]) -> None:
    """Add the key of line styles above the panels, and fix the layout.

    The curves are named at their ends.
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
    # With one kind of line there is nothing to tell apart.
    if len(entries) > 1:
        figure.legend(
            entries.values(), entries.keys(), loc="outside upper center", ncols=len(entries)
        )
    style.settle(figure)
