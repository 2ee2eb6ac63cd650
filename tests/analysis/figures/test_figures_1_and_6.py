"""Figures 1 and 6: curves are the runs, axes the paper's, captions say what differs."""

from itertools import pairwise
from math import inf

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from analysis.figures import captions, figures_1_and_6, signals, style
from analysis.figures.curve_axes import spread
from analysis.measured.frames import check
from analysis.paper import reported
from analysis.studies.curves import curve
from analysis.studies.studies import split_studies
from pipeline.recipe.metrics import TEST_ERR

PLAIN = {"plain20": [9.0, 10.0], "plain56": [13.0, 13.5]}
TRAIN = {"plain20": [1.0, 2.0], "plain56": [5.0, 6.0]}
DIGITS = {
    "dataset": "digits",
    "comparable": False,
    "iterations": 800,
    "overrides": {"iterations": 800},
}


def study_of(frames):
    (study,) = split_studies(check(*frames))
    return study


def data_lines(ax, label_width=2):
    """The drawn curves: more than the two points of a label's pointer."""
    return [line for line in ax.lines if len(line.get_xdata()) > label_width]


def test_curve_is_mean_and_range_over_seeds(build):
    shown = curve(study_of(build(PLAIN)), "plain20", TEST_ERR)
    assert shown.iteration.tolist() == [8_000 * i for i in range(1, 9)]
    last = shown.iloc[-1]
    assert (last["mean"], last.low, last.high, last.n) == (9.5, 9.0, 10.0, 2)
    assert shown["mean"].iloc[0] == 16.5


def test_curve_leaves_out_what_did_not_finish_and_points_that_one_run_lacks(build):
    runs, metrics = build({"plain20": [9.0, 10.0, 50.0]})
    runs.loc[2, "status"] = "FAILED"
    metrics = metrics[~((metrics.run_id == runs.run_id[0]) & (metrics.iteration == 8_000))]
    shown = curve(study_of((runs, metrics)), "plain20", TEST_ERR)
    assert shown.iteration.min() == 16_000
    assert shown.high.max() < 20


def test_figure_1_has_the_papers_axes_and_curves(build):
    figure = figures_1_and_6.figure_1(study_of(build(PLAIN, train=TRAIN)))
    left, right = figure.axes
    assert left.get_ylabel() == "training error (%)"
    assert right.get_ylabel() == "test error (%)"
    for ax in (left, right):
        assert ax.get_xlim() == (0, 64_000)
        assert ax.get_ylim() == (0, 20)
        assert ax.get_xlabel() == "iter. (1e4)"
        assert sorted(text.get_text() for text in ax.texts) == ["20-layer", "56-layer"]
        assert len(data_lines(ax)) == 4  # two measured, two of the paper
    measured = [line for line in data_lines(right) if line.get_alpha() is None]
    assert {line.get_color(): line.get_ydata()[-1] for line in measured} == {
        style.COLOURS[20]: 9.5,
        style.COLOURS[56]: 13.25,
    }


def test_figure_6_marks_training_dashed_and_test_bold(build):
    frames = build(
        {"resnet20": [8.7], "resnet110": [6.5]}, train={"resnet20": [0.7], "resnet110": [0.1]}
    )
    # No plain network was run, so its panel is left out.
    middle, right = figures_1_and_6.figure_6(study_of(frames)).axes
    assert right.get_xlim() == (35_000, 64_000)
    assert right.get_yticks().tolist() == [0, 1, 5, 10, 20]
    measured = [line for line in data_lines(middle) if line.get_alpha() is None]
    assert sorted((line.is_dashed(), line.get_linewidth() > 1.5) for line in measured) == [
        (False, True),
        (False, True),
        (True, False),
        (True, False),
    ]
    assert {line.get_color() for line in measured} == {style.COLOURS[20], style.COLOURS[110]}


def test_the_papers_curves_are_only_drawn_where_they_compare(build):
    figure = figures_1_and_6.figure_1(study_of(build(PLAIN, train=TRAIN, **DIGITS)))
    assert all(len(data_lines(ax)) == 2 for ax in figure.axes)
    assert "digitised" not in captions.caption_1(study_of(build(PLAIN, **DIGITS)))


