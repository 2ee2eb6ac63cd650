"""Weights as safetensors that know which architecture they are for.

A file that this project wrote carries its architecture in the header. A foreign file in
torchvision's layout is described by its tensor names and shapes: plain or option A, which they do
not tell, is as the row says, and bottlenecks stride in the 3x3 as torchvision's do. Pickles are
never loaded. Files of other kinds are read in `weights_files`, and brought into torchvision's
layout in `foreign_weights`.
"""

import re
from collections.abc import Mapping
from json import dumps
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from pipeline.errors import InputError, first_line
from pipeline.recipe.experiments import Experiment
from pipeline.stored_json import parse

FORMAT = "resnet-repro/weights/1"
HEADER = "resnet-repro"
"""The one key of the file's metadata; its value is JSON with `FORMAT` and the architecture."""


def architecture(experiment: Experiment, classes: int) -> dict[str, Any]:
    """What has to agree before weights may be loaded into the network of `experiment`."""
    return {
        "family": experiment.family,
        "depth": experiment.depth,
        "block": experiment.block,
        "shortcut": experiment.shortcut,
        "norm": experiment.norm,
        # Basic blocks have no 1x1 that could stride, so what their row says must not matter.
        "bottleneck_stride": experiment.bottleneck_stride
        if experiment.block == "bottleneck"
        else None,
        "classes": classes,
    }


def weights_bytes(state: Mapping[str, Tensor], experiment: Experiment, classes: int) -> bytes:
    """A state dict as a safetensors file with the architecture in its header.

    The same state gives the same bytes in every process; tensors on a device are copied to the CPU
    (a synchronisation point).
    """
    # Contiguous, because a network in training has channels-last views of one flat vector as its
    # weights, and safetensors refuses those.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    about = {
        "format": FORMAT,
        "experiment": experiment.name,
        "architecture": architecture(experiment, classes),
    }
    # One entry, because safetensors writes several in an order that differs between processes.
    return save(tensors, metadata={HEADER: dumps(about, sort_keys=True)})


def load_weights(
    network: nn.Module, experiment: Experiment, classes: int, content: bytes, where: str
) -> None:
    """Load a safetensors file's bytes, `content`, into a network of `experiment`.

    `where` names the file in messages.

    Raises:
        InputError: not safetensors, or the weights are for another architecture (says which field
            differs).
    """
    tensors, header = read_tensors(content, where)

    check_weights(network, experiment, classes, tensors, header, where)
    network.load_state_dict(tensors)


def check_weights(
    network: nn.Module,
    experiment: Experiment,
    classes: int,
    tensors: dict[str, Tensor],
    header: dict[str, str],
    where: str,
) -> None:
    """Refuse tensors, with their file's metadata, that are for another network than this one.

    Raises:
        InputError: says which field of the architecture differs, or which tensor.
    """
    # Compare architectures first: "these weights are 56 layers deep" tells a user more than the
    # first tensor of an unexpected shape. A field that a foreign file does not tell agrees.
    expected = architecture(experiment, classes)
    stored = stated_architecture(header) or _described(tensors, experiment)
    for field, value in expected.items():
        stored_value = stored.get(field, value)
        if stored_value != value:
            raise InputError(
                f"{where}: these weights are {_say(field, stored_value)}, {experiment.name} is "
                f"{_say(field, value)}"
            )

    # Then every name, shape and type, so that nothing is loaded in part.
    problem = _first_mismatch(network, tensors)
    if problem:
        raise InputError(f"{where}: {problem}; these weights are not for {experiment.name}")


