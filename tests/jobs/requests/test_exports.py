"""What is to be exported, of files that others may have made."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from analysis.measured.bundle import pack
from jobs.requests.exports import exports_named
from pipeline.errors import InputError
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.runs.model_card import PrintedError
from pipeline.storage import Storage
from pipeline.training.exported_weights import ExportedWeights, folder_files
from pipeline.training.step.weights import read_metadata
from tests.analysis.measured.test_hostile_bundles import FRAMES
from tests.conftest import Cli
from tests.pipeline.training.test_exported_weights import export

ROW = EXPERIMENTS["resnet20"]


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """An empty one, in the folder that tests write to."""
    monkeypatch.chdir(tmp_path)
    return Storage("s")


def written(folder: str, exported: ExportedWeights) -> str:
    """A folder of `results weights`."""
    Path(folder).mkdir(parents=True)
    for name, content in folder_files(exported).items():
        (Path(folder) / name).write_bytes(content)
    return folder


def bundled(file: str, exported: ExportedWeights) -> str:
    """A bundle that has a folder of weights."""
    files = {f"{exported.name}/{n}": content for n, content in folder_files(exported).items()}
    Path(file).write_bytes(pack(FRAMES, files))
    return file


def test_two_exports_of_one_name_are_refused_unless_they_are_equal(storage: Storage) -> None:
    first, other = export(ROW), replace(export(ROW), class_names=tuple("abcdefg"))
    names = [written("a", first), written("b", first), bundled("a.zip", first)]
    assert list(exports_named(storage, names)) == [first.name]
    for differs in (written("c", other), bundled("c.zip", other)):
        with pytest.raises(InputError, match=f"{differs}: {first.name} is there twice"):
            exports_named(storage, [*names, differs])


def test_weights_of_a_bundle_are_for_its_row(storage: Storage) -> None:
    metadata = read_metadata(folder_files(export(ROW))["model.safetensors"])
    content = save({"x": torch.zeros(1)}, metadata)
    Path("b.zip").write_bytes(pack(FRAMES, {f"{export(ROW).name}/model.safetensors": content}))
    with pytest.raises(InputError, match=r"b.zip: .*model.safetensors: .* missing") as refused:
        exports_named(storage, ["b.zip"])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet110", "6.43 (6.61±0.16) % test error (Table 6)"),
        ("plain20", "9.69 % test error (digitised from Figure 6, ±0.05 points)"),
    ],
)
def test_a_card_has_the_papers_errors_as_experiments_has_them(
    storage: Storage, cli: Cli, name: str, said: str
) -> None:
    assert said in cli("experiments", name).stdout
    # Whatever the file says.
    exported = export(EXPERIMENTS[name], dataset="cifar10")
    lies = replace(exported.standing, paper=(PrintedError("top-1", "1.00", "Table 9"),))
    folder = written("a", replace(exported, standing=lies))
    (make,) = exports_named(storage, [folder]).values()
    card = folder_files(make())["README.md"].decode()
    assert f"by its own recipe: {said}\n" in card
