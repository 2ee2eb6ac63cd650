"""Table 1 (Sec. 3.4): the ImageNet networks stage by stage, from the layer lists that build them.

Nothing is measured here: what is compared with the paper are counts, which need no run.
"""

import pandas as pd

from analysis.paper import reported
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.layers import NetworkLayout, layout

TABLE_1 = {18: "resnet18", 34: "resnet34-a", 50: "resnet50", 101: "resnet101", 152: "resnet152"}
"""The experiment of each column, by depth."""


def table_1() -> pd.DataFrame:
    """Table 1 as text: a row per stage, a column per depth, and the counts below."""
    # Of every depth the same stem and the same four stages; only the blocks differ.
    plans = {depth: layout(EXPERIMENTS[name]) for depth, name in TABLE_1.items()}
    first = plans[18]
    rows = [
        {"stage": "conv1", "output": f"{first.stem.size_out}×{first.stem.size_out}"}
        | {
            f"{depth} layers": f"7×7, {plan.stem.channels_out}, stride {plan.stem.stride}"
            for depth, plan in plans.items()
        }
    ]
    # conv2_x to conv5_x; the pooling belongs to the first of them.
    for index in range(4):
        side = first.stages[index][-1].convs[-1].size_out
        pooled = "3×3 max pool, stride 2; " if not index else ""
        cells = {
            f"{depth} layers": pooled + stage_text(plan, index) for depth, plan in plans.items()
        }
        rows.append({"stage": f"conv{index + 2}_x", "output": f"{side}×{side}"} | cells)
    # Then the classifier, and the counts that the paper sums up in its last row.
    last = {
        f"{depth} layers": f"average pool, {plan.classifier.channels_out}-d fc, softmax"
        for depth, plan in plans.items()
    }
    rows.append({"stage": "", "output": "1×1"} | last)
    for name, text in (("multiply-adds", "{:.3f}e9"), ("parameters", "{:,}")):
        counts = {
            depth: plan.multiply_adds / 1e9 if name == "multiply-adds" else plan.params
            for depth, plan in plans.items()
        }
        rows.append(
            {"stage": name, "output": ""}
            | {f"{depth} layers": text.format(count) for depth, count in counts.items()}
        )
    paper = reported.multiply_adds()
    printed = {f"{depth} layers": paper[name] for depth, name in TABLE_1.items()}
    return pd.DataFrame([*rows, {"stage": "the paper's FLOPs", "output": ""} | printed])


def stage_text(plan: NetworkLayout, index: int) -> str:
    """The blocks of a stage as the paper prints them: `[3×3, 64; 3×3, 64] × 2`."""
    stage = plan.stages[index]
    # The last block stands for all: the first may halve the map, with the same kernels.
    convs = "; ".join(
        f"{conv.kernel}×{conv.kernel}, {conv.channels_out}" for conv in stage[-1].convs
    )
    return f"[{convs}] × {len(stage)}"
