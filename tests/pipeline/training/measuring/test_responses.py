"""Figure 7's numbers against a plain loop over the network, and which layers they are of."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.layers import layout, response_layers
from pipeline.training.feeding.image_batches import single_views
from pipeline.training.measuring.responses import norm_of, response_stds
from pipeline.training.step.networks import ResNet, build_network
from pipeline.training.step.process_group import single_process
from tests.pipeline.training.small_runs import digits_once, small_row

CPU = torch.device("cpu")


@pytest.mark.parametrize(("name", "count"), [("plain20", 19), ("resnet56", 55), ("resnet110", 109)])
def test_there_are_6n_plus_1_layers_and_no_projection(name: str, count: int) -> None:
    assert len(response_layers(layout(EXPERIMENTS[name]))) == count
    with_projections = replace(EXPERIMENTS[name], shortcut="B")
    assert response_layers(layout(with_projections)) == response_layers(layout(EXPERIMENTS[name]))


def test_a_bottleneck_has_one_layer_of_figure_7_a_block() -> None:
    layers = response_layers(layout(EXPERIMENTS["resnet50"]))
    assert len(layers) == 16 and all(name.endswith("conv2") for name in layers)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_stds_are_those_of_a_plain_forward_pass(norm: str) -> None:
    experiment, dataset = small_row(norm=norm), digits_once()
    network = build_network(experiment, 3)
    for module in network.modules():  # as if trained: no two layers alike
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 2.0)
            nn.init.normal_(module.bias)
    layers, images = (
        response_layers(layout(experiment)),
        single_views(experiment, dataset, dataset.test, CPU),
    )
    found = response_stds(network, layers, images, "fp32", single_process())
    expected = outputs(network, images.batch(0, len(images))[0])
    assert found == pytest.approx([float(out.std(correction=0)) for out in expected], rel=1e-5)
    assert len({round(std, 4) for std in found}) == len(layers) == 7


@torch.no_grad()
def outputs(network: ResNet, x: torch.Tensor) -> list[torch.Tensor]:
    """What Sec. 4.2 calls responses, by walking through the blocks."""
    network.eval()
    seen = [network.bn1(network.conv1(x))]
    x = seen[0].relu()
    for stage in (network.layer1, network.layer2, network.layer3):
        for block in stage:
            first = block.bn1(block.conv1(x))
            second = block.bn2(block.conv2(first.relu()))
            seen += [first, second]
            x = block.add_shortcut(second, x).relu()
    return seen


def test_measuring_leaves_no_hook_behind() -> None:
    experiment, dataset = small_row(), digits_once()
    network = build_network(experiment, 0)
    response_stds(
        network,
        ("conv1",),
        single_views(experiment, dataset, dataset.test, CPU),
        "fp32",
        single_process(),
    )
    assert not any(module._forward_hooks for module in network.modules())


def test_the_norm_of_a_convolution() -> None:
    assert [norm_of(name) for name in ("conv1", "layer2.0.conv2")] == ["bn1", "layer2.0.bn2"]
