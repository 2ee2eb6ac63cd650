"""Weights as people have them: files of any suffix, other names, and another order of channels."""

import os
import pickle
import tarfile
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import InputError
from pipeline.recipe.experiments import EXPERIMENTS, Experiment
from pipeline.training.step.foreign_weights import read_weights
from pipeline.training.step.networks import ResNet
from pipeline.training.step.weights import load_weights, weights_bytes

RESNET8 = replace(EXPERIMENTS["resnet20"], depth=8)
PLAIN8 = replace(EXPERIMENTS["plain20"], depth=8)
V15 = replace(EXPERIMENTS["resnet50"], bottleneck_stride="3x3")


class PadsBothSides(nn.Module):
    """A CIFAR network as pytorch_resnet_cifar10 describes its own: `linear`, option A that pads a
    quarter of the new width on either side, strided slices.
    """

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        width = 16
        for stage, planes in enumerate((16, 32, 64)):
            layer = nn.Sequential()
            for number in range(blocks):
                block, stride = nn.Module(), 2 if stage and not number else 1
                block.conv1 = nn.Conv2d(width, planes, 3, stride, 1, bias=False)
                block.bn1 = nn.BatchNorm2d(planes)
                block.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
                block.bn2 = nn.BatchNorm2d(planes)
                layer.append(block)
                width = planes
            self.add_module(f"layer{stage + 1}", layer)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3):
            for block in stage:
                out = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))
                planes = out.shape[1]
                if planes != x.shape[1]:
                    x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, planes // 4, planes // 4))
                x = F.relu(out + x)
        return self.linear(x.mean((2, 3)))


def unlike(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with random numbers for everything, so that no two channels are alike."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            scale = 0.1 if tensor.ndim > 1 else 1.0
            values = scale * torch.randn(tensor.shape, generator=generator)
            tensor.copy_(values.abs() + 0.5 if name.endswith("running_var") else values)
    return network.eval()


def inputs(side: int = 32) -> Tensor:
    return torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(9))


def loaded(file: Path, experiment: Experiment, classes: int = 10, **options: Any) -> ResNet:
    content, _ = read_weights(file, file.name, experiment, **options)
    network = ResNet(experiment, classes)
    load_weights(network, experiment, classes, content, file.name)
    return network.eval()


@torch.no_grad()
def apart(a: nn.Module, b: nn.Module, x: Tensor) -> float:
    return float((a.double()(x.double()) - b.double()(x.double())).abs().max())


@pytest.mark.parametrize("blocks", [1, 3])
def test_option_a_that_pads_both_sides_is_the_same_network(blocks: int, tmp_path: Path) -> None:
    experiment = replace(RESNET8, depth=6 * blocks + 2)
    theirs = unlike(PadsBothSides(blocks))
    state = {f"module.{name}": tensor for name, tensor in theirs.state_dict().items()}
    file = tmp_path / "resnet.th"
    checkpoint = {"best_prec1": 91.7, "state_dict": state}
    torch.save(checkpoint, file, _use_new_zipfile_serialization=False)
    assert apart(loaded(file, experiment), theirs, inputs()) < 1e-10
    # In another order of channels it would be another network, and so would a plain one.
    assert apart(loaded(file, experiment, padding="after"), theirs, inputs()) > 1e-3
    assert apart(loaded(file, replace(PLAIN8, depth=6 * blocks + 2)), theirs, inputs()) > 1e-3
    assert read_weights(file, "w", experiment)[1] == [
        '"state_dict" was taken',
        '"module." was stripped from names',
        "linear is taken for fc",
        "the file cannot tell option A from plain, or where it pads; read with its zero channels "
        "on both sides, and put in our order (--padding after if they come after the others)",
    ]