def test_axes_grow_with_the_data_and_the_caption_says_so(build):
    study = study_of(build({"plain20": [35.0], "plain56": [41.0]}, **DIGITS))
    for ax in figures_1_and_6.figure_1(study).axes:
        assert ax.get_xlim() == (0, 800)
        assert ax.get_ylim() == (0, 60)
        assert ax.get_xlabel() == "iter."
    caption = captions.caption_1(study)
    assert "the x-axis ends at 800 iterations instead of 64,000" in caption
    assert "the y-axis ends at 60 % instead of 20 %" in caption
    assert "axes are not the paper's" not in captions.caption_1(study_of(build(PLAIN)))


def test_captions_name_seeds_and_absent_rows(build):
    study = study_of(build({"plain20": [9.7], "resnet20": [8.7, 8.8]}))
    assert len(figures_1_and_6.figure_6(study).axes) == 2
    caption = captions.caption_6(study)
    assert "Left: plain networks. Right: residual networks." in caption
    assert "mean over 2 seeds" in caption
    assert "one run for plain20" in caption
    assert (
        "Absent, for want of a finished run: plain32, plain44, plain56, plain110, resnet32"
        in caption
    )


@pytest.mark.parametrize(("error", "displayed"), [(90.0, False), (15.0, True)])
def test_plain_110_is_hidden_only_above_60_percent(build, error, displayed):
    study = study_of(build({"plain20": [9.7], "plain110": [error]}))
    left = figures_1_and_6.figure_6(study).axes[0]
    assert ("plain-110" in {text.get_text() for text in left.texts}) == displayed
    assert ("higher than 60 % and not displayed" in captions.caption_6(study)) != displayed
    assert left.get_ylim() == (0, 20)


@pytest.mark.parametrize(
    ("heights", "top"),
    [
        ([6.5, 6.9, 7.1, 7.5, 8.7], 20.0),
        ([0.0, 0.0, 0.1], 20.0),
        ([19.9, 20.0, 20.0], 20.0),
        ([5.0], 20.0),
        ([], 20.0),
    ],
)
def test_labels_are_apart_in_order_and_inside(heights, top):
    label_heights = spread(heights, gap=1.2, top=top)
    assert len(label_heights) == len(heights)
    assert all(high - low > 1.2 - 1e-6 for low, high in pairwise(label_heights))
    assert all(-1e-6 <= place <= top + 1e-6 for place in label_heights)


def test_labels_that_are_apart_stay_where_they_are():
    assert spread([1.0, 5.0, 9.0], gap=1.2, top=20.0) == [1.0, 5.0, 9.0]


@pytest.mark.parametrize("draw", [figures_1_and_6.figure_1, figures_1_and_6.figure_6])
def test_images_are_the_same_bytes_each_time(build, draw):
    study = study_of(build(PLAIN, train=TRAIN))
    for kind in ("svg", "png"):
        assert style.image(draw(study), kind) == style.image(draw(study), kind)
    assert b"<dc:date>" not in style.image(draw(study), "svg")


def test_colours_are_one_per_depth_of_the_paper():
    depths = {int("".join(filter(str.isdigit, name))) for name in reported.curves().experiment}
    assert depths == set(style.COLOURS)
    assert len(set(style.COLOURS.values())) == len(depths)
    assert max(style.COLOURS) < inf


DICHROMACY = {
    "red-blind": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "green-blind": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}
"""Machado, Oliveira and Fernandes (2009), severity 1: linear RGB as such eyes see it."""


def lightness(colour, seen=None):
    """CIE L* (0 to 100), of the colour itself or as it is `seen`."""
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    linear = linear if seen is None else np.clip(np.array(seen) @ linear, 0, 1)
    return 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16


@pytest.mark.parametrize("seen", [None, *DICHROMACY.values()], ids=["grey", *DICHROMACY])
def test_curves_that_share_axes_stay_apart_in_grey_and_for_colour_blind_eyes(seen):
    by_depth = [lightness(style.COLOURS[depth], seen) for depth in (20, 32, 44, 56, 110)]
    by_start = sorted(lightness(colour, seen) for colour in signals.COLOURS.values())
    assert all(shallow - deep > 4 for shallow, deep in pairwise(by_depth))
    assert lightness(style.COLOURS[1202], seen) - by_depth[-1] > 40
    assert all(light - dark > 10 for dark, light in pairwise(by_start))
