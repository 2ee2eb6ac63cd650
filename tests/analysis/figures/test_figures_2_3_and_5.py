"""Figures 2, 3 and 5 are the layer lists, drawn."""

from analysis.figures.figures_2_3_and_5 import figure_3
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.layers import layout


def test_figure_3_has_a_box_for_each_layer_and_a_shortcut_for_each_block():
    (ax,) = figure_3().axes
    words = [text.get_text() for text in ax.texts]
    plan = layout(EXPERIMENTS["resnet34-a"])
    convs = [layer for layer in plan if hasattr(layer, "kernel")]
    assert sum("conv," in word for word in words) == 2 * len(convs)
    arrows = [patch for patch in ax.patches if type(patch).__name__ == "FancyArrowPatch"]
    boxes = [patch for patch in ax.patches if type(patch).__name__ == "Rectangle"]
    assert len(boxes) == 2 * (len(convs) + 4) and len(arrows) == len(boxes) - 2 + len(plan.blocks)
    dotted = [arrow for arrow in arrows if not isinstance(arrow.get_linestyle(), str)]
    assert len(dotted) == 3  # where the channels grow