def test_a_classifier_of_the_usual_name_pads_after_unless_told(tmp_path: Path) -> None:
    theirs = unlike(PadsBothSides(1))
    names = {name.replace("linear", "fc"): tensor for name, tensor in theirs.state_dict().items()}
    torch.save(names, tmp_path / "w.pt")
    assert apart(loaded(tmp_path / "w.pt", RESNET8, padding="both"), theirs, inputs()) < 1e-10
    ours = ResNet(RESNET8, 10).eval()
    ours.load_state_dict(names)
    assert apart(loaded(tmp_path / "w.pt", RESNET8), ours, inputs()) == 0
    assert "(--padding both if" in read_weights(tmp_path / "w.pt", "w", RESNET8)[1][-1]
    assert read_weights(tmp_path / "w.pt", "w", PLAIN8)[1] == [
        "the file cannot tell plain from option A; read as plain, as plain20 is"
    ]


def of_torch(content: Any, file: Path) -> None:
    torch.save(content, file)


def of_old_torch(content: Any, file: Path) -> None:
    torch.save(content, file, _use_new_zipfile_serialization=False)


def of_safetensors(content: Any, file: Path) -> None:
    save_file(content, file)


@pytest.mark.parametrize("write", [of_torch, of_old_torch, of_safetensors])
@pytest.mark.parametrize("suffix", ["pth", "ckpt", "bin", "tar", "safetensors", "0"])
def test_content_says_what_a_file_is(
    write: Callable[[Any, Path], None], suffix: str, tmp_path: Path
) -> None:
    source, file = unlike(ResNet(RESNET8, 10)), tmp_path / f"w.{suffix}"
    write(dict(source.state_dict()), file)
    assert torch.equal(loaded(file, RESNET8).fc.weight, source.fc.weight)


def renamed(state: dict[str, Tensor], **changes: str) -> dict[str, Tensor]:
    out = {}
    for name, tensor in state.items():
        for old, new in changes.items():
            name = name.replace(f"{old}.", f"{new}.")
        out[name] = tensor
    return out


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


OTHER_FORMS: dict[str, tuple[Callable[[dict[str, Tensor]], Any], list[str]]] = {
    "torchvision's training script": (
        lambda state: {
            "model": state,
            "optimizer": {"state": {0: {"momentum_buffer": state["conv1.weight"]}}},
            "args": Namespace(model="resnet18", lr=0.1),
            "model_ema": {"n_averaged": torch.tensor(3), **prefixed(state, "module.")},
        },
        ['"model" was taken, not "model_ema"'],
    ),
    "averaged alone": (
        lambda state: {"state_dict_ema": {"n_averaged": torch.tensor(3), **state}},
        ['"state_dict_ema" was taken', "n_averaged was left out: it counts, and computes nothing"],
    ),
    "compiled, in two wrappers": (
        lambda state: {"net": {"state_dict": prefixed(state, "module._orig_mod.")}},
        [
            '"net.state_dict" was taken',
            '"module." was stripped from names',
            '"_orig_mod." was stripped from names',
        ],
    ),
    "lightning": (
        lambda state: {"epoch": 3, "state_dict": prefixed(state, "model.backbone.")},
        [
            '"state_dict" was taken',
            '"model." was stripped from names',
            '"backbone." was stripped from names',
        ],
    ),
    "other names": (
        lambda state: renamed(state, fc="head.fc", downsample="shortcut"),
        ["shortcut is taken for downsample", "head.fc is taken for fc"],
    ),
    "classifier": (lambda s: renamed(s, fc="classifier"), ["classifier is taken for fc"]),
    "no counters": (
        lambda state: {n: t for n, t in state.items() if "num_batches" not in n},
        ["num_batches_tracked was missing, and counts nothing in a test"],
    ),
    "parameters": (lambda s: {n: nn.Parameter(t, False) for n, t in s.items()}, []),
}


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_usual_wrappers_and_names_are_read_and_said(form: str, tmp_path: Path) -> None:
    make, said = OTHER_FORMS[form]
    experiment = replace(RESNET8, shortcut="B")
    source = unlike(ResNet(experiment, 10))
    torch.save(make(source.state_dict()), tmp_path / "w.pth")
    content, notes = read_weights(tmp_path / "w.pth", "w", experiment)
    assert notes == said
    assert content == save(dict(source.state_dict()))
    assert apart(loaded(tmp_path / "w.pth", experiment), source, inputs()) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_made_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    experiment = replace(RESNET8, shortcut="B")
    source = unlike(ResNet(experiment, 10)).to(dtype)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    assert torch.equal(loaded(tmp_path / "w.pth", experiment).fc.weight, source.fc.weight.float())
    notes = read_weights(tmp_path / "w.pth", "w", experiment)[1]
    assert notes == [f"{str(dtype).removeprefix('torch.')} was made float32"]


