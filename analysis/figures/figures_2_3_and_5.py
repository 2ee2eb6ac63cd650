"""Figures 2, 3 and 5: building blocks and the 34-layer networks, drawn from their layer lists.

Nothing is measured here. Coordinates are set by hand, since a diagram of boxes has no data to scale
axes by.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path as MplPath

from analysis.figures import style
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.layers import BlockLayout, Conv, NetworkLayout, layout

COLOURS = {64: "#d7cdea", 128: "#cfe3c8", 256: "#f5cfc7", 512: "#cfe4ee"}
"""Of Figure 3, by channels."""


@dataclass(frozen=True)
class Box:
    """A box of a diagram: its text, its middle, its colour."""

    text: str
    x: float
    y: float
    colour: str = "#ffffff"


@style.drawing()
def figure_2() -> Figure:
    """The building block: what is learned is the residual of its input."""
    figure, ax = _canvas(3.6, 3.2)
    _block(
        ax,
        layout(EXPERIMENTS["resnet34-a"]).stages[0][1],
        0.42,
        lambda conv: "weight layer",
        identity=True,
    )
    return figure


@style.drawing()
def figure_5() -> Figure:
    """A basic block of 64 channels, and a bottleneck block of 256, which cost about the same."""
    figure, ax = _canvas(6.4, 3.4, width=2.0)
    # Both blocks on one canvas of width 2, so that they have one scale.
    for x, name in ((0.5, "resnet34-a"), (1.5, "resnet50")):
        # The second block of the first stage: the first one differs in its input channels.
        block = layout(EXPERIMENTS[name]).stages[0][1]
        _block(ax, block, x, lambda conv: f"{conv.kernel}×{conv.kernel}, {conv.channels_out}")
        ax.text(
            x - 0.04,
            0.94,
            f"{block.convs[0].channels_in}-d",
            ha="right",
            va="center",
            fontsize=9,
        )
    return figure


@style.drawing()
def figure_3() -> Figure:
    """The 34-layer networks, plain and residual; dotted shortcuts increase the channels.

    The paper shows VGG-19 beside them.
    """
    plans = [
        (name, layout(EXPERIMENTS[row]))
        for name, row in (("34-layer plain", "plain34"), ("34-layer residual", "resnet34-a"))
    ]
    figure = Figure(figsize=(5.4, 11.6), dpi=style.DPI)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.axis("off")
    ax.set(xlim=(0, 2), ylim=(-36.8, 1.5))
    # Side by side on one scale; the sides of the maps are written once, at the left.
    for number, (title, plan) in enumerate(plans):
        _column(ax, title, plan, 0.6 + 0.95 * number, sizes=number == 0)
    return figure


def _column(ax: Axes, title: str, plan: NetworkLayout, x: float, sizes: bool) -> None:
    """One network of Figure 3, from top to bottom, a line each layer."""
    ax.text(x, 0.9, title, ha="center", va="center", fontsize=10, weight="bold")
    y = 0.0
    # The stem: image, first convolution, pooling.
    steps = [
        ("image", "#ffffff", plan.stem.size_in),
        (_words(plan.stem), COLOURS[64], plan.stem.size_out),
        ("pool, /2", "#ffffff", plan.stages[0][0].convs[0].size_in),
    ]
    for text, colour, side in steps:
        _line_box(ax, Box(text, x, y, colour), side if sizes else None)
        y -= 1
    # The blocks, a line each convolution, and a shortcut around each block of the residual network.
    seen = plan.stages[0][0].convs[0].size_in
    for block in plan.blocks:
        # The shortcut leads from above the block's first layer to below its last.
        top = y + 1
        for conv in block.convs:
            shown = conv.size_out if sizes and conv.size_out != seen else None
            seen = conv.size_out
            _line_box(ax, Box(_words(conv), x, y, COLOURS[conv.channels_out]), shown)
            y -= 1
        if block.shortcut != "none":
            _arc(ax, x, top - 0.45, y + 0.55, dotted=block.shortcut != "identity")
    # The head.
    for text in ("avg pool", f"fc {plan.classifier.channels_out}"):
        _line_box(ax, Box(text, x, y), 1 if sizes and text == "avg pool" else None)
        y -= 1


def _words(conv: Conv) -> str:
    return f"{conv.kernel}×{conv.kernel} conv, {conv.channels_out}" + (
        f", /{conv.stride}" if conv.stride > 1 else ""
    )


def _line_box(ax: Axes, box: Box, side: int | None) -> None:
    """A layer of Figure 3 with the arrow into it, and its map's side where that changes."""
    ax.add_patch(
        Rectangle(
            (box.x - 0.27, box.y - 0.3),
            0.54,
            0.6,
            facecolor=box.colour,
            edgecolor=style.INK,
            linewidth=0.6,
        )
    )
    ax.text(box.x, box.y - 0.02, box.text, ha="center", va="center", fontsize=7)
    if box.y < 0:
        _arrow(ax, (box.x, box.y + 0.7), (box.x, box.y + 0.3))
    if side is not None:
        ax.text(
            0.04,
            box.y,
            f"output\n{side}",
            ha="left",
            va="center",
            fontsize=6.5,
            color="#555555",
            linespacing=0.95,
        )


