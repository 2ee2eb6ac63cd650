"""Other people's weights in the names and the arrangement of this project's networks.

Names are torchvision's or those of transformers; training scripts put prefixes before them, and
some call the classifier and the shortcuts otherwise. Option A has no weights, so a file cannot say
where its zero channels are: here they come last (Sec. 3.3), the best-known CIFAR networks have half
of them on either side. Both are the same network in another order of channels, and loading brings
them into ours.
"""

import re
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from pipeline.errors import InputError
from pipeline.recipe.experiments import Experiment
from pipeline.recipe.layers import Padding, layout
from pipeline.recipe.other_libraries import torchvision_name
from pipeline.training.step.networks import ResNet
from pipeline.training.step.weights import (
    HEADER,
    check_weights,
    read_tensors,
    stated_architecture,
)
from pipeline.training.step.weights_files import WeightsFile, read_file

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.", "encoder.")
"""Of DataParallel, `torch.compile`, Lightning and of networks within others."""
CLASSIFIER = re.compile(r"(linear|classifier|last_linear|head\.fc|head)\.(weight|bias)")
SHORTCUT = re.compile(r"(layer\d+\.\d+)\.shortcut\.")
LINEAR = "linear is taken for fc"
"""The best-known CIFAR networks call their classifier so, and with it those made of them."""
BESIDE = re.compile(r"(.*\.)?(n_averaged|total_ops|total_params)")
"""Counts of averaging and profiling tools, which stand among the weights and compute nothing."""


def read_weights(
    file: Path, where: str, experiment: Experiment, padding: Padding | None = None
) -> tuple[bytes, list[str]]:
    """A file's weights for the row's network, as safetensors, and what was made of them in lines.

    `where` names the file in messages. `padding` is how the file's network pads in option A; None
    takes it from the name of the classifier.

    Raises:
        InputError: it is no file of weights, or for another network, or a number in it is NaN or
            infinite.
    """
    return _fitted(read_file(file, where), where, experiment, padding)


def read_weights_bytes(content: bytes, where: str, experiment: Experiment, classes: int) -> bytes:
    """`read_weights` of a safetensors file's bytes, for a network of so many classes.

    Raises:
        InputError: as `read_weights`.
    """
    tensors, header = read_tensors(content, where)
    return _fitted(WeightsFile(tensors, [], header, content), where, experiment, None, classes)[0]


def _fitted(
    found: WeightsFile,
    where: str,
    experiment: Experiment,
    padding: Padding | None,
    classes: int | None = None,
) -> tuple[bytes, list[str]]:
    """What `read_weights` returns, of tensors, which say how many classes if nobody else does."""
    metadata = None
    if stated_architecture(found.header):
        if padding is not None:
            raise InputError(f"{where}: says itself what network it is for; leave --padding out")
        # An export in transformers' layout is a file of ours too, under its names.
        metadata = {HEADER: found.header[HEADER]}
        tensors = {torchvision_name(name) or name: each for name, each in found.tensors.items()}
        notes: list[str] = []
    else:
        tensors, renamed = _renamed(found.tensors, where)
        notes = found.notes + renamed

    # Names, shapes and types are checked before channels change places; `meta` takes no memory.
    fc = tensors.get("fc.weight")
    if classes is None and fc is not None and fc.ndim == 2:
        classes = fc.shape[0]
    with torch.device("meta"):
        network = ResNet(experiment, classes)
    classes = network.fc.out_features
    check_weights(network, experiment, classes, tensors, found.header, where)
    _refuse_not_finite(tensors, where)

    if not stated_architecture(found.header) and experiment.shortcut in ("none", "A"):
        if padding is None:
            padding = "both" if LINEAR in notes else "after"
        if experiment.shortcut == "A" and padding == "both":
            tensors = _zeros_last(tensors, experiment)
        notes.append(_unsaid(experiment, padding))
    if found.safetensors is not None and not notes and tensors.keys() == found.tensors.keys():
        return found.safetensors, []
    return save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata), notes