def test_a_file_of_ours_stays_its_bytes_and_takes_no_padding(tmp_path: Path) -> None:
    content = weights_bytes(unlike(ResNet(RESNET8, 10)).state_dict(), RESNET8, 10)
    (tmp_path / "w.pth").write_bytes(content)
    assert read_weights(tmp_path / "w.pth", "w", RESNET8) == (content, [])
    with pytest.raises(InputError, match="w: says itself what network it is for; leave --padding"):
        read_weights(tmp_path / "w.pth", "w", RESNET8, "both")


def test_a_header_may_have_a_size_that_begins_as_pickles_do(tmp_path: Path) -> None:
    content = weights_bytes(unlike(ResNet(RESNET8, 10)).state_dict(), RESNET8, 10)
    size = int.from_bytes(content[:8], "little")
    padding = b" " * ((0x80 - size) % 256)
    padded = (size + len(padding)).to_bytes(8, "little") + content[8 : 8 + size] + padding
    (tmp_path / "w").write_bytes(padded + content[8 + size :])
    assert padded[:1] == b"\x80"
    assert loaded(tmp_path / "w", RESNET8).fc.weight.shape == (10, 64)


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def write_evil(file: Path) -> None:
    torch.save({"conv1.weight": Evil(file.parent / "ran")}, file)


def write_old_evil(file: Path) -> None:
    of_old_torch({"conv1.weight": Evil(file.parent / "ran")}, file)


def write_pickle(file: Path) -> None:
    file.write_bytes(pickle.dumps({"conv1.weight": Evil(file.parent / "ran")}))


def write_network(file: Path) -> None:
    torch.save(ResNet(RESNET8, 10), file)


def write_program(file: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(1, 1), torch.zeros(1)), file)


def write_archive(file: Path) -> None:
    (file.parent / "inner").write_bytes(b"1")
    with tarfile.open(file, "w") as archive:
        archive.add(file.parent / "inner", "inner")