def _arc(ax: Axes, x: float, top: float, bottom: float, dotted: bool) -> None:
    """A shortcut around a block, at its right."""
    # A Bézier curve that bulges to the right of the boxes.
    out = x + 0.55
    path = MplPath(
        [(x, top), (out, top), (out, bottom), (x, bottom)], [MplPath.MOVETO, *[MplPath.CURVE4] * 3]
    )
    line = (0, (1, 1.6)) if dotted else "-"
    ax.add_patch(
        FancyArrowPatch(
            path=path,
            arrowstyle="-|>",
            mutation_scale=6,
            linewidth=0.8,
            color=style.INK,
            linestyle=line,
        )
    )


def _canvas(width_inches: float, height_inches: float, width: float = 1.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width_inches, height_inches), dpi=style.DPI)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.axis("off")
    ax.set(xlim=(0, width), ylim=(0, 1))
    return figure, ax


def _block(
    ax: Axes, block: BlockLayout, x: float, words: Callable[[Conv], str], identity: bool = False
) -> None:
    """A block from its input at the top to the relu after the addition, its shortcut at the right.

    `words` says what is written in a layer; `identity` adds the symbols of Figure 2.
    """
    count = len(block.convs)
    heights = [0.80 - 0.50 * number / max(count - 1, 1) for number in range(count)]
    plus = 0.14
    # The path through the layers: an arrow into each, and a relu behind all but the last.
    ax.text(x, 0.985, "x" if identity else "", ha="center", va="center", style="italic")
    _arrow(ax, (x, 0.95), (x, heights[0] + 0.055))
    for number, (conv, y) in enumerate(zip(block.convs, heights, strict=True)):
        ax.add_patch(_rounded_box(x, y))
        ax.text(x, y, words(conv), ha="center", va="center", fontsize=9)
        last = number + 1 == count
        end = plus + 0.035 if last else heights[number + 1] + 0.055
        _arrow(ax, (x, y - 0.05), (x, end))
        if not last:
            ax.text(x + 0.02, (y + end) / 2 - 0.025, "relu", fontsize=8, va="center")

    # The addition, and the relu behind it (Eq. 1: the second nonlinearity comes after).
    ax.text(x, plus, "+", ha="center", va="center", fontsize=11)
    circle = Ellipse((x, plus), 0.07, 0.065, fill=False, linewidth=0.9, edgecolor=style.INK)
    ax.add_patch(circle)
    _arrow(ax, (x, plus - 0.034), (x, 0.02))
    ax.text(x + 0.03, 0.05, "relu", fontsize=8, va="center")

    # The shortcut, from above the first layer to the addition.
    right = x + 0.3
    ax.plot(
        [x, right, right],
        [0.915, 0.915, plus],
        color=style.INK,
        linewidth=0.9,
        solid_capstyle="butt",
    )
    _arrow(ax, (right, plus), (x + 0.037, plus))
    if identity:
        italic: dict[str, Any] = {"fontsize": 9, "va": "center", "style": "italic"}
        ax.text(right + 0.02, 0.55, "x", **italic)
        ax.text(right + 0.02, 0.48, "identity", fontsize=9, va="center")
        ax.text(x - 0.24, 0.52, "F(x)", ha="right", **italic)
        ax.text(x - 0.06, plus, "F(x) + x", ha="right", **italic)


def _rounded_box(x: float, y: float) -> FancyBboxPatch:
    return FancyBboxPatch(
        (x - 0.2, y - 0.05),
        0.4,
        0.1,
        boxstyle="round,pad=0,rounding_size=0.02",
        facecolor="#ffffff",
        edgecolor=style.INK,
        linewidth=0.9,
    )


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=6,
            linewidth=0.8,
            color=style.INK,
            shrinkA=0,
            shrinkB=0,
        )
    )