def _renamed(tensors: dict[str, Tensor], where: str) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors by torchvision's names and in float32, and what was changed, in lines.

    Raises:
        InputError: two of them come to have one name, or no name is a network's.
    """
    renamed: dict[str, Tensor] = {}
    changes: list[str] = []
    for name, tensor in tensors.items():
        new = name
        while prefix := next((prefix for prefix in PREFIXES if new.startswith(prefix)), None):
            new = new.removeprefix(prefix)
            changes.append(f'"{prefix}" was stripped from names')
        if match := BESIDE.fullmatch(new):
            changes.append(f"{match[2]} was left out: it counts, and computes nothing")
            continue
        if named := torchvision_name(new):
            changes.append("names of transformers were made torchvision's")
            new = named
        if match := CLASSIFIER.fullmatch(new):
            changes.append(f"{match[1]} is taken for fc")
            new = f"fc.{match[2]}"
        if match := SHORTCUT.match(new):
            changes.append("shortcut is taken for downsample")
            new = f"{match[1]}.downsample.{new[match.end() :]}"
        if tensor.dtype in (torch.float16, torch.bfloat16, torch.float64):
            changes.append(f"{str(tensor.dtype).removeprefix('torch.')} was made float32")
            tensor = tensor.float()
        if new in renamed:
            raise InputError(
                f"{where}: {name[:100]} is not the only tensor for {new[:100]}; save one network's "
                "state_dict() by itself"
            )
        renamed[new] = tensor
    if "conv1.weight" not in renamed:
        names = ", ".join(name[:50] for name in list(tensors)[:3])
        raise InputError(
            f"{where}: its tensors are named {names}, neither as torchvision's (conv1.weight, "
            "layer1.0.conv1.weight, fc.weight) nor as those of transformers"
        )
    for name in [name for name in renamed if name.endswith(".running_mean")]:
        counter = name.removesuffix("running_mean") + "num_batches_tracked"
        if counter not in renamed:
            changes.append("num_batches_tracked was missing, and counts nothing in a test")
            renamed[counter] = torch.tensor(0)
    return renamed, list(dict.fromkeys(changes))


def _refuse_not_finite(tensors: dict[str, Tensor], where: str) -> None:
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise InputError(
                f"{where}: {name[:100]} holds NaN or infinite numbers; the run that made these "
                "weights diverged, or the file is damaged"
            )


def _zeros_last(tensors: dict[str, Tensor], experiment: Experiment) -> dict[str, Tensor]:
    """The weights of a network that pads both sides, with its channels in our order.

    Exact but for the order in which a convolution sums its channels. `tensors` have been checked.
    """
    tensors = dict(tensors)
    plan = layout(experiment)

    def reorder(name: str, dimension: int) -> None:
        tensors[name] = tensors[name].index_select(dimension, torch.tensor(order))

    # Which channel of theirs is each of ours, from the stem on: along the shortcuts, the channels
    # of a block's input and of its output are in one order. Within a block it stays theirs.
    order = list(range(plan.stem.channels_out))
    for block in plan.blocks:
        first, last = block.convs[0], block.convs[-1]
        reorder(f"{first.name}.weight", 1)
        if block.shortcut == "pad":
            # Where they have zeros come ours, behind: theirs begin at the half of them.
            left = (last.channels_out - first.channels_in) // 2
            middle = [left + channel for channel in order]
            order = middle + sorted(set(range(last.channels_out)) - set(middle))
        norm = last.name.replace("conv", "bn")
        for name in (f"{last.name}.{part}" for part in ("weight", "bias")):
            if name in tensors:
                reorder(name, 0)
        for part in ("weight", "bias", "running_mean", "running_var"):
            if f"{norm}.{part}" in tensors:
                reorder(f"{norm}.{part}", 0)
    reorder("fc.weight", 1)
    return tensors


def _unsaid(experiment: Experiment, padding: Padding) -> str:
    """What a file does not say whose network has no weights in its shortcuts, and how it was read.

    Readers compare the error that it gives with the one they know.
    """
    if experiment.shortcut == "none":
        return f"the file cannot tell plain from option A; read as plain, as {experiment.name} is"
    where = {
        "after": "its zero channels after the others (--padding both if they are on both sides)",
        "both": "its zero channels on both sides, and put in our order (--padding after if they "
        "come after the others)",
    }[padding]
    return f"the file cannot tell option A from plain, or where it pads; read with {where}"
