"""Exported weights come back with the same logits, here and in the networks of other libraries."""

import json
from dataclasses import replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.recipe.experiments import EXPERIMENTS, Experiment
from pipeline.recipe.metrics import TEST_ERR, TRAIN_CLEAN_ERR, protocol_err
from pipeline.recipe.other_libraries import WeightsLayout
from pipeline.runs.model_card import PrintedError, Standing
from pipeline.runs.run import Run
from pipeline.training.exported_weights import (
    CARD,
    ExportedWeights,
    folder_files,
    imagenet_names,
    layout_notes,
    named_classes,
    read_export,
)
from pipeline.training.feeding.preprocessing import Preprocessing
from pipeline.training.step.foreign_weights import read_weights
from pipeline.training.step.networks import ResNet
from pipeline.training.step.weights import HEADER, load_weights, read_metadata, weights_bytes
from pipeline.training.step.weights import with_metadata as with_header
from tests.pipeline.training.step.test_foreign_weights import apart, inputs, unlike

NAMES = ("tench", "goldfish", "great white shark", "tiger shark", "ray", "cock", "hen")
ROW18 = replace(EXPERIMENTS["resnet18"], shortcut="B")
ROW50 = EXPERIMENTS["resnet50"]
HELD = {
    "resnet18 B": ROW18,
    "resnet34 B": EXPERIMENTS["resnet34-b"],
    "resnet50": ROW50,
    "resnet50 v1.5": replace(ROW50, bottleneck_stride="3x3"),
}
"""Rows whose networks other libraries have."""


@lru_cache(maxsize=3)
def export(
    experiment: Experiment, names: tuple[str, ...] = NAMES, dataset: str = "flowers"
) -> ExportedWeights:
    """A finished run of the row, with random numbers for weights."""
    network = unlike(ResNet(experiment, len(names)))
    photographs = experiment.family == "imagenet"
    side = 224 if photographs else 32
    row = {
        "name": dataset, "side": 0 if photographs else side, "classes": len(names), "pad": 0,
        "flip": True, "arrives": "", "comparable": False,
    }  # fmt: skip
    final: dict[str, float | None] = {TEST_ERR: 25.0, TRAIN_CLEAN_ERR: 20.0}
    final |= {protocol_err(name, top): 25.0 for name in experiment.protocols for top in (1, 5)}
    image = np.random.default_rng(0).uniform(80, 140, (side, side, 3)).astype(np.float32)
    scale = np.full(3, 1 / 255, np.float32)
    return ExportedWeights(
        Run(experiment, "1" * 16, "flowers-11111111", 3),
        {"row": row, "test_images": 50},
        {"final": final, "attempts": [{"commit": "c0ffee"}], "iterations": experiment.iterations},
        Standing((25.0, 26.0), (PrintedError("top-1, ten crops", "24.52", "Table 3"),)),
        Preprocessing(
            side, 256 if photographs else 0, image.mean((0, 1), dtype=np.float32), scale, image
        ),
        names,
        weights_bytes(network.state_dict(), experiment, len(names)),
    )


def network_of(exported: ExportedWeights, weights: bytes | None = None) -> ResNet:
    experiment, classes = exported.run.experiment, len(exported.class_names)
    network = ResNet(experiment, classes)
    load_weights(network, experiment, classes, weights or exported.weights, "here")
    return network.eval()


def written(folder: Path, exported: ExportedWeights, layout: WeightsLayout) -> Path:
    for name, content in folder_files(exported, layout).items():
        (folder / name).write_bytes(content)
    return folder


def closeness(network: nn.Module) -> float:
    """How far apart the logits of two orders of summation may be, in float64."""
    return 1e-12 * float(network.double()(inputs(64).double()).detach().abs().max())


@pytest.mark.parametrize("name", ["resnet20", "plain20", "resnet18", "resnet50"])
def test_a_file_says_all_of_itself(name: str) -> None:
    exported = export(EXPERIMENTS[name])
    content = folder_files(exported)["model.safetensors"]
    assert content == folder_files(exported)["model.safetensors"]
    again = read_export(content, "here")
    assert again is not None and again.standing == Standing((25.0, 26.0))
    again = replace(again, standing=exported.standing)  # whose paper's errors no file is asked for
    assert again.run == exported.run and again.class_names == NAMES
    assert again.facts() == exported.facts()
    assert np.array_equal(again.preprocessing.mean_image, exported.preprocessing.mean_image)
    assert apart(network_of(again), network_of(exported), inputs()) == 0
    # The file is one of ours still: `evaluate --as` takes it, and knows its architecture.
    assert folder_files(again) == folder_files(exported)


