"""Weights to take away: one file that says all that is needed to use it, and folders around it.

The file's metadata has the row, where its numbers come from, how pictures are prepared and what the
classes are called. A folder has a card beside it. Other layouts are those of torchvision and of
Hugging Face's transformers, for rows that these libraries have a network for.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from json import dumps
from typing import Any

import torch
from safetensors.torch import save
from typing_extensions import TypedDict

from pipeline.data.datasets import DatasetSpec
from pipeline.data.stored import class_names
from pipeline.errors import InputError, first_line, one_line
from pipeline.recipe.experiments import Experiment
from pipeline.recipe.other_libraries import (
    EXPORTED,
    WeightsLayout,
    layout_trouble,
    strides_differ,
    transformers_config,
    transformers_name,
)
from pipeline.runs.model_card import Standing, description, elsewhere
from pipeline.runs.run import Run, row_of
from pipeline.stored_json import parse, parse_as
from pipeline.training.feeding.preprocessing import Preprocessing, PreprocessingFacts
from pipeline.training.step.weights import (
    HEADER,
    read_metadata,
    read_tensors,
    stated_architecture,
    with_metadata,
)

EXPORT_FORMAT = "resnet-repro/export/1"
CARD = "README.md"
LONGEST_TEXT = 200
"""Of what a file says: names of classes, the commit, the hardware."""
BILINEAR = 2
"""As Pillow numbers its filters, and transformers with it."""


class ExportedDataset(TypedDict):
    """What a run was trained on; `row` is a dictionary of its fields."""

    id: str
    key: str
    row: DatasetSpec
    test_images: int


class ExportedResult(TypedDict):
    """What `result.json` says, as far as a card needs it; of attempts the last one alone."""

    iterations: int
    final: dict[str, float | None]
    attempts: list[dict[str, Any]]


class ExportedStanding(TypedDict):
    """`Standing`; the paper's errors beside it are for other readers, ours have their own."""

    test_errors: list[float]


class ExportFacts(TypedDict):
    """What the metadata says beside the architecture; `row` is a dictionary of its fields."""

    format: str
    row: Experiment
    seed: int
    dataset: ExportedDataset
    result: ExportedResult
    standing: ExportedStanding
    preprocessing: PreprocessingFacts
    class_names: list[str]


@dataclass(frozen=True, eq=False)
class ExportedWeights:
    """The final weights of a run, with what has to be known to use and to judge them.

    `dataset` is its manifest, `result` its `result.json`, each as far as `ExportFacts` has them;
    `weights` are safetensors in our names. `class_names` are numbers where nobody knows names.
    """

    run: Run
    dataset: dict[str, Any]
    result: dict[str, Any]
    standing: Standing
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    weights: bytes

    @property
    def name(self) -> str:
        """What its folder is called."""
        return folder_name(self.run)

    def facts(self) -> dict[str, Any]:
        """What `ExportFacts` describes, for JSON."""
        run, attempt = self.run, self.result["attempts"][-1]
        return {
            "format": EXPORT_FORMAT,
            "row": asdict(run.experiment),
            "seed": run.seed,
            "dataset": {
                "id": run.dataset_id,
                "key": run.dataset_key,
                "row": self.dataset["row"],
                "test_images": self.dataset["test_images"],
            },
            "result": {
                "iterations": self.result["iterations"],
                "final": self.result["final"],
                "attempts": [
                    {name: attempt[name] for name in ("commit", "hardware") if name in attempt}
                ],
            },
            "standing": asdict(self.standing),
            "preprocessing": self.preprocessing.facts(),
            "class_names": list(self.class_names),
        }

    def metadata(self) -> dict[str, str]:
        """The metadata of the file: our one entry, with the architecture as every file of ours."""
        stated = parse(read_metadata(self.weights)[HEADER])
        return {HEADER: dumps(stated | {"export": self.facts()}, sort_keys=True)}


def folder_name(run: Run) -> str:
    """What the folder of a run's weights is called: `resnet20-digits-1a2b3c4d-seed-0`.

    A row that differs from the paper's has its fingerprint's first digits after its name.
    """
    experiment = run.experiment
    changed = f"-{experiment.fingerprint[:8]}" if experiment.deviations() else ""
    return f"{experiment.name}{changed}-{run.dataset_key}-seed-{run.seed}"


