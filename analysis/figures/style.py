"""How the paper's figures look, and how a figure becomes the same bytes each time.

Colours by depth, line styles by split, sizes. No data here.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = {
    20: "#cfae00",
    32: "#00a3b8",
    44: "#1d9345",
    56: "#a8101a",
    110: "#000000",
    1202: "#d94fce",
}
"""Lines by depth, in the hues of Figures 1 and 6: yellow, cyan, green, red, black, magenta.

Here the darker the deeper up to 110: so they stay apart in grey and for eyes that do not tell red
from green.
"""

# Figure 6: "Dashed lines denote training error, and bold lines denote testing error".
TRAIN: dict[str, Any] = {"linewidth": 1.0, "linestyle": (0, (3.2, 1.4))}
TEST: dict[str, Any] = {"linewidth": 1.9, "linestyle": "-"}
SINGLE: dict[str, Any] = {"linewidth": 1.5, "linestyle": "-"}
"""Figure 1 has one split per panel, so both are plain lines."""

PAPER_CURVE: dict[str, Any] = {"linewidth": 0.8, "linestyle": "-", "alpha": 0.4}
BAND: dict[str, Any] = {"alpha": 0.18, "linewidth": 0}

KINDS: tuple[Literal["svg", "png"], ...] = ("svg", "png")
"""What each figure is written as."""

INK = "#1a1a1a"
DPI = 160

# What is not matplotlib's default. Fonts are its own, and SVG text is drawn as paths: a page looks
# alike on every machine.
RC: dict[str, Any] = {
    "font.family": "STIXGeneral",
    "mathtext.fontset": "stix",
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.linewidth": 0.7,
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#bdbdbd",
    "grid.linestyle": (0, (1, 2)),
    "grid.linewidth": 0.7,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.solid_capstyle": "round",
    # Names come from bundles of other people too: a dollar sign in one is no mathematics.
    "text.parse_math": False,
    "text.usetex": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "deep residual learning",
}

POWERS_OF_TEN: dict[str, Any] = RC | {"text.parse_math": True}
"""For figures with logarithmic axes, in which no text may come from elsewhere."""


@contextmanager
def drawing(settings: dict[str, Any] = RC) -> Iterator[None]:
    """Draw within: with matplotlib's defaults and `settings`, whatever a user's own settings say.

    They are in a `matplotlibrc` at home or in the working directory, or were set by whoever called.
    Also a decorator.
    """
    # The backend stays: figures here need none, and another one would open its windows' toolkit.
    defaults = {name: value for name, value in mpl.rcParamsDefault.items() if name != "backend"}
    with mpl.rc_context(defaults | settings):
        yield


def say(ax: Axes, text: str) -> None:
    """Write in the middle of axes that have nothing to show."""
    ax.text(
        0.5,
        0.5,
        text,
        transform=ax.transAxes,
        ha="center",
        va="center",
        color="#767676",
        style="italic",
    )


def settle(figure: Figure) -> None:
    """Fix the layout: each further drawing would move it by a hair, and the bytes with it."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def images(drawn: Mapping[str, Figure]) -> dict[str, bytes]:
    """Figures by name as files, each of every kind."""
    return {
        f"{name}.{kind}": image(figure, kind) for name, figure in drawn.items() for kind in KINDS
    }


def image(figure: Figure, kind: Literal["svg", "png"]) -> bytes:
    """The figure as SVG or PNG, the same bytes each time: no date and no random ids in the file."""
    # Formats write the date and the version of the software unless told not to.
    metadata = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[kind]
    buffer = BytesIO()
    with drawing():
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
    return buffer.getvalue()
