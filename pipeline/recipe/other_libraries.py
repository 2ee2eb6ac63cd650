"""How exported weights are loaded into the networks of torchvision, timm and transformers.

Our names are torchvision's, so a file loads there without complaint as soon as shapes agree:
whether it computes the same is said here. All three have option B alone. torchvision and timm halve
the map in the 3x3 of a bottleneck, where the paper's Table 1 halves it in the first 1x1;
transformers can do either. Torch-free.
"""

import re
from collections.abc import Sequence
from typing import Any, Literal

from pipeline.recipe.experiments import Experiment
from pipeline.recipe.layers import layout

Library = Literal["torchvision", "timm"]
WeightsLayout = Literal["resnet-repro", "torchvision", "transformers"]
"""Of a folder of weights: our own, a `.pth` file for torchvision, or that of Hugging Face."""
EXPORTED = "model.safetensors"
"""The weights in a folder of an export, as Hugging Face calls them."""
WARPS_FROM = 384
"""Pixels: from this size on transformers' processor takes no central crop."""

BN_EPS = 1e-5
"""Of these libraries, as of our rows."""


def no_such_network(experiment: Experiment) -> str:
    """Why no library has a network that computes what the row's does; empty where they have one."""
    if experiment.family == "cifar":
        return "it is one of CIFAR's, with a 3x3 stem and three stages; theirs are ImageNet's"
    if experiment.shortcut != "B":
        option = {"none": "no shortcuts"}.get(experiment.shortcut, f"option {experiment.shortcut}")
        return f"it has {option}; theirs have option B"
    if experiment.norm != "batch" or experiment.bn_eps != BN_EPS:
        return f"it has no batch norm with an epsilon of {BN_EPS:g}, as theirs have"
    return ""


def layout_trouble(experiment: Experiment, layout: WeightsLayout) -> str:
    """Why a row's weights cannot be written in a layout; empty where they can."""
    if layout == "resnet-repro":
        return ""
    if why := no_such_network(experiment):
        return f"{layout} has no network that computes what {experiment.name} does: {why}"
    if layout == "transformers" and experiment.crop >= WARPS_FROM:
        return f"transformers takes no central crop of {experiment.crop} pixels"
    return ""


def loading_lines(
    experiment: Experiment,
    classes: int,
    library: Library = "torchvision",
    weights: str = "weights.safetensors",
) -> list[str]:
    """Python that makes a library's network of the file `weights`, with the same scores.

    Of a `.pth` file by torch's own reader. Empty where the library has no such network.
    """
    if no_such_network(experiment):
        return []
    name = f"resnet{experiment.depth}"
    made = {
        "torchvision": ["import torchvision", f"torchvision.models.{name}(num_classes={classes})"],
        "timm": ["import timm", f'timm.create_model("{name}", num_classes={classes})'],
    }[library]
    reader, read = "from safetensors.torch import load_file", f'load_file("{weights}")'
    if weights.endswith(".pth"):
        reader, read = "import torch", f'torch.load("{weights}", weights_only=True)'
    return [
        made[0],
        reader,
        "",
        f"network = {made[1]}",
        *(_strides() if strides_differ(experiment) else []),
        f"network.load_state_dict({read})",
        "network.eval()",
    ]


def strides_differ(experiment: Experiment) -> bool:
    """Whether the weights load into these libraries' networks, and compute something else there."""
    return experiment.block == "bottleneck" and experiment.bottleneck_stride == "1x1"


def transformers_name(name: str) -> str:
    """A tensor's name in transformers' `ResNetForImageClassification`, by torchvision's.

    As in `microsoft/resnet-18`: stages, layers of a stage and convolutions of a layer count from 0.
    """
    parts = name.split(".")
    rest = parts[-1]
    if parts[0] == "fc":
        return f"classifier.1.{rest}"
    if parts[0] in ("conv1", "bn1"):
        return f"resnet.embedder.embedder.{_KINDS[parts[0][:-1]]}.{rest}"
    layer = f"resnet.encoder.stages.{int(parts[0][-1]) - 1}.layers.{parts[1]}"
    if parts[2] == "downsample":
        return f"{layer}.shortcut.{_KINDS['conv' if parts[3] == '0' else 'bn']}.{rest}"
    return f"{layer}.layer.{int(parts[2][-1]) - 1}.{_KINDS[parts[2][:-1]]}.{rest}"


_KINDS = {"conv": "convolution", "bn": "normalization"}
_STEM = re.compile(r"resnet\.embedder\.embedder\.(convolution|normalization)\.(\w+)")
_LAYER = re.compile(
    r"resnet\.encoder\.stages\.(\d)\.layers\.(\d+)\.(?:layer\.(\d)|shortcut)"
    r"\.(convolution|normalization)\.(\w+)"
)
_CLASSIFIER = re.compile(r"classifier\.1\.(weight|bias)")


def torchvision_name(name: str) -> str | None:
    """The reverse of `transformers_name`; None for a name that transformers' networks have not."""
    kind = {longer: shorter for shorter, longer in _KINDS.items()}
    if match := _CLASSIFIER.fullmatch(name):
        return f"fc.{match[1]}"
    if match := _STEM.fullmatch(name):
        return f"{kind[match[1]]}1.{match[2]}"
    if match := _LAYER.fullmatch(name):
        stage, block, number, what, rest = match.groups()
        which = f"downsample.{int(what == 'normalization')}"
        if number is not None:
            which = f"{kind[what]}{int(number) + 1}"
        return f"layer{int(stage) + 1}.{block}.{which}.{rest}"
    return None


def transformers_config(experiment: Experiment, class_names: Sequence[str]) -> dict[str, Any]:
    """`config.json` of transformers for a row that it has a network for."""
    plan = layout(experiment, classes=len(class_names))
    labels = dict(enumerate(class_names))
    return {
        "architectures": ["ResNetForImageClassification"],
        "depths": [len(stage) for stage in plan.stages],
        # Where a bottleneck halves its map: the first 1x1, as the paper, or the 3x3.
        "downsample_in_bottleneck": strides_differ(experiment),
        "downsample_in_first_stage": False,
        "embedding_size": plan.stem.channels_out,
        "hidden_act": "relu",
        "hidden_sizes": [stage[-1].convs[-1].channels_out for stage in plan.stages],
        "id2label": {str(number): name for number, name in labels.items()},
        "label2id": {name: number for number, name in labels.items()},
        "layer_type": experiment.block,
        "model_type": "resnet",
        "num_channels": plan.stem.channels_in,
        "torch_dtype": "float32",
    }


def _strides() -> list[str]:
    return [
        "for stage in (network.layer2, network.layer3, network.layer4):",
        "    stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)",
    ]