def test_a_card_has_the_numbers_and_where_they_come_from() -> None:
    card = folder_files(export(EXPERIMENTS["resnet34-b"], dataset="imagenet"))[CARD].decode()
    for said in (
        "# resnet34-b on imagenet, seed 3",
        "Test error: 25.00 % (top-1, final iterate, 50 images)",
        "mean ± std: 25.50 ± 0.71 % (n = 2)",
        "The paper, on its own data by its own recipe: 24.52 % top-1, ten crops (Table 3)",
        "commit `c0ffee`",
        "fingerprint `" + EXPERIMENTS["resnet34-b"].fingerprint,
        'load_file("model.safetensors")',
        "resized to 256 pixels",
        "0 tench, 1 goldfish",
    ):
        assert said in card
    card = folder_files(export(EXPERIMENTS["resnet34-b"]))[CARD].decode()
    assert "24.52 %" not in card and "The paper's errors are of its own data" in card
    assert card.startswith("---\nlibrary_name: resnet-repro\npipeline_tag: image-classification\n")


def test_files_of_weights_that_say_less_are_no_exports() -> None:
    assert read_export(export(ROW18).weights, "here") is None
    assert read_export(b"PK\x03\x04 a file of torch", "here") is None


# torchvision.


def python_of(card: str) -> str:
    """The indented lines of a card that are Python."""
    lines = [
        line[4:] if line else "" for line in card.splitlines() if line[:4] == "    " or not line
    ]
    return "\n".join(line for line in lines if not line.startswith("resnet-repro"))


@pytest.mark.parametrize("name", HELD)
def test_torchvision_computes_the_same_by_the_cards_lines(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = export(HELD[name])
    folder = written(tmp_path, exported, "torchvision")
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(python_of((folder / CARD).read_text()), names)
    ours = network_of(exported)
    assert apart(ours, names["network"], inputs(64)) < closeness(ours)

    # And the file comes back by our own reader, and by torch's safe one.
    (file,) = folder.glob("*.pth")
    assert file.name == f"resnet{HELD[name].depth}.pth"
    assert torch.load(file, weights_only=True).keys() == ours.state_dict().keys()
    notes = layout_notes(exported, "torchvision")
    assert any("halves the map in a 3x3" in note for note in notes) == (name == "resnet50")
    if name != "resnet50":
        content, _ = read_weights(file, "w", exported.run.experiment)
        assert apart(network_of(exported, content), network_of(exported), inputs(64)) == 0


# transformers.


class ConvLayer(nn.Module):
    """`ResNetConvLayer`: the names under which transformers keeps a convolution and its norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.normalization = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.normalization(self.convolution(x))


class TheirLayer(nn.Module):
    """`ResNetBasicLayer` and `ResNetBottleNeckLayer`."""

    def __init__(self, config: dict[str, Any], inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride != 1:
            self.shortcut = ConvLayer(inputs, outputs, 1, stride)
        if config["layer_type"] == "basic":
            shapes = [(inputs, outputs, 3, stride), (outputs, outputs, 3, 1)]
        else:
            inner, first = outputs // 4, config["downsample_in_bottleneck"]
            shapes = [
                (inputs, inner, 1, stride if first else 1),
                (inner, inner, 3, 1 if first else stride),
                (inner, outputs, 1, 1),
            ]
        self.layer = nn.Sequential(*(ConvLayer(*shape) for shape in shapes))

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for number, conv in enumerate(self.layer):
            out = conv(out) if number == len(self.layer) - 1 else conv(out).relu()
        return (out + self.shortcut(x)).relu()


class TheirNetwork(nn.Module):
    """`ResNetForImageClassification`, as its `config.json` says: names, shapes and arithmetic.

    Written from its documentation, as transformers is not installed here.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        assert config["model_type"] == "resnet" and config["hidden_act"] == "relu"
        assert not config["downsample_in_first_stage"]
        self.resnet, embedder, encoder = nn.Module(), nn.Module(), nn.Module()
        width = config["embedding_size"]
        embedder.embedder = ConvLayer(config["num_channels"], width, 7, 2)
        encoder.stages = nn.ModuleList()
        for number, (depth, outputs) in enumerate(
            zip(config["depths"], config["hidden_sizes"], strict=True)
        ):
            stage, stride = nn.Module(), 2 if number else 1
            layers = [TheirLayer(config, width, outputs, stride)]
            layers += [TheirLayer(config, outputs, outputs, 1) for _ in range(depth - 1)]
            stage.layers, width = nn.Sequential(*layers), outputs
            encoder.stages.append(stage)
        self.resnet.embedder, self.resnet.encoder = embedder, encoder
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(width, len(config["id2label"])))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.resnet.embedder.embedder(x).relu(), 3, 2, 1)
        for stage in self.resnet.encoder.stages:
            x = stage.layers(x)
        return self.classifier(x.mean((2, 3)))


