"""What is taken of a file that others may have made, to score its network."""

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.requests.stored_runs import model_named
from pipeline.data.stored import write_dataset
from pipeline.errors import InputError
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.storage import Storage
from tests.jobs.requests.test_exports import written
from tests.pipeline.training.small_runs import digits_once
from tests.pipeline.training.test_exported_weights import export


def on(name: str, dataset_id: str = "1" * 16) -> str:
    """A folder of an export that says it was trained on this dataset."""
    first = export(EXPERIMENTS["resnet20"])
    row = first.dataset["row"] | {"name": name}
    run = replace(first.run, dataset_id=dataset_id)
    return written("w", replace(first, run=run, dataset=first.dataset | {"row": row}))


def test_a_files_dataset_is_never_taken_for_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    storage, folder = Storage("s"), on("pictures")
    with pytest.raises(InputError, match=r"was on pictures 1{16}, which is neither prepared in"):
        model_named(storage, folder, None, [])
    assert model_named(storage, folder, None, [], data="digits").dataset == ""


def test_a_files_dataset_is_one_of_the_catalogue_or_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    storage, folder = Storage("s"), on("digits")
    assert model_named(storage, folder, None, []).dataset == "digits"
    write_dataset(storage, digits_once(), {"kind": "embedded"})
    assert capsys.readouterr().err == ""
    assert model_named(storage, folder, None, []).dataset == digits_once().id
    said = capsys.readouterr().err
    assert said.startswith(
        f"note: w: its run was on digits {'1' * 16}; digits is {digits_once().id}"
    )
