"""Exported weights in torchvision's and timm's networks: the same logits, or no offer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from pipeline.recipe.experiments import EXPERIMENTS, Experiment
from pipeline.recipe.other_libraries import Library, loading_lines, strides_differ
from pipeline.training.step.networks import ResNet
from pipeline.training.step.weights import weights_bytes
from tests.pipeline.training.step.test_foreign_weights import apart, inputs, unlike

CLASSES = 7


def row(name: str, **changes: Any) -> Experiment:
    return replace(EXPERIMENTS[name], **changes)


SAME = {
    "resnet18 B": row("resnet18", shortcut="B"),
    "resnet34 B": row("resnet34-b"),
    "resnet50 v1.5": row("resnet50", bottleneck_stride="3x3"),
    "resnet101 v1.5": row("resnet101", bottleneck_stride="3x3"),
    "resnet152 v1.5": row("resnet152", bottleneck_stride="3x3"),
    "resnet50 as the paper": row("resnet50"),
}


def made_by(lines: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)
    return names["network"]


@pytest.mark.parametrize("library", ["torchvision", "timm"])
@pytest.mark.parametrize("name", SAME)
def test_exported_weights_give_the_same_logits_elsewhere(
    name: str, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(library)
    experiment = SAME[name]
    ours = unlike(ResNet(experiment, CLASSES))
    (tmp_path / "weights.safetensors").write_bytes(
        weights_bytes(ours.state_dict(), experiment, CLASSES)
    )
    lines = loading_lines(experiment, CLASSES, library)
    theirs = made_by(lines, tmp_path, monkeypatch)
    scale = float(ours.double()(inputs(33).double()).detach().abs().max())
    assert apart(ours, theirs, inputs(33)) < 1e-12 * scale

    # Without the lines that set strides the paper's weights load too, and compute something else.
    assert strides_differ(experiment) == any("stride" in line for line in lines)
    if strides_differ(experiment):
        unset = [line for line in lines if "stride" not in line and "stage" not in line]
        assert apart(ours, made_by(unset, tmp_path, monkeypatch), inputs(33)) > 1e-3 * scale


@pytest.mark.parametrize(
    "experiment",
    [
        row("resnet20"),
        row("resnet20", shortcut="B"),
        row("resnet18"),
        row("plain34"),
        row("resnet34-a"),
        row("resnet34-c"),
        row("plain50"),
        row("resnet50", bottleneck_stride="3x3", bn_eps=1e-3),
        row("resnet34-b", norm="none"),
    ],
)
def test_what_no_library_computes_is_not_offered(experiment: Experiment) -> None:
    assert loading_lines(experiment, 1000) == []
    assert loading_lines(experiment, 1000, "timm") == []