@pytest.mark.parametrize("name", HELD)
def test_the_layout_of_transformers_computes_the_same(name: str, tmp_path: Path) -> None:
    exported = export(HELD[name])
    folder = written(tmp_path, exported, "transformers")
    names = {file.name for file in folder.iterdir()}
    assert names == {CARD, "config.json", "preprocessor_config.json", "model.safetensors"}
    card = (folder / CARD).read_text()
    assert "library_name: transformers" in card and "subtracts one mean a channel" in card
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"]["2"] == "great white shark" and config["label2id"]["hen"] == 6
    content = (folder / "model.safetensors").read_bytes()
    assert read_metadata(content)["format"] == "pt"  # transformers reads no other
    theirs = TheirNetwork(config)
    theirs.load_state_dict(load(content))
    ours = network_of(exported)
    assert apart(ours, theirs.eval(), inputs(64)) < closeness(ours)

    # It comes back by our own reader, which is told by its metadata where bottlenecks stride.
    content, notes = read_weights(folder / "model.safetensors", "w", exported.run.experiment)
    assert notes == []
    assert apart(network_of(exported, content), network_of(exported), inputs(64)) == 0
    again = read_export((folder / "model.safetensors").read_bytes(), "w")
    assert again is not None
    assert replace(again, standing=exported.standing).facts() == exported.facts()


@pytest.mark.parametrize("name", HELD)
def test_transformers_itself_computes_the_same(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    exported = export(HELD[name])
    folder = written(tmp_path, exported, "transformers")
    theirs, about = transformers.ResNetForImageClassification.from_pretrained(
        folder, output_loading_info=True
    )
    assert not about["missing_keys"] and not about["unexpected_keys"]

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = theirs.eval()

        def forward(self, x: Tensor) -> Tensor:
            return self.network(x).logits

    ours = network_of(exported)
    assert apart(ours, Logits(), inputs(64)) < closeness(ours)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 255, (300, 400, 3), np.uint8))
    seen = processor(picture, return_tensors="pt")["pixel_values"][0]
    prepared = replace(exported.preprocessing, mean_image=None)
    mine = prepared.normaliser(224, torch.device("cpu"))(prepared.view(picture)[None])[0]
    # Their resize rounds sides and grey levels otherwise.
    assert seen.shape == mine.shape and float((seen - mine).abs().mean()) < 0.02


def test_weights_of_transformers_made_elsewhere_are_read(tmp_path: Path) -> None:
    experiment = HELD["resnet34 B"]
    exported = export(experiment)
    config = json.loads(folder_files(exported, "transformers")["config.json"])
    theirs = unlike(TheirNetwork(config), seed=5)
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    content, notes = read_weights(tmp_path / "pytorch_model.bin", "w", experiment)
    assert notes == ["names of transformers were made torchvision's"]
    ours = network_of(exported, content)
    assert apart(ours, theirs, inputs(64)) < closeness(ours)


@pytest.mark.parametrize("test_side", [224, 241, 256, 290, 299, 480])
def test_their_processor_resizes_to_the_rows_side(test_side: int) -> None:
    exported = export(ROW18)
    exported = replace(
        exported, preprocessing=replace(exported.preprocessing, shorter_side=test_side)
    )
    config = json.loads(folder_files(exported, "transformers")["preprocessor_config.json"])
    assert int(config["size"]["shortest_edge"] / config["crop_pct"]) == test_side
    assert config["resample"] == Image.Resampling.BILINEAR
    pixel = 200.0
    theirs = (pixel * config["rescale_factor"] - config["image_mean"][1]) / config["image_std"][1]
    prepared = exported.preprocessing
    assert theirs == pytest.approx((pixel - prepared.mean[1]) * prepared.scale[1], rel=1e-6)


@pytest.mark.parametrize("layout", ["torchvision", "transformers"])
@pytest.mark.parametrize(
    ("experiment", "why"),
    [
        (EXPERIMENTS["resnet20"], "one of CIFAR's, with a 3x3 stem"),
        (EXPERIMENTS["resnet18"], "it has option A; theirs have option B"),
        (EXPERIMENTS["resnet34-c"], "it has option C; theirs have option B"),
        (EXPERIMENTS["plain34"], "it has no shortcuts; theirs have option B"),
        (replace(ROW18, bn_eps=1e-3), "no batch norm with an epsilon of 1e-05"),
    ],
)
def test_what_a_library_has_no_network_for_is_refused_in_one_line(
    layout: WeightsLayout, experiment: Experiment, why: str
) -> None:
    with pytest.raises(InputError, match=f"{layout} has no network .*{why}") as refused:
        folder_files(export(experiment), layout)
    assert "\n" not in str(refused.value)
    assert why in str(refused.value)


# Names of classes.


