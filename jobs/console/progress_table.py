"""On a terminal: one table of the runs, drawn again and again, each with its curve."""

from collections.abc import Sequence
from itertools import pairwise
from statistics import mean

from jobs.console.console import console
from jobs.console.durations import duration
from jobs.console.run_progress import RunProgress, percent
from jobs.console.tables import FittingTable
from jobs.console.watch import Watch, rate_text

CURVE_WIDTH = 8
LINES_AROUND = 6
"""Of a screen, for the table's title and head, and what stood there before."""
BARS, ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-:=+*#"


def table(watch: Watch) -> FittingTable:
    """A row for each run of a watch, below a line about all of them."""
    rows = _that_fit(watch.progress)
    hidden = len(watch.progress) - len(rows)
    more = f" ({hidden} runs not shown)" if hidden else ""
    # Narrow enough for 80 columns, as a table that does not fit becomes a list.
    shown = FittingTable(
        *("experiment", "seed", "iteration", "images/s", "test", "curve", "left"),
        title=f"{watch.heading}: {watch.summary()}{more}",
        left=["experiment", "curve", "left"],
        wrapping=["experiment"],
    )
    # On one scale, so that runs can be compared.
    highest = max((max(each.curve) for each in watch.progress if each.curve), default=0.0)
    bars = ASCII_BARS if console.options.ascii_only else BARS
    for each in rows:
        experiment = each.run.experiment
        shown.add_row(
            watch.name(experiment),
            str(each.run.seed),
            f"{each.iteration:,}/{experiment.iterations:,}",
            rate_text(each.images_per_second),
            percent(each.test_err),
            sparkline(each.curve, highest, bars),
            _left(each, watch),
        )
    return shown


def _that_fit(progress: list[RunProgress]) -> list[RunProgress]:
    """As many runs as the screen has lines for: those that train, then those that ended."""
    room = max(4, console.height - LINES_AROUND)
    order = {"running": 0, "diverged": 1, "finished": 1, "waiting": 2}
    first = sorted(progress, key=lambda each: order[each.state])[:room]
    return [each for each in progress if each in first]


def sparkline(values: Sequence[float], highest: float, bars: str = BARS) -> str:
    """A curve from 0 to `highest` in `CURVE_WIDTH` characters at the most.

    Where there are more values, each character is the mean of several.
    """
    if not values or highest <= 0:
        return ""
    width = min(CURVE_WIDTH, len(values))
    edges = [number * len(values) // width for number in range(width + 1)]
    means = [mean(values[start:end]) for start, end in pairwise(edges)]
    return "".join(bars[min(len(bars) - 1, int(each / highest * len(bars)))] for each in means)


def _left(each: RunProgress, watch: Watch) -> str:
    """The time left of a run that trains; others have ended, or wait for their turn or for Ray."""
    if each.state == "running":
        left = watch.rates.run_seconds_left(each)
        return "unknown" if left is None else duration(left)
    if each.state == "waiting" and len(watch.progress) == 1:
        return "starting"
    return each.state
