"""The layer lists against the exact numbers of the paper's Table 1, Figure 5 and Sec. 4.2."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn

from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.layers import Conv, layout
from pipeline.training.step.networks import ResNet

IMAGENET_PARAMS = {
    "plain18": 11_515_688, "resnet18": 11_515_688, "plain18-3x": 11_515_688,
    "plain34": 21_623_848, "resnet34-a": 21_623_848, "plain34-3x": 21_623_848,
    "resnet34-b": 21_797_672, "resnet34-c": 22_716_840,
    "resnet50": 25_557_032, "resnet101": 44_549_160, "resnet152": 60_192_808,
}  # fmt: skip
IMAGENET_GIGA = {
    "plain18": 1.795, "resnet18": 1.795, "plain34": 3.644, "resnet34-a": 3.644, "resnet34-b": 3.664,
    "resnet34-c": 3.831, "resnet50": 3.858, "resnet101": 7.570, "resnet152": 11.282,
}  # fmt: skip
CIFAR_PARAMS_A = {
    20: 269_722,
    32: 464_154,
    44: 658_586,
    56: 853_018,
    110: 1_727_962,
    1202: 19_421_274,
}
CIFAR_PARAMS_B = {
    20: 272_474,
    32: 466_906,
    44: 661_338,
    56: 855_770,
    110: 1_730_714,
    1202: 19_424_026,
}


@pytest.mark.parametrize("name", IMAGENET_PARAMS)
def test_imagenet_parameters(name: str) -> None:
    assert layout(EXPERIMENTS[name]).params == IMAGENET_PARAMS[name]


@pytest.mark.parametrize("name", IMAGENET_GIGA)
def test_imagenet_multiply_adds(name: str) -> None:
    assert round(layout(EXPERIMENTS[name]).multiply_adds / 1e9, 3) == IMAGENET_GIGA[name]


@pytest.mark.parametrize(
    ("name", "exact", "giga"),
    [
        ("resnet50", 4_089_184_256, 4.089),
        ("resnet101", 7_801_405_440, 7.801),
        ("resnet152", 11_513_626_624, 11.514),
    ],
)
def test_a_stride_in_the_3x3_costs_more_multiply_adds(name: str, exact: int, giga: float) -> None:
    v15 = layout(replace(EXPERIMENTS[name], bottleneck_stride="3x3"))
    assert (v15.multiply_adds, round(v15.multiply_adds / 1e9, 3)) == (exact, giga)
    assert v15.params == layout(EXPERIMENTS[name]).params


@pytest.mark.parametrize("depth", CIFAR_PARAMS_A)
def test_cifar_parameters_by_shortcut(depth: int) -> None:
    experiment = replace(EXPERIMENTS["resnet20"], depth=depth)
    assert layout(experiment).params == CIFAR_PARAMS_A[depth]
    assert layout(replace(experiment, shortcut="none")).params == CIFAR_PARAMS_A[depth]
    assert layout(replace(experiment, shortcut="B")).params == CIFAR_PARAMS_B[depth]


@pytest.mark.parametrize(
    ("depth", "millions"),
    [(20, 40.55), (32, 68.86), (44, 97.17), (56, 125.49), (110, 252.89), (1202, 2829.24)],
)
def test_cifar_multiply_adds(depth: int, millions: float) -> None:
    assert (
        round(layout(replace(EXPERIMENTS["resnet20"], depth=depth)).multiply_adds / 1e6, 2)
        == millions
    )


@pytest.mark.parametrize(
    ("depth", "printed"),
    [(20, "0.27"), (32, "0.46"), (44, "0.66"), (56, "0.85"), (110, "1.7"), (1202, "19.4")],
)
def test_parameters_round_to_what_table_6_prints(depth: int, printed: str) -> None:
    millions = layout(replace(EXPERIMENTS["resnet20"], depth=depth)).params / 1e6
    assert f"{millions:.{len(printed.partition('.')[2])}f}" == printed


def test_depth_is_the_number_in_the_name() -> None:
    for name, experiment in EXPERIMENTS.items():
        assert (
            layout(experiment).depth
            == experiment.depth
            == int(name.split("-")[0].lstrip("plainrest"))
        )


def test_plain_and_option_a_have_equal_cost() -> None:
    for plain, residual in [
        ("plain20", "resnet20"),
        ("plain110", "resnet110"),
        ("plain34", "resnet34-a"),
    ]:
        without, with_shortcuts = layout(EXPERIMENTS[plain]), layout(EXPERIMENTS[residual])
        assert (without.params, without.multiply_adds) == (
            with_shortcuts.params,
            with_shortcuts.multiply_adds,
        )


def test_option_b_has_three_projections_in_34_layers_and_option_c_thirteen_more() -> None:
    kinds = {
        o: Counter(b.shortcut for b in layout(EXPERIMENTS[f"resnet34-{o}"]).blocks) for o in "abc"
    }
    assert kinds["a"] == {"identity": 13, "pad": 3}
    assert kinds["b"] == {"identity": 13, "projection": 3}
    assert kinds["c"] == {"projection": 16}


def test_cifar_nets_have_3n_shortcuts_of_which_two_change_shape() -> None:
    for n, depth in [(3, 20), (18, 110), (200, 1202)]:
        kinds = Counter(
            b.shortcut for b in layout(replace(EXPERIMENTS["resnet20"], depth=depth)).blocks
        )
        assert kinds == {"identity": 3 * n - 2, "pad": 2}


def test_figure_5_blocks_cost_about_the_same() -> None:
    basic = layout(EXPERIMENTS["resnet34-a"]).blocks[1]
    bottleneck = layout(EXPERIMENTS["resnet50"]).blocks[1]
    assert sum(conv.multiply_adds for conv in basic.convs) == 73_728 * 56**2
    assert sum(conv.multiply_adds for conv in bottleneck.convs) == 69_632 * 56**2
    projected = layout(replace(EXPERIMENTS["resnet50"], shortcut="C")).blocks[1]
    assert sum(conv.multiply_adds for conv in projected.layers) == (69_632 + 65_536) * 56**2


def test_resnet101_has_91_convolutions_up_to_conv4() -> None:
    plan = layout(EXPERIMENTS["resnet101"])
    assert 1 + sum(len(block.convs) for stage in plan.stages[:3] for block in stage) == 91


@pytest.mark.parametrize(
    ("name", "sides"), [("resnet20", [32, 16, 8]), ("resnet50", [56, 28, 14, 7])]
)
def test_output_sizes_of_the_stages(name: str, sides: list[int]) -> None:
    plan = layout(EXPERIMENTS[name])
    assert [stage[-1].convs[-1].size_out for stage in plan.stages] == sides
    assert plan.stem.size_out == (32 if name == "resnet20" else 112)


def test_an_odd_side_is_halved_upwards() -> None:
    plan = layout(EXPERIMENTS["resnet20"], image_size=33)
    assert [stage[-1].convs[-1].size_out for stage in plan.stages] == [33, 17, 9]


@pytest.mark.parametrize(
    ("name", "changes", "size"),
    [
        *(
            (name, {}, 32)
            for name in ("plain20", "resnet20", "resnet32", "resnet44", "resnet56", "plain56")
        ),
        ("resnet20", dict(shortcut="C"), 32),
        ("resnet20", dict(shortcut="B"), 17),
        ("resnet20", dict(norm="none"), 32),
        ("resnet18", {}, 224),
        ("resnet50", {}, 224),
        ("resnet50", dict(bottleneck_stride="3x3"), 97),
    ],
)
def test_the_module_is_the_layer_list(name: str, changes: dict, size: int) -> None:
    experiment = replace(EXPERIMENTS[name], **changes)
    plan, network = layout(experiment, image_size=size), ResNet(experiment).eval()
    seen = {}

    def look(module: nn.Conv2d, inputs: tuple, output: torch.Tensor) -> None:
        seen[names[module]] = (
            tuple(module.weight.shape),
            module.stride,
            inputs[0].shape[-1],
            tuple(output.shape[1:]),
        )

    names = {
        module: name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)
    }
    for module in names:
        module.register_forward_hook(look)
    with torch.no_grad():
        network(torch.zeros(1, 3, size, size))
    assert seen == {
        conv.name: (
            (conv.channels_out, conv.channels_in, conv.kernel, conv.kernel),
            (conv.stride, conv.stride),
            conv.size_in,
            (conv.channels_out, conv.size_out, conv.size_out),
        )
        for conv in plan
        if isinstance(conv, Conv)
    }
    assert plan.params == sum(parameter.numel() for parameter in network.parameters())
