"""How exported weights are loaded into torchvision's and timm's networks (torch-free).

Names are torchvision's, so a file loads there without complaint as soon as shapes agree: whether it
computes the same is said here. Both have option B alone, and halve the map in the 3x3 of a
bottleneck, where the paper's Table 1 halves it in the first 1x1.
"""

from typing import Literal

from pipeline.recipe.experiments import Experiment

Library = Literal["torchvision", "timm"]

BN_EPS = 1e-5
"""Of both libraries, as of our rows."""


def loading_lines(
    experiment: Experiment, classes: int, library: Library = "torchvision"
) -> list[str]:
    """Python that makes a library's network of `weights.safetensors`, with the same scores.

    Empty where the library has no network that computes the same.
    """
    same = experiment.family == "imagenet" and experiment.shortcut == "B"
    if not same or experiment.norm != "batch" or experiment.bn_eps != BN_EPS:
        return []
    name = f"resnet{experiment.depth}"
    made = {
        "torchvision": ["import torchvision", f"torchvision.models.{name}(num_classes={classes})"],
        "timm": ["import timm", f'timm.create_model("{name}", num_classes={classes})'],
    }[library]
    return [
        made[0],
        "from safetensors.torch import load_file",
        "",
        f"network = {made[1]}",
        *(_strides() if strides_differ(experiment) else []),
        'network.load_state_dict(load_file("weights.safetensors"))',
        "network.eval()",
    ]


def strides_differ(experiment: Experiment) -> bool:
    """Whether the weights load into these libraries' networks, and compute something else there."""
    return experiment.block == "bottleneck" and experiment.bottleneck_stride == "1x1"


def _strides() -> list[str]:
    return [
        "for stage in (network.layer2, network.layer3, network.layer4):",
        "    stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)",
    ]
