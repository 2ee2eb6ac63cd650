"""Captions of Figures 1, 6 and 7 and of the signals: what is shown, what is missing, and why."""

from analysis.figures import signals
from analysis.figures.figure_7 import SHOWN, response_curve, rows_shown
from analysis.figures.figures_1_and_6 import (
    FIGURE_1,
    FIGURE_6,
    PAPER_LIMIT,
    CurvePanel,
    hidden,
    iterations,
    lines,
    panels_of_figure_6,
    y_limit,
)
from analysis.paper.reported import PAPER_ITERATIONS
from analysis.studies.curves import curve
from analysis.studies.studies import Study
from pipeline.recipe.metrics import FORWARD_VARIANCE, TEST_ERR

RUNNING = "Training error is of the last 25 mini-batches, augmented, while training goes on."
"""What the curves show; claims go by the whole training set after the last iteration."""

_SHOWN_IN = {
    "fig6_left": "plain networks",
    "fig6_middle": "residual networks",
    "fig6_right": "residual networks with 110 and 1202 layers",
}
"""What each panel of Figure 6 is about."""


def caption_1(study: Study) -> str:
    """The caption of Figure 1 for a study."""
    what = (
        f"Training error (left) and test error (right) on {study.dataset_title}: plain networks "
        f"of 20 and 56 layers. {RUNNING}"
    )
    return " ".join([what, *_remarks(study, FIGURE_1)])


def caption_6(study: Study) -> str:
    """The caption of Figure 6 for a study."""
    panels = panels_of_figure_6(study)
    places = {1: ("Shown",), 2: ("Left", "Right"), 3: ("Left", "Middle", "Right")}[len(panels)]
    what = (
        f"Training on {study.dataset_title}. Dashed lines denote training error, and bold lines "
        f"denote test error. {RUNNING}"
    )
    where = [
        f"{place}: {_SHOWN_IN[panel.paper_panel]}."
        for place, panel in zip(places, panels, strict=True)
    ]
    # Panels without a curve are left out, but their rows are still absent.
    return " ".join([what, *where, *_remarks(study, FIGURE_6)])


def caption_7(study: Study) -> str:
    """The caption of Figure 7 for a study."""
    what = (
        f"Standard deviations of layer responses on {study.dataset_title}: outputs of each 3x3 "
        "layer, after batch norm and "
        "before the nonlinearity. Top: layers in their original order. Bottom: sorted in "
        "descending order. "
        "Taken over all test images, channels and places, with running statistics, at the end of "
        "training (the paper does "
        "not say over what)."
    )
    # What is missing is said, with why: an absent curve must not look like one that was left out.
    absent = [name for name in SHOWN if name not in rows_shown(study)]
    counts = {int(response_curve(study, name, "top").n.iloc[0]) for name in rows_shown(study)}
    seeds = (
        "Lines are means over seeds, bands run from the lowest to the highest."
        if max(counts, default=1) > 1
        else ""
    )
    without = f"Absent, for want of a finished run: {_listed(absent)}." if absent else ""
    paper = "Faint lines: the paper's own, digitised." if study.comparable else ""
    return " ".join(text for text in (what, seeds, paper, without) if text)


def caption_signals(study: Study) -> str:
    """The caption of the figure of signals for a study."""
    what = (
        "From the paper's text and references, not one of its figures. How signals travel through "
        "56 layers on "
        f"{study.dataset_title}. Top: variance of each layer's response, as in Figure 7, to a "
        "training mini-batch. Bottom: "
        "norm of the loss's gradient by each layer's weights. Before the first step and after the "
        "last; values below 1e-20 "
        "are drawn there, what overflowed at 1e8."
    )
    shown = signals.rows_shown(study)
    counts = {
        int(signals.signal_curve(study, name, FORWARD_VARIANCE, False).n.iloc[0]) for name in shown
    }
    seeds = (
        "Lines are means over seeds, bands from the lowest to the highest."
        if max(counts, default=1) > 1
        else ""
    )
    absent = [name for name in signals.SHOWN if name not in shown]
    without = f"Absent, for want of a run: {_listed(absent)}." if absent else ""
    return " ".join(text for text in (what, seeds, signals.outcomes(study), without) if text)


def _remarks(study: Study, panels: tuple[CurvePanel, ...]) -> list[str]:
    remarks = (_seeds(study, panels), _paper(study), _absent(study, panels), _axes(study, panels))
    return [text for text in remarks if text]


def _seeds(study: Study, panels: tuple[CurvePanel, ...]) -> str:
    """How many runs each curve is the mean of."""
    counts = {
        line.experiment: int(line.points.n.iloc[0])
        for panel in panels
        for line in lines(study, panel)
    }
    if not counts:
        return ""
    # With one seed each there are no bands, and the sentence about them would mislead.
    if set(counts.values()) == {1}:
        return "Each curve is a single run."
    # Rows may have different numbers of seeds: a number is named only if it is true of all.
    numbers = set(counts.values()) - {1}
    how_many = f"{numbers.pop()} seeds" if len(numbers) == 1 else "the finished seeds"
    single = [name for name, count in counts.items() if count == 1]
    but = f", but one run for {_listed(single)}" if single else ""
    return f"Lines are the mean over {how_many} and bands run from the lowest to the highest{but}."


def _paper(study: Study) -> str:
    return (
        "Faint lines: the paper's own curves, digitised; it had one run of each."
        if study.comparable
        else ""
    )


def _absent(study: Study, panels: tuple[CurvePanel, ...]) -> str:
    # Left out as the paper does it is something else than not run.
    left_out = dict.fromkeys(name for panel in panels for name in hidden(study, panel))
    rows = dict.fromkeys(name for panel in panels for name in panel.experiments)
    absent = [name for name in rows if name not in left_out and curve(study, name, TEST_ERR).empty]
    sentences = [f"Absent, for want of a finished run: {_listed(absent)}."] if absent else []
    for name in left_out:
        final = curve(study, name, TEST_ERR)["mean"].iloc[-1]
        sentences.append(
            f"The error of {name} ({final:.1f} %) is higher than 60 % and not displayed, as in the "
            "paper."
        )
    return " ".join(sentences)


def _axes(study: Study, panels: tuple[CurvePanel, ...]) -> str:
    """Where the limits differ from the paper's 64,000 iterations and 20 %."""
    differs = []
    # Named only where they differ: a caption that always says so is not read.
    if iterations(study) != PAPER_ITERATIONS:
        differs.append(
            f"the x-axis ends at {iterations(study):,} iterations instead of {PAPER_ITERATIONS:,}"
        )
    if (limit := y_limit(study, panels)) != PAPER_LIMIT:
        differs.append(f"the y-axis ends at {limit:g} % instead of {PAPER_LIMIT:g} %")
    return f"The axes are not the paper's: {' and '.join(differs)}." if differs else ""


def _listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else names[0]