def named_classes(manifest: dict[str, Any]) -> tuple[str, ...]:
    """What a dataset's classes are called, by number; their numbers where nobody has said."""
    names, row = class_names(manifest), manifest["row"]
    # ImageNet's folders are WordNet ids, in whose order torchvision has the words.
    ids = all(re.fullmatch(r"n\d{8}", name) for name in names)
    ends = names[:1] + names[-1:] in ((), ("n01440764", "n15075141"))
    thousand = row["classes"] == 1000 and row["side"] == 0 and (names or row["comparable"])
    if thousand and ids and ends:
        return imagenet_names()
    return names or numbers(row["classes"])


def numbers(classes: int) -> tuple[str, ...]:
    """The names of classes that nobody has named."""
    return tuple(map(str, range(classes)))


def imagenet_names() -> tuple[str, ...]:
    """ImageNet's thousand classes in words, in the order of their WordNet ids."""
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


def read_export(content: bytes, where: str) -> ExportedWeights | None:
    """What a safetensors file says of itself; None where it is no file to take away.

    What the paper states of its row is not taken from it.

    Raises:
        InputError: it is one, and damaged or of another version; `where` names it.
    """
    try:
        about = parse(read_metadata(content).get(HEADER, "{}"))
    except ValueError:
        return None
    export = about.get("export") if isinstance(about, dict) else None
    if export is None:
        return None
    facts: Any = parse_as(dumps(export).encode(), ExportFacts, f"{where}: its metadata")
    # Whoever wrote them: they are printed on terminals and cards. But for an image in base64.
    facts = _short_lines(facts) | {"preprocessing": facts["preprocessing"]}
    try:
        if facts["format"] != EXPORT_FORMAT:
            raise ValueError(f"format {facts['format'][:50]!r}")
        if not stated_architecture(read_metadata(content)):
            raise ValueError("no architecture of a network")
        data = facts["dataset"]
        run = Run(row_of(facts["row"]), data["id"], data["key"], facts["seed"])
        names = tuple(facts["class_names"])
        if len(names) != DatasetSpec(**data["row"]).classes or not facts["result"]["attempts"]:
            raise ValueError(f"{len(names)} names of classes")
        # It becomes a folder's name.
        if not re.fullmatch(r"\w[\w.-]*", folder_name(run)):
            raise ValueError(f"a run called {folder_name(run)[:50]!r}")
        exported = ExportedWeights(
            run,
            {"row": data["row"], "test_images": data["test_images"]},
            facts["result"],
            Standing(tuple(facts["standing"]["test_errors"])),
            Preprocessing.from_facts(facts["preprocessing"]),
            names,
            content,
        )
        _card(exported, "resnet-repro")  # whatever it says can be said
        return exported
    except (ValueError, TypeError, KeyError, ArithmeticError) as error:
        raise InputError(
            f"{where}: what it says of itself is damaged, or of another version "
            f"({first_line(error)}); export it again"
        ) from error


def _short_lines(value: Any) -> Any:
    """A value of JSON with each text in it as one line, within a bound."""
    if isinstance(value, str):
        return one_line(value)[:LONGEST_TEXT]
    if isinstance(value, list):
        return [_short_lines(inner) for inner in value]
    if isinstance(value, dict):
        return {_short_lines(name): _short_lines(inner) for name, inner in value.items()}
    return value


def folder_files(
    exported: ExportedWeights, layout: WeightsLayout = "resnet-repro"
) -> dict[str, bytes]:
    """The files of a folder in a layout, by name; the weights are the last.

    Raises:
        InputError: the library has no such network; says why.
    """
    if why := layout_trouble(exported.run.experiment, layout):
        raise InputError(f"{exported.run}: {why}")
    card = {CARD: _card(exported, layout).encode()}
    if layout == "resnet-repro":
        return card | {EXPORTED: with_metadata(exported.weights, exported.metadata())}
    tensors, _ = read_tensors(exported.weights, exported.name)
    if layout == "torchvision":
        buffer = BytesIO()
        torch.save(tensors, buffer)
        return card | {_pth(exported): buffer.getvalue()}
    renamed = save({transformers_name(name): tensor for name, tensor in tensors.items()})
    # transformers reads no file without this `format`.
    metadata = {"format": "pt"} | exported.metadata()
    return card | {
        "config.json": _json(transformers_config(exported.run.experiment, exported.class_names)),
        "preprocessor_config.json": _json(_processor(exported.preprocessing)),
        EXPORTED: with_metadata(renamed, metadata),
    }


