"""Table 1 and Figures 2, 3 and 5 are the layer lists, and look the same each time."""

from xml.etree import ElementTree

from analysis.figures import style
from analysis.report import architectures
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.layers import layout


def test_table_1_as_in_the_paper():
    table = architectures.table_1().set_index("stage")
    assert table.output[:6].tolist() == ["112×112", "56×56", "28×28", "14×14", "7×7", "1×1"]
    assert table["34 layers"]["conv4_x"] == "[3×3, 256; 3×3, 256] × 6"
    assert table["152 layers"]["conv3_x"] == "[1×1, 128; 3×3, 128; 1×1, 512] × 8"
    assert (
        table["101 layers"]["conv2_x"] == "3×3 max pool, stride 2; [1×1, 64; 3×3, 64; 1×1, 256] × 3"
    )
    assert table.loc["multiply-adds"].tolist()[1:] == [
        "1.795e9",
        "3.644e9",
        "3.858e9",
        "7.570e9",
        "11.282e9",
    ]
    assert table.loc["the paper's FLOPs"].tolist()[1:] == [
        "1.8e9",
        "3.6e9",
        "3.8e9",
        "7.6e9",
        "11.3e9",
    ]


def test_figure_3_has_a_box_for_each_layer_and_a_shortcut_for_each_block():
    (ax,) = architectures.figure_3().axes
    words = [text.get_text() for text in ax.texts]
    plan = layout(EXPERIMENTS["resnet34-a"])
    convs = [layer for layer in plan if hasattr(layer, "kernel")]
    assert sum("conv," in word for word in words) == 2 * len(convs)
    arrows = [patch for patch in ax.patches if type(patch).__name__ == "FancyArrowPatch"]
    boxes = [patch for patch in ax.patches if type(patch).__name__ == "Rectangle"]
    assert len(boxes) == 2 * (len(convs) + 4) and len(arrows) == len(boxes) - 2 + len(plan.blocks)
    dotted = [arrow for arrow in arrows if not isinstance(arrow.get_linestyle(), str)]
    assert len(dotted) == 3  # where the channels grow


def test_the_pictures_are_the_same_bytes_each_time_and_valid():
    first, second = architectures.architecture_files(), architectures.architecture_files()
    assert first == second
    for name in ("figure_2.svg", "figure_3.svg", "figure_5.svg"):
        ElementTree.fromstring(first[name])
    assert {f"figure_{n}.{kind}" for n in (2, 3, 5) for kind in style.KINDS} <= first.keys()