def write_zip(file: Path) -> None:
    with ZipFile(file, "w", ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", b"1")


def write_cut(file: Path) -> None:
    torch.save(ResNet(RESNET8, 10).state_dict(), file)
    file.write_bytes(file.read_bytes()[:-100])


def write_vast_view(file: Path) -> None:
    state = dict(ResNet(RESNET8, 10).state_dict())
    torch.save(state | {"conv1.weight": torch.zeros(1).expand(10**6, 10**6, 3, 3)}, file)


def write_sparse(file: Path) -> None:
    state = dict(ResNet(RESNET8, 10).state_dict())
    torch.save(state | {"fc.weight": torch.zeros(10, 64).to_sparse()}, file)


def write_float8(file: Path) -> None:
    state = dict(ResNet(RESNET8, 10).state_dict())
    torch.save(state | {"fc.weight": torch.zeros(10, 64).to(torch.float8_e4m3fn)}, file)


def write_nested_in_itself(file: Path) -> None:
    content: dict[str, Any] = {"epoch": 1}
    content["model"] = content
    torch.save(content, file)


def write_two(file: Path) -> None:
    states = [ResNet(RESNET8, 10).state_dict() for _ in range(2)]
    torch.save(prefixed(states[0], "module.") | prefixed(states[1], "model."), file)


def write_nan(file: Path) -> None:
    network = ResNet(RESNET8, 10)
    with torch.no_grad():
        network.layer2[0].conv1.weight[0, 0, 0, 0] = torch.inf
    torch.save(network.state_dict(), file)


def write_our_nan(file: Path) -> None:
    network = ResNet(RESNET8, 10)
    network.bn1.running_var[3] = torch.nan
    file.write_bytes(weights_bytes(network.state_dict(), RESNET8, 10))


REFUSED: dict[Callable[[Path], Any], str] = {
    write_evil: "is not named tensors alone \\(it holds a .*\\), and nothing in it was run",
    write_old_evil: "is not named tensors alone \\(it holds a .*\\), and nothing in it was run",
    write_pickle: "is not named tensors alone \\(.*\\), and nothing in it was run",
    write_network: "it holds a pipeline.training.step.networks.ResNet",
    write_program: "is a TorchScript program; save its state_dict",
    write_archive: "is an archive; unpack it",
    write_zip: "is a zip archive, not a file of torch.save",
    write_cut: "is cut short or damaged .*; download it again",
    write_vast_view: "its tensors are not plain numbers",
    write_sparse: "its tensors are not plain numbers",
    write_float8: "fc.weight is torch.float8_e4m3fn, not torch.float32",
    write_nested_in_itself: "holds no convolution's weights",
    write_two: "model.conv1.weight is not the only tensor for conv1.weight",
    write_nan: "layer2.0.conv1.weight holds NaN or infinite numbers",
    write_our_nan: "bn1.running_var holds NaN or infinite numbers",
    lambda file: file.write_bytes(b"\n<!DOCTYPE html><html>404"): "is a web page",
    lambda file: file.write_bytes(b'<?xml version="1.0"?><Error>AccessDenied'): "is a web page",
    lambda file: file.write_bytes(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    ): "is a Git LFS pointer, not the weights; fetch them with `git lfs pull`",
    lambda file: file.write_bytes(b""): "is empty; download it again",
    lambda file: file.write_bytes(b"\x1f\x8b\x08"): "is an archive",
    lambda file: file.write_bytes(b'{"message": "Not Found"}'): r"begins with '{\"message\": \"Not",
    lambda file: file.write_bytes(bytes(range(1, 250)) * 9): "neither a safetensors file nor one",
    lambda file: torch.save({"resnet.embedder.weight": torch.zeros(1, 1, 1, 1)}, file): (
        "its tensors are named resnet.embedder.weight, neither as torchvision's"
    ),
    lambda file: torch.save([1, 2], file): "holds no convolution's weights under a name",
    lambda file: file.mkdir(): "w.pth: ",
    os.mkfifo: "w.pth: ",
}


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_is_no_file_of_weights_is_one_line_that_says_what_it_is(
    number: int, tmp_path: Path
) -> None:
    write, said = list(REFUSED.items())[number]
    write(tmp_path / "w.pth")
    with pytest.raises(InputError, match=said) as refused:
        read_weights(tmp_path / "w.pth", "w.pth", RESNET8)
    line = str(refused.value)
    assert "w.pth: " in line and "\n" not in line and len(line) < 300
    assert "weights_only" not in line and "trust" not in line
    assert not (tmp_path / "ran").exists()


def test_a_layer_that_ours_has_not_is_never_left_out(tmp_path: Path) -> None:
    state = dict(ResNet(RESNET8, 10).state_dict()) | {"layer1.0.se.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w: layer1.0.se.weight has no place in the network"):
        read_weights(tmp_path / "w.pth", "w", RESNET8)


def test_torchvisions_file_is_its_network_in_v15_alone(tmp_path: Path) -> None:
    from torchvision.models import resnet50

    theirs = unlike(resnet50())
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    assert apart(loaded(tmp_path / "w.pth", V15, 1000), theirs, inputs(64)) < 1e-8
    with pytest.raises(InputError, match=r"v1\.5"):
        read_weights(tmp_path / "w.pth", "w.pth", EXPERIMENTS["resnet50"])
