"""The figure of a sweep: each change's final test errors, a dot per seed and a bar at their mean.

Not a figure of the paper. Nothing is read or written here.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.measured.frames import each
from analysis.stats import summarise
from analysis.studies.sweeps import AS_IT_IS, MeasuredSweep, errors


def sweep_figure(sweep: MeasuredSweep) -> Figure:
    """Each change's final test errors, a panel per experiment: dots are seeds, bars means."""
    names = list(dict.fromkeys(sweep.cells.experiment))
    # A panel is as high as it has changes.
    counts = [int((sweep.cells.experiment == name).sum()) for name in names]
    with style.drawing():
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
        style.settle(figure)
    return figure


def _draw(ax: Axes, sweep: MeasuredSweep, experiment: str) -> None:
    cells = sweep.cells[sweep.cells.experiment == experiment]
    for row, cell in enumerate(each(cells)):
        values = errors(sweep, experiment, cell.fingerprint)
        colour = style.INK if cell.unchanged else style.COLOURS[32]
        ax.plot(
            values,
            [row] * len(values),
            "o",
            color=colour,
            markersize=4,
            alpha=0.55,
            markeredgewidth=0,
        )
        if values:
            mean = summarise(values).mean
            ax.plot([mean, mean], [row - 0.3, row + 0.3], color=colour, linewidth=2)
            # Through the whole panel: every change is read against the row as it is.
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