def read_tensors(content: bytes, where: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (on the CPU) and metadata of a safetensors file; `where` names it in messages.

    Raises:
        InputError: the bytes are something else (a pickle, for one, which is never loaded).
    """
    try:
        tensors = load(content)
        # `load` does not return the metadata: it is in the JSON header, after its size (8 bytes).
        size = int.from_bytes(content[:8], "little")
        header = parse(content[8 : 8 + size])
        return tensors, header.get("__metadata__") or {}
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{where}: not a safetensors file ({first_line(error)}); other formats and pickles "
            "are not loaded"
        ) from error


def read_metadata(content: bytes) -> dict[str, str]:
    """The metadata of a safetensors file; empty where it has none, or is something else."""
    try:
        header = parse(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except ValueError:
        return {}
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    pairs = metadata.items() if isinstance(metadata, dict) else ()
    return {name: value for name, value in pairs if isinstance(value, str)}


def with_metadata(content: bytes, metadata: dict[str, str]) -> bytes:
    """A safetensors file with other metadata; the same gives the same bytes in every process.

    safetensors itself writes several entries in an order that differs.
    """
    size = int.from_bytes(content[:8], "little")
    header = {"__metadata__": metadata} | {
        name: entry for name, entry in parse(content[8 : 8 + size]).items() if name[:2] != "__"
    }
    text = dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def stated_architecture(metadata: dict[str, str]) -> dict[str, Any]:
    """The architecture that a file's metadata states; empty where it is none of ours."""
    # Others use metadata too, and anybody may use our key.
    try:
        about = parse(metadata.get(HEADER, "{}").encode())
    except ValueError:
        return {}
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        return {}
    stated = about.get("architecture")
    return stated if isinstance(stated, dict) else {}


def _described(tensors: dict[str, Tensor], experiment: Experiment) -> dict[str, Any]:
    """The architecture of a foreign file as far as its tensors' names tell, if they are known.

    What they cannot tell is as in the row.
    """
    # Blocks have torchvision's names: `layer2.0.conv1.weight` is in block 0 of stage 2.
    matches = (re.match(r"(layer\d+)\.\d+\.", name) for name in tensors)
    blocks = {match[0]: match[1] for match in matches if match}
    if not blocks:
        return {}

    # Tell the block by its third convolution, and the shortcut by how many blocks project: all of
    # them (C), or only the first of each stage (B). Plain and option A have no shortcut weights.
    bottleneck = any(".conv3." in name for name in tensors)
    projections = len({name.split(".downsample")[0] for name in tensors if ".downsample." in name})
    if projections:
        shortcut = "C" if projections == len(blocks) else "B"
    elif experiment.shortcut in ("none", "A"):
        shortcut = experiment.shortcut
    else:
        shortcut = "unknown (plain or option A)"

    # torchvision's bottlenecks stride in the 3x3; depth counts the stem and the classifier too.
    fc = tensors.get("fc.weight")
    classes = {"classes": fc.shape[0]} if fc is not None and fc.ndim == 2 else {}
    return classes | {
        "family": "cifar" if len(set(blocks.values())) == 3 else "imagenet",
        "depth": 2 + (3 if bottleneck else 2) * len(blocks),
        "block": "bottleneck" if bottleneck else "basic",
        "shortcut": shortcut,
        "bottleneck_stride": "3x3" if bottleneck else None,
    }


def _first_mismatch(network: nn.Module, tensors: dict[str, Tensor]) -> str:
    """How `tensors` differ from a network's state in name, shape or type; empty if they fit."""
    expected = network.state_dict()
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors:
            return f"{name} is missing"
        if name not in expected:
            return f"{name} has no place in the network"
        if expected[name].shape != tensors[name].shape:
            return f"{name} is {list(tensors[name].shape)}, not {list(expected[name].shape)}"
        # float64 may stand for the network's type: `load_state_dict` rounds it.
        if expected[name].dtype != tensors[name].dtype and tensors[name].dtype != torch.float64:
            return f"{name} is {tensors[name].dtype}, not {expected[name].dtype}"
    return ""


def _say(field: str, value: Any) -> str:
    """An architecture's field in words, to end "these weights are ..."."""
    value = value if isinstance(value, int | str) else str(value)[:50]
    if field == "shortcut":
        return {"none": "plain (no shortcuts)"}.get(value, f"option {value}")
    if field == "bottleneck_stride":
        return {
            "1x1": "stride in the first 1x1 (the paper)",
            "3x3": 'stride in the 3x3 ("v1.5")',
        }.get(value, str(value))
    return {"depth": f"{value} layers deep", "classes": f"for {value} classes"}.get(
        field, f"{field} {value}"
    )
