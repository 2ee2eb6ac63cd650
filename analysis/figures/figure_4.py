"""Figure 4 (Sec. 4.1): training on ImageNet, plain networks left and residual ones right.

"Thin curves denote training error, and bold curves denote validation error of the center crops."
Axes and colours are the paper's; where a study is not the paper's schedule or its errors do not
fit, the axes are its own.
"""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import style
from analysis.figures.curve_axes import canvas, draw_curve, iteration_axis, label_ends
from analysis.paper import reported
from analysis.studies.curves import curve
from analysis.studies.studies import Study
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.metrics import TEST_ERR, TRAIN_ERR

PANELS = (("plain18", "plain34"), ("resnet18", "resnet34-a"))
COLOURS = {18: style.COLOURS[32], 34: style.COLOURS[56]}
"""Cyan and red, as in the paper."""

TRAIN: dict[str, Any] = {"linewidth": 0.9, "linestyle": "-"}
VALIDATION: dict[str, Any] = {"linewidth": 2.0, "linestyle": "-"}
# The paper's validation curves are of centre crops, taken while the network trains.
SPLITS = {"train": (TRAIN_ERR, TRAIN), "val": (TEST_ERR, VALIDATION)}
LOW, HIGH = 20.0, 63.0
"""Percent: the ends of the paper's y-axis."""

ITERATIONS = 600_000


def names(study: Study) -> list[str]:
    """The rows of the figure with a finished run."""
    return [name for panel in PANELS for name in panel if len(curve(study, name, TEST_ERR))]


def figure_4(study: Study) -> Figure:
    """Figure 4 of a study."""
    with style.drawing():
        figure, axes = canvas(2, (8.2, 3.3))
        limits = _limits(study)
        for ax, panel in zip(axes, PANELS, strict=True):
            _panel(ax, study, panel, limits)
        grey = "#444444"
        entries = {
            "training error": Line2D([], [], color=grey, **TRAIN),
            "validation error, centre crop": Line2D([], [], color=grey, **VALIDATION),
        }
        if study.comparable:
            entries |= {
                "the paper's curve, digitised": Line2D([], [], color=grey, **style.PAPER_CURVE)
            }
        figure.legend(
            entries.values(), entries.keys(), loc="outside upper center", ncols=len(entries)
        )
        style.settle(figure)
    return figure


def _limits(study: Study) -> tuple[float, float, int]:
    """The ends of the y-axis (percent) and of the x-axis."""
    # The paper's axes wherever the ends fit into them, else all of 0 to 100 %.
    curves = [curve(study, name, metric) for name in names(study) for metric, _ in SPLITS.values()]
    ends = [points["mean"].iloc[-1] for points in curves if len(points)]
    low, high = (LOW, HIGH) if all(LOW < end < HIGH for end in ends) else (0.0, 100.0)
    # The longest schedule among the rows that the figure shows.
    shown = study.runs[study.runs.experiment.isin([name for panel in PANELS for name in panel])]
    return low, high, int((shown if len(shown) else study.runs).iterations.max())


def _panel(
    ax: Axes, study: Study, panel: tuple[str, ...], limits: tuple[float, float, int]
) -> None:
    low, high, total = limits
    ax.set(xlim=(0, total), ylim=(low, high), ylabel="error (%)")
    ax.set_yticks(
        [tick for tick in range(0, 101, 10 if high <= HIGH else 20) if low <= tick <= high]
    )
    # Ticks as in the paper: every 100,000 iterations, counted in ten thousands.
    iteration_axis(ax, total, tick=100_000, most=7)
    shown = [name for name in panel if name in names(study)]
    if not shown:
        ax.grid(False)
        return style.say(ax, "not run")
    ends = {}
    for name in shown:
        experiment = EXPERIMENTS[name]
        colour, paper = COLOURS[experiment.depth], reported.figure_4()
        for split, (metric, line_style) in SPLITS.items():
            if study.comparable:
                # Below ours, and only where both are of the same data and recipe.
                theirs = paper[(paper.experiment == name) & (paper.split == split)]
                ax.plot(
                    theirs.iteration, theirs.error, color=colour, zorder=1.5, **style.PAPER_CURVE
                )
            draw_curve(ax, curve(study, name, metric), colour, line_style)
        label = f"{'plain' if experiment.shortcut == 'none' else 'ResNet'}-{experiment.depth}"
        # Named at the end of its validation curve, the one that the claims are about.
        ends[label] = (float(curve(study, name, TEST_ERR)["mean"].iloc[-1]), colour)
    label_ends(ax, ends)


def caption_4(study: Study) -> str:
    """The caption of Figure 4 for a study."""
    absent = [name for panel in PANELS for name in panel if name not in names(study)]
    counts = {int(curve(study, name, TEST_ERR).n.iloc[0]) for name in names(study)}
    seeds = (
        "Lines are means over seeds, bands run from the lowest to the highest."
        if max(counts, default=1) > 1
        else ""
    )
    low, high, total = _limits(study)
    # Whoever lays the two figures side by side has to know that the axes differ.
    other_axes = []
    if total != ITERATIONS:
        other_axes.append(f"the x-axis ends at {total:,} iterations instead of {ITERATIONS:,}")
    if (low, high) != (LOW, HIGH):
        other_axes.append(f"the y-axis runs from {low:g} to {high:g} %")
    return " ".join(
        text
        for text in (
            f"Training on {study.dataset_title}. Thin lines denote training error, and bold lines "
            "denote validation error of "
            "the centre crops. Left: plain networks of 18 and 34 layers. Right: ResNets of 18 and "
            "34 layers (option A).",
            "Taken during training with running batch-norm statistics, so that the ends are not a "
            "clean one-crop evaluation.",
            seeds,
            "Faint lines: the paper's own curves, digitised; it had one run of each."
            if study.comparable
            else "",
            f"The axes are not the paper's: {' and '.join(other_axes)}." if other_axes else "",
            f"Absent, for want of a finished run: {', '.join(absent)}." if absent else "",
        )
        if text
    )