def test_classes_have_the_names_that_their_dataset_gave_them() -> None:
    digits = {"row": {"name": "digits", "classes": 10, "side": 16, "comparable": False}}
    assert named_classes(digits) == tuple("0123456789")
    cifar = {"row": {"name": "cifar10", "classes": 10, "side": 32, "comparable": True}}
    assert named_classes(cifar)[3] == "cat"
    own = {"class_names": ["a", "b"], "row": cifar["row"] | {"name": "mine", "classes": 2}}
    assert named_classes(own) == ("a", "b")
    unnamed = {"row": own["row"] | {"classes": 3}}
    assert named_classes(unnamed) == ("0", "1", "2")


def test_imagenets_classes_have_words() -> None:
    words = imagenet_names()
    assert len(words) == 1000 and words[0] == "tench" and words[-1] == "toilet tissue"
    row = {"name": "imagenet", "classes": 1000, "side": 0, "comparable": True}
    assert named_classes({"row": row}) == words
    ids = ["n01440764", *(f"n{number:08d}" for number in range(2_000_000, 2_000_998)), "n15075141"]
    assert named_classes({"class_names": ids, "row": row | {"comparable": False}}) == words
    # A thousand other classes keep their own.
    others = [f"n{number:08d}" for number in range(1000)]
    assert named_classes({"class_names": others, "row": row}) == tuple(others)
    assert named_classes({"row": row | {"comparable": False}})[:2] == ("0", "1")


# Files of others.


CONTENT = folder_files(export(EXPERIMENTS["resnet20"]))["model.safetensors"]


def changed(path: str, value: Any) -> bytes:
    """An exported file whose metadata says something else at one place."""
    about = json.loads(read_metadata(CONTENT)[HEADER])
    *folders, last = path.split("/")
    inner = about["export"]
    for folder in folders:
        inner = inner[folder]
    inner[last] = value
    return with_header(CONTENT, {HEADER: json.dumps(about)})


def test_what_is_unchanged_is_read() -> None:
    assert read_export(changed("seed", 5), "w") is not None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format", "resnet-repro/export/2"),
        ("seed", "x"),
        ("row", {}),
        ("row/depth", 21),
        ("row/name", "../../etc"),
        ("dataset/key", "../x"),
        ("dataset/row/classes", 11),
        ("dataset/row", None),
        ("class_names", ["cat"]),
        ("class_names", 3),
        ("result/final", {}),
        ("result/final", {TEST_ERR: None, TRAIN_CLEAN_ERR: None}),
        ("result/attempts", []),
        ("standing/test_errors", []),
        ("preprocessing/side", 0),
        ("preprocessing/mean", []),
        ("preprocessing/mean_image", "AAAA"),
        ("preprocessing/scale", [1, 2, "x"]),
    ],
)
def test_metadata_that_is_damaged_or_hostile_is_one_line(path: str, value: Any) -> None:
    with pytest.raises(InputError, match="w: ") as refused:
        read_export(changed(path, value), "w")
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 300


@pytest.mark.parametrize("field", ["format", "architecture"])
def test_a_file_without_its_architecture_is_one_line(field: str) -> None:
    about = json.loads(read_metadata(CONTENT)[HEADER])
    del about[field]
    with pytest.raises(InputError, match=r"w: .*no architecture of a network") as refused:
        read_export(with_header(CONTENT, {HEADER: json.dumps(about)}), "w")
    assert "\n" not in str(refused.value)


HOSTILE = "\x1b[31mred\n# line " + 1000 * "long"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("class_names", [HOSTILE, *NAMES[1:]]),
        ("dataset/row/name", HOSTILE),
        ("dataset/id", HOSTILE),
        ("result/attempts", [{"commit": HOSTILE, "hardware": [HOSTILE]}]),
    ],
)
def test_no_text_of_a_file_is_more_than_a_short_line(path: str, value: Any) -> None:
    exported = read_export(changed(path, value), "w")
    assert exported is not None
    lines = folder_files(exported)[CARD].decode().split("\n")
    assert all(line.isprintable() for line in lines)
    (shown,) = {line.count("long") for line in lines if "[31mred # line" in line}
    assert 0 < shown < 100 and "# line" not in {line[:6] for line in lines}


def test_a_header_that_was_written_here_is_one_that_others_read(tmp_path: Path) -> None:
    content = with_header(export(EXPERIMENTS["resnet20"]).weights, {"b": "ü", "a": "\n"})
    assert load(content).keys() == load(CONTENT).keys()
    assert read_metadata(content) == {"b": "ü", "a": "\n"}
    assert int.from_bytes(content[:8], "little") % 8 == 0
    assert torch.load(BytesIO(folder_files(export(ROW18), "torchvision")["resnet18.pth"]),
                      weights_only=True)["fc.weight"].shape == (7, 512)  # fmt: skip
