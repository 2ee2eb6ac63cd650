"""Networks against torchvision's, shortcuts and statistics by hand, and initialisations by their
deviations.
"""

from dataclasses import replace
from math import sqrt

import pytest
import torch
import torchvision
from torch import nn

from pipeline.recipe.experiments import EXPERIMENTS, Experiment
from pipeline.recipe.layers import layout
from pipeline.training.step.networks import Block, GroupBatchNorm2d, ResNet, build_network

V15 = {
    18: replace(EXPERIMENTS["resnet18"], shortcut="B"),
    34: EXPERIMENTS["resnet34-b"],
    50: replace(EXPERIMENTS["resnet50"], bottleneck_stride="3x3"),
    101: replace(EXPERIMENTS["resnet101"], bottleneck_stride="3x3"),
    152: replace(EXPERIMENTS["resnet152"], bottleneck_stride="3x3"),
}


@pytest.mark.parametrize("depth", V15)
def test_outputs_are_torchvisions_to_the_bit(depth: int) -> None:
    torch.manual_seed(depth)
    theirs = getattr(torchvision.models, f"resnet{depth}")().eval()
    mine = ResNet(V15[depth]).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    mine.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(mine(x), theirs(x))


def test_the_papers_resnet50_is_not_torchvisions() -> None:
    theirs, mine = torchvision.models.resnet50().eval(), ResNet(EXPERIMENTS["resnet50"]).eval()
    mine.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.allclose(mine(x), theirs(x))


@pytest.mark.parametrize("side", [8, 7])
def test_option_a_takes_every_second_pixel_and_appends_zero_channels(side: int) -> None:
    block = Block(layout(EXPERIMENTS["resnet20"]).stages[1][0], 1e-5)
    x = torch.arange(2 * 16 * side * side, dtype=torch.float32).reshape(2, 16, side, side)
    half = (side + 1) // 2
    added = block.add_shortcut(torch.zeros(2, 32, half, half), x)
    for n, c, i, j in [(0, 0, 0, 0), (0, 3, 1, 2), (1, 15, half - 1, half - 1)]:
        assert added[n, c, i, j] == x[n, c, 2 * i, 2 * j]
    assert torch.equal(added[:, :16], x[:, :, ::2, ::2])
    assert not added[:, 16:].any()


def test_a_plain_block_adds_nothing() -> None:
    block = Block(layout(EXPERIMENTS["plain20"]).stages[0][0], 1e-5)
    out = torch.randn(1, 16, 4, 4)
    assert torch.equal(block.add_shortcut(out, torch.ones(1, 16, 4, 4)), out)


def test_relu_comes_after_the_addition() -> None:
    """With all weights zero the residual is zero: a block is the ReLU of its input (Figure 2)."""
    block = Block(layout(EXPERIMENTS["resnet20"]).stages[0][1], 1e-5).eval()
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(block(x), x.clamp(min=0))


def wide(initialisation: str) -> Experiment:
    return replace(EXPERIMENTS["resnet34-b"], initialisation=initialisation)


@pytest.mark.parametrize(
    ("initialisation", "strided_conv", "classifier"),
    [
        ("he_fan_in", sqrt(2 / (9 * 256)), sqrt(2 / 512)),
        ("he_fan_out", sqrt(2 / (9 * 512)), sqrt(2 / 1000)),
        ("xavier", sqrt(2 / (9 * (256 + 512))), sqrt(2 / 1512)),
        ("gaussian_0.01", 0.01, 0.01),
    ],
)
def test_deviation_of_initial_weights(
    initialisation: str, strided_conv: float, classifier: float
) -> None:
    network = build_network(wide(initialisation), seed=0)
    weight = network.get_submodule("layer4.0.conv1").weight
    assert weight.std().item() == pytest.approx(strided_conv, rel=0.01)
    assert abs(weight.mean().item()) < 0.01 * strided_conv
    assert network.fc.weight.std().item() == pytest.approx(classifier, rel=0.01)


def test_biases_start_at_zero_and_norms_at_the_identity() -> None:
    for name, parameter in build_network(EXPERIMENTS["resnet20"], 0).named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif "bn" in name:
            assert (parameter == 1).all()


def test_initial_weights_are_a_function_of_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = build_network(EXPERIMENTS["resnet20"], 5).state_dict()
    torch.rand(7)
    again, other = (build_network(EXPERIMENTS["resnet20"], seed).state_dict() for seed in (5, 6))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_without_norm_convolutions_have_a_bias() -> None:
    network = ResNet(replace(EXPERIMENTS["resnet20"], norm="none"))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert all(m.bias is not None for m in network.modules() if isinstance(m, nn.Conv2d))
    assert all(
        m.bias is None
        for m in ResNet(EXPERIMENTS["resnet20"]).modules()
        if isinstance(m, nn.Conv2d)
    )


def test_group_norm_is_batch_norm_that_leaves_running_statistics_alone() -> None:
    mine, theirs = GroupBatchNorm2d(3, eps=1e-5), nn.BatchNorm2d(3)
    x = torch.randn(5, 3, 7, 3) * 4 + 2
    assert torch.equal(mine(x), theirs(x))
    assert not mine.running_mean.any()
    assert (mine.running_var == 1).all()
    torch.testing.assert_close(mine.group_mean, x.mean((0, 2, 3)))
    torch.testing.assert_close(mine.group_var, x.var((0, 2, 3), unbiased=True))
    assert set(mine.state_dict()) == set(theirs.state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_norm_of_several_groups_is_that_of_each(
    memory_format: torch.memory_format, dtype: torch.dtype
) -> None:
    each, several = GroupBatchNorm2d(3, eps=1e-5), GroupBatchNorm2d(3, eps=1e-5)
    several.group_size = 4
    x = torch.randn(12, 3, 7, 5).mul(3).to(dtype).contiguous(memory_format=memory_format)
    alone, means, variances = [], [], []
    for group in x.split(4):
        alone.append(each(group))
        means.append(each.group_mean.clone())
        variances.append(each.group_var.clone())
    together = several(x)
    assert torch.equal(together, torch.cat(alone))
    assert together.dtype == dtype and together.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(several.group_mean, torch.stack(means).mean(0))
    torch.testing.assert_close(several.group_var, torch.stack(variances).mean(0))


def test_a_trained_norm_is_tested_with_running_statistics() -> None:
    norm = GroupBatchNorm2d(2, eps=0.0).eval()
    norm.running_mean.copy_(torch.tensor([1.0, -1.0]))
    norm.running_var.copy_(torch.tensor([4.0, 0.25]))
    assert norm(torch.full((1, 2, 1, 1), 3.0)).flatten().tolist() == [1.0, 8.0]
