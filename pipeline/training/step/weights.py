"""Weights as safetensors that know which architecture they are for.

A file of ours carries its architecture in the header. A foreign file in torchvision's layout is
described by its tensor names and shapes; what shapes cannot tell (plain or option A, v1 or v1.5) is
never guessed. Pickles are never loaded.
"""

from collections.abc import Mapping
from io import BytesIO
from json import dumps, loads
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from pipeline.errors import InputError, first_line
from pipeline.recipe.experiments import Experiment

FORMAT = "resnet-repro/weights/1"
HEADER = "resnet-repro"


def architecture(experiment: Experiment, classes: int) -> dict[str, Any]:
    """What has to agree before weights may be loaded."""
    return {
        "family": experiment.family,
        "depth": experiment.depth,
        "block": experiment.block,
        "shortcut": experiment.shortcut,
        "norm": experiment.norm,
        "bottleneck_stride": experiment.bottleneck_stride
        if experiment.block == "bottleneck"
        else None,
        "classes": classes,
    }


def weights_bytes(state: Mapping[str, Tensor], experiment: Experiment, classes: int) -> bytes:
    """A network's state dict (contiguous, on the CPU) with its architecture in the header."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    about = {
        "format": FORMAT,
        "experiment": experiment.name,
        "architecture": architecture(experiment, classes),
    }
    # One entry, because safetensors writes several in an order that changes from process to
    # process.
    return save(tensors, metadata={HEADER: dumps(about, sort_keys=True)})


def load_weights(
    network: nn.Module, experiment: Experiment, classes: int, content: bytes, where: str
) -> None:
    """Load a safetensors file's bytes into a network of `experiment`; `where` names the file in
    messages.

    Raises:
        InputError: not safetensors, or the weights are for another architecture (says which field
            differs).
    """
    tensors, header = read_tensors(content, where)
    wanted = architecture(experiment, classes)
    about = loads(header.get(HEADER, "{}"))
    found = about["architecture"] if about.get("format") == FORMAT else _described(tensors)
    for field, mine in wanted.items():
        theirs = found.get(field, mine)
        if theirs != mine:
            raise InputError(
                f"{where}: these weights are {_say(field, theirs)}, {experiment.name} is "
                f"{_say(field, mine)}"
            )
    problem = _first_mismatch(network, tensors)
    if problem:
        raise InputError(f"{where}: {problem}; these weights are not for {experiment.name}")
    network.load_state_dict(tensors)


def torch_file_bytes(content: bytes, where: str) -> bytes:
    """A file that torch saved, of named tensors alone, as safetensors; nothing in it is run
    (`weights_only`).

    Raises:
        InputError: it holds anything else.
    """
    try:
        tensors = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
        named = {str(name): tensor.contiguous() for name, tensor in tensors.items()}
        return save(named)
    except Exception as error:  # whatever a foreign file makes of the reader
        raise InputError(f"{where}: not a file of named tensors ({first_line(error)})") from error


def read_tensors(content: bytes, where: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a safetensors file.

    Raises:
        InputError: the bytes are something else (a pickle, for one, which is never loaded).
    """
    try:
        tensors = load(content)
        size = int.from_bytes(content[:8], "little")
        return tensors, loads(content[8 : 8 + size]).get("__metadata__", {})
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(
            f"{where}: not a safetensors file ({error}); other formats and pickles are not loaded"
        ) from error


def _described(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The architecture of a foreign file as far as names and shapes tell; 'unknown' where they
    cannot.
    """
    stages = sorted({name.split(".")[0] for name in tensors if name.startswith("layer")})
    blocks = [
        len({name.split(".")[1] for name in tensors if name.startswith(f"{stage}.")})
        for stage in stages
    ]
    bottleneck = any(".conv3." in name for name in tensors)
    projections = len({name.split(".downsample")[0] for name in tensors if ".downsample." in name})
    if not projections:
        shortcut = "unknown (plain or option A)"
    else:
        shortcut = "C" if projections == sum(blocks) else "B"
    return {
        "family": "cifar" if len(stages) == 3 else "imagenet",
        "depth": 2 + (3 if bottleneck else 2) * sum(blocks),
        "block": "bottleneck" if bottleneck else "basic",
        "shortcut": shortcut,
        "bottleneck_stride": "3x3" if bottleneck else None,
    }


def _first_mismatch(network: nn.Module, tensors: dict[str, Tensor]) -> str:
    mine = network.state_dict()
    for name in sorted(mine.keys() | tensors.keys()):
        if name not in tensors:
            return f"{name} is missing"
        if name not in mine:
            return f"{name} has no place in the network"
        if mine[name].shape != tensors[name].shape:
            return f"{name} is {list(tensors[name].shape)}, not {list(mine[name].shape)}"
        if mine[name].dtype != tensors[name].dtype and tensors[name].dtype != torch.float64:
            return f"{name} is {tensors[name].dtype}, not {mine[name].dtype}"
    return ""


def _say(field: str, value: Any) -> str:
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
