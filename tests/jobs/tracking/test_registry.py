"""The card of a registered model says how it is loaded elsewhere, or that it cannot be."""

from dataclasses import replace

import pytest

from pipeline.recipe.experiments import EXPERIMENTS, Experiment
from pipeline.recipe.metrics import TEST_ERR, TRAIN_CLEAN_ERR, protocol_err
from pipeline.runs.model_card import model_card
from pipeline.runs.run import Run

RESNET50 = EXPERIMENTS["resnet50"]
SAME = "torchvision and timm have the same network:"


@pytest.mark.parametrize(
    ("experiment", "says", "says_not"),
    [
        (EXPERIMENTS["resnet20"], "have no network that computes the same", "load_state_dict"),
        (EXPERIMENTS["resnet34-b"], SAME, ".stride"),
        (replace(RESNET50, bottleneck_stride="3x3"), SAME, ".stride"),
        (RESNET50, "They load there as they are, and compute something else", SAME),
    ],
)
def test_a_card_offers_no_network_that_computes_something_else(
    experiment: Experiment, says: str, says_not: str
) -> None:
    data = {"name": "imagenet", "side": None, "classes": 1000, "comparable": True}
    final = {TEST_ERR: 25.0, TRAIN_CLEAN_ERR: 20.0}
    final |= {protocol_err(name, top): 25.0 for name in experiment.protocols for top in (1, 5)}
    result = {"final": final, "attempts": [{}], "iterations": 600_000}
    run = Run(experiment, "1" * 16, "imagenet-1", 0)
    text = model_card(run, {"row": data, "test_images": 50_000}, result)
    assert says in text and says_not not in text
    offered = "load_state_dict" in text
    assert offered == ("`import timm` and `network = timm.create_model(" in text)
    # What loads and computes something else has the strides of each stage set.
    assert ("stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)" in text) == (
        experiment == RESNET50
    )
