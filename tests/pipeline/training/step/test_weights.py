"""Weight files know their architecture, and are refused in one line where it is another one."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from safetensors.torch import save

from pipeline.errors import InputError
from pipeline.recipe.experiments import EXPERIMENTS, Experiment
from pipeline.training.step.networks import ResNet, build_network
from pipeline.training.step.weights import (
    FORMAT,
    HEADER,
    load_weights,
    read_tensors,
    torch_file_bytes,
    weights_bytes,
)
from tests.conftest import examples

RESNET20, RESNET50 = EXPERIMENTS["resnet20"], EXPERIMENTS["resnet50"]
V15 = replace(RESNET50, bottleneck_stride="3x3")


def stored(experiment: Experiment, classes: int = 10) -> bytes:
    return weights_bytes(build_network(experiment, 0, classes).state_dict(), experiment, classes)


RESNET20_BYTES = stored(RESNET20)


def test_round_trip() -> None:
    source, target = build_network(RESNET20, 1), build_network(RESNET20, 2)
    source.bn1.running_mean.fill_(3.5)
    load_weights(target, RESNET20, 10, weights_bytes(source.state_dict(), RESNET20, 10), "here")
    assert all(
        torch.equal(a, b)
        for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )


def test_the_same_weights_are_the_same_bytes() -> None:
    network = build_network(RESNET20, 0)
    assert len({weights_bytes(network.state_dict(), RESNET20, 10) for _ in range(20)}) == 1


@pytest.mark.parametrize(
    ("theirs", "mine", "said"),
    [
        (replace(RESNET20, shortcut="B"), RESNET20, "option B, resnet20 is option A"),
        (EXPERIMENTS["resnet32"], RESNET20, "32 layers deep, resnet20 is 20 layers deep"),
        (EXPERIMENTS["plain20"], RESNET20, r"plain \(no shortcuts\), resnet20 is option A"),
        (RESNET20, EXPERIMENTS["plain20"], r"option A, plain20 is plain \(no shortcuts\)"),
        (replace(RESNET20, norm="none"), RESNET20, "norm none"),
        (V15, RESNET50, "stride in the 3x3 .*resnet50 is stride in the first 1x1"),
    ],
)
def test_weights_of_another_architecture_are_refused(
    theirs: Experiment, mine: Experiment, said: str
) -> None:
    with pytest.raises(InputError, match=said) as error:
        load_weights(ResNet(mine, 10), mine, 10, stored(theirs), "w.safetensors")
    assert str(error.value).startswith("w.safetensors: these weights are")
    assert "\n" not in str(error.value)


def test_weights_for_other_classes_are_refused() -> None:
    with pytest.raises(InputError, match="for 100 classes, resnet20 is for 10 classes"):
        load_weights(ResNet(RESNET20), RESNET20, 10, stored(RESNET20, 100), "w")


def test_a_file_in_torchvisions_layout_loads_into_v15_only() -> None:
    source = build_network(V15, 3)
    foreign = save(dict(source.state_dict()))
    target = ResNet(V15)
    load_weights(target, V15, 1000, foreign, "tv")
    assert torch.equal(target.fc.weight, source.fc.weight)
    with pytest.raises(InputError, match=r"v1\.5"):
        load_weights(ResNet(RESNET50), RESNET50, 1000, foreign, "tv")


@pytest.mark.parametrize("name", ["resnet20", "plain20"])
def test_a_foreign_file_that_may_be_plain_or_option_a_is_not_guessed(name: str) -> None:
    experiment = EXPERIMENTS[name]
    with pytest.raises(InputError, match="plain or option A"):
        load_weights(
            ResNet(experiment),
            experiment,
            10,
            save(dict(build_network(experiment, 0).state_dict())),
            "foreign",
        )


def test_a_foreign_file_lacking_a_tensor_is_refused_by_its_name() -> None:
    experiment = EXPERIMENTS["resnet34-b"]
    tensors = dict(build_network(experiment, 0).state_dict())
    del tensors["layer3.2.conv1.weight"]
    with pytest.raises(InputError, match=r"layer3\.2\.conv1\.weight is missing"):
        load_weights(ResNet(experiment), experiment, 1000, save(tensors), "foreign")


class Trap:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("write", [pickle.dump, torch.save])
def test_a_pickle_is_refused_without_being_loaded(write: Callable, tmp_path: Path) -> None:
    trap, file = tmp_path / "sprung", tmp_path / "weights.pt"
    with open(file, "wb") as stream:
        write({"fc.weight": Trap(trap)}, stream)
    with pytest.raises(InputError, match="pickles are not loaded"):
        load_weights(ResNet(RESNET20), RESNET20, 10, file.read_bytes(), str(file))
    assert not trap.exists()
    load = {pickle.dump: pickle.load, torch.save: partial(torch.load, weights_only=False)}[write]
    with open(file, "rb") as stream:
        load(stream)
    assert trap.exists()  # the trap works


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_truncated_file_is_refused(length: int) -> None:
    with pytest.raises(InputError, match="w: not a safetensors file"):
        read_tensors(stored(RESNET20)[:length], "w")


def test_torchvisions_file_is_read_without_running_anything_in_it(tmp_path: Path) -> None:
    from torchvision.models import resnet50

    theirs = resnet50()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    converted = torch_file_bytes((tmp_path / "w.pth").read_bytes(), "w.pth")
    ours = build_network(V15, 0)
    load_weights(ours, V15, 1000, converted, "w.pth")
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(ours.eval()(x), theirs.eval()(x), atol=1e-4)
    with pytest.raises(InputError, match=r"v1\.5"):
        load_weights(build_network(RESNET50, 0), RESNET50, 1000, converted, "w.pth")


def test_a_torch_file_that_runs_something_is_refused_in_one_line(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"w": Evil()}, tmp_path / "w.pth")
    for content in ((tmp_path / "w.pth").read_bytes(), b"", b"nothing"):
        with pytest.raises(InputError, match=r"w\.pth: not a file of named tensors") as raised:
            torch_file_bytes(content, "w.pth")
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "ran").exists()


def with_metadata(metadata: object) -> bytes:
    """ResNet-20's tensors with whatever stands for metadata, well-formed or not."""
    content = stored(RESNET20)
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size]) | {"__metadata__": metadata}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"format": "pt"},
        {HEADER: "no JSON"},
        {HEADER: "3"},
        {HEADER: "[" * 100_000},
        {HEADER: "{}"},
        {HEADER: json.dumps({"format": FORMAT})},
        {HEADER: json.dumps({"format": FORMAT, "architecture": [1]})},
        {HEADER: json.dumps({"format": FORMAT, "architecture": {"shortcut": [1], "depth": {}}})},
        {HEADER: json.dumps({"format": FORMAT, "architecture": {"bottleneck_stride": [2]}})},
        None,
        3,
        {"nested": {"a": 1}},
    ],
)
def test_metadata_of_others_is_no_traceback(metadata: object) -> None:
    with pytest.raises(InputError) as error:
        load_weights(ResNet(RESNET20), RESNET20, 10, with_metadata(metadata), "w")
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


@given(st.data())
@hypothesis_settings(max_examples=examples(60), deadline=None)
def test_any_bytes_are_weights_or_refused(data: st.DataObject) -> None:
    content = bytearray(RESNET20_BYTES)
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, 3_000))] = data.draw(st.integers(0, 255))
    try:
        load_weights(ResNet(RESNET20), RESNET20, 10, bytes(content), "w")
    except InputError as error:
        assert "\n" not in str(error)