def layout_notes(exported: ExportedWeights, layout: WeightsLayout) -> list[str]:
    """What differs for whoever uses a folder by another library than this one, a line each."""
    experiment, notes = exported.run.experiment, []
    if layout == "torchvision" and strides_differ(experiment):
        notes.append(
            f"torchvision's resnet{experiment.depth} halves the map in a 3x3 convolution, these "
            f"weights in a 1x1: it loads, and computes something else until {CARD}'s lines set "
            "its strides"
        )
    if layout != "resnet-repro" and exported.preprocessing.mean_image is not None:
        notes.append(
            f"{layout} subtracts one mean a channel, the row a mean image: probabilities differ a "
            "little; `resnet-repro predict` subtracts the image"
        )
    return notes


def _pth(exported: ExportedWeights) -> str:
    return f"resnet{exported.run.experiment.depth}.pth"


def _json(value: dict[str, Any]) -> bytes:
    return (dumps(value, indent=2) + "\n").encode()


def _processor(preprocessing: Preprocessing) -> dict[str, Any]:
    """`preprocessor_config.json`: the processor of `microsoft/resnet-18`, at the row's sizes."""
    side, shorter = preprocessing.side, preprocessing.shorter_side
    # It resizes to int(side / crop_pct), which has to come to the row's shorter side.
    share = side / shorter if int(side / (side / shorter)) == shorter else side / (shorter + 0.5)
    return {
        "crop_pct": share,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "feature_extractor_type": "ConvNextFeatureExtractor",
        "image_processor_type": "ConvNextImageProcessor",
        "image_mean": [mean / 255 for mean in preprocessing.mean.tolist()],
        "image_std": [1 / (255 * scale) for scale in preprocessing.scale.tolist()],
        "resample": BILINEAR,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": side},
    }


def _card(exported: ExportedWeights, layout: WeightsLayout) -> str:
    run, classes = exported.run, len(exported.class_names)
    data = exported.dataset["row"]["name"]
    file = _pth(exported) if layout == "torchvision" else EXPORTED
    ours = [
        "    resnet-repro predict PICTURE... --model FOLDER",
        f"    resnet-repro evaluate FOLDER --data {data}",
    ]
    lines = [
        "---",
        f"library_name: {'pytorch' if layout == 'torchvision' else layout}",
        "pipeline_tag: image-classification",
        "tags: [resnet]",
        "---",
        "",
        f"# {run.experiment.name} on {data}, seed {run.seed}",
        "",
        *description(run, exported.dataset, exported.result, exported.standing),
        "",
        "## Use",
        "",
        *([*ours, ""] if layout != "torchvision" else []),
        *(
            _transformers_lines()
            if layout == "transformers"
            else elsewhere(run.experiment, classes, file)
        ),
        "",
        "## Pictures",
        "",
        *(f"- {line}" for line in exported.preprocessing.sentences()),
        *(f"- {note[0].upper()}{note[1:]}." for note in layout_notes(exported, layout)),
        "- Classes, by number: " + _classes(exported.class_names),
    ]
    if layout != "torchvision":
        lines += [
            f"- `{EXPORTED}` says the same in its metadata, as JSON under `{HEADER}`, with all "
            "fields of the row; `mean_image` there is base64 of little-endian float32.",
        ]
    return "\n".join(lines) + "\n"


def _transformers_lines() -> list[str]:
    return [
        "    from transformers import AutoImageProcessor, ResNetForImageClassification",
        "",
        '    processor = AutoImageProcessor.from_pretrained("FOLDER")',
        '    network = ResNetForImageClassification.from_pretrained("FOLDER")',
    ]


def _classes(names: Sequence[str], few: int = 20) -> str:
    """The names of the classes as far as a line holds them."""
    if tuple(names) == numbers(len(names)):
        return f"0 to {len(names) - 1}"
    shown = ", ".join(f"{number} {name}" for number, name in enumerate(names[:few]))
    return shown + (f", ... ({len(names)})" if len(names) > few else "")
