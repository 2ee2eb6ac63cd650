"""`results weights` and `predict`: a run's network is published, and looks at pictures, as run,
folder, bundle or file.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import ignore_patterns
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load

from analysis.measured.frames import FINISHED
from jobs.cli.bundles import _folders as weights_folders
from pipeline.data.photo_shards import open_photos
from pipeline.data.stored import write_dataset
from pipeline.recipe.other_libraries import WeightsLayout
from pipeline.runs.checkpoint import final_weights
from pipeline.runs.run import Run, read_result, start_run
from pipeline.storage import Storage
from pipeline.training.loop import train
from pipeline.training.step.process_group import single_process
from pipeline.training.step.weights import read_tensors
from tests.conftest import Cli
from tests.pipeline.data.photographs import WNIDS, as_folders, ingested, pictures
from tests.pipeline.training.small_runs import digits_once, small_run
from tests.pipeline.training.step.test_foreign_weights import unlike
from tests.pipeline.training.test_photo_runs import run_on


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a storage `s` of two finished seeds, and a picture of its test split."""
    place = tmp_path_factory.mktemp("weights")
    storage = Storage(str(place / "s"))
    write_dataset(storage, digits_once(), {"kind": "embedded"})
    for seed in (0, 1):
        start_run(storage, small_run(seed), 1)
        train(small_run(seed), digits_once(), storage, single_process())
    Image.fromarray(digits_once().test.pixels[0]).save(place / "digit.png")
    return place


@pytest.fixture
def here(trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder with links to the storage and the picture."""
    for name in ("s", "digit.png"):
        (tmp_path / name).symlink_to(trained / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def weights_of(run: Run, storage: str = "s") -> bytes:
    place = Storage(storage)
    result = read_result(place, run)
    assert result is not None
    content = final_weights(place, run, result)
    assert content is not None
    return content


NAME = small_run().folder.removeprefix("runs/").replace("/", "-")


def predicted(cli: Cli, *words: str) -> list[dict]:
    done = cli("predict", *words, "--json")
    assert done.returncode == 0, done.stderr
    return [each["likeliest"] for each in json.loads(done.stdout)]


def test_a_run_its_folder_and_its_bundle_predict_the_same(cli: Cli, here: Path) -> None:
    made = cli("results", "weights", "--storage", "s", "--out", "w")
    assert made.returncode == 0, made.stderr
    assert sorted(file.name for file in (here / "w").iterdir()) == [NAME, NAME[:-1] + "1"]
    folder = here / "w" / NAME
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "model.safetensors"]
    file = (folder / "model.safetensors").read_bytes()
    kept = read_tensors(weights_of(small_run()), "kept")[0]
    assert all(torch.equal(tensor, kept[name]) for name, tensor in load(file).items())
    card = (folder / "README.md").read_text()
    assert "(n = 2)" in card and "8.75" not in card and "errors are of its own data" in card

    # The folder needs no storage, nor does the file in it.
    shutil.copytree(folder, here / "elsewhere")
    of_run = predicted(cli, "digit.png", "--model", small_run().folder, "--storage", "s")
    for model in ("elsewhere", "elsewhere/model.safetensors"):
        assert predicted(cli, "digit.png", "--model", model, "--storage", "none") == of_run
    assert not (here / "none").exists()
    (likeliest,) = of_run
    assert len(likeliest) == 5 and likeliest[0]["name"] == str(likeliest[0]["class"])
    assert 1 >= likeliest[0]["probability"] >= likeliest[4]["probability"] >= 0

    # `evaluate` knows the row and the dataset by the folder alone.
    scored = cli("evaluate", "elsewhere", "--storage", "s", "--json")
    assert scored.returncode == 0, scored.stderr
    run_scored = cli("evaluate", small_run().folder, "--storage", "s", "--json")
    rows = [json.loads(done.stdout)[0] for done in (scored, run_scored)]
    assert rows[0]["top1_err"] == rows[1]["top1_err"] and rows[0]["loss"] == rows[1]["loss"]


@pytest.mark.slow
def test_a_bundle_has_the_folders_too(cli: Cli, here: Path) -> None:
    from jobs.tracking.other_publications import publish_stored

    publish_stored(f"sqlite:///{here}/mlflow.db", Storage("s"), lambda _: None)
    store = f"sqlite:///{here}/mlflow.db"
    words = ("results", "export", "b.zip", "--weights", "--storage", "s", "--tracking", store)
    packed = cli(*words)
    assert packed.returncode == 0, packed.stderr
    assert cli("results", "weights", "b.zip", "--out", "unpacked").returncode == 0
    assert cli("results", "weights", "--out", "made", "--storage", "s").returncode == 0
    for file in (here / "made").rglob("*.*"):
        if file.is_file():
            other = here / "unpacked" / file.relative_to(here / "made")
            assert other.read_bytes() == file.read_bytes()


def test_pictures_of_any_kind_become_rgb_as_a_datasets_do(cli: Cli, here: Path) -> None:
    digit = Image.open("digit.png")
    digit.convert("L").save("grey.png")
    digit.convert("RGBA").save("alpha.png")
    digit.convert("L").convert("P").save("palette.gif")
    digit.save("lossless.webp", lossless=True)
    digit.convert("CMYK").save("cmyk.tiff")
    deep = np.asarray(digit.convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save("deep.png")
    digit.save("picture.jpg", quality=100, subsampling=0)
    digit.resize((160, 160), Image.Resampling.NEAREST).save("large.png")
    names = ["digit.png", "grey.png", "alpha.png", "palette.gif", "lossless.webp"]
    names += ["cmyk.tiff", "deep.png"]
    model = ("--model", small_run().folder, "--storage", "s")
    first, *others = predicted(cli, *names, "picture.jpg", "large.png", *model)
    assert others[: len(names) - 1] == [first] * (len(names) - 1)
    jpeg, large = others[len(names) - 1 :]
    assert jpeg[0]["class"] == large[0]["class"] == first[0]["class"]
    assert jpeg[0]["probability"] == pytest.approx(first[0]["probability"], abs=0.1)

    shown = cli("predict", "digit.png", "large.png", *model)
    assert shown.returncode == 0 and len(shown.stdout.splitlines()) == 12
    top = f"{100 * first[0]['probability']:7.2f} %  {first[0]['name']}"
    assert shown.stdout.splitlines()[:2] == ["digit.png: 16x16 pixels", top]
    assert shown.stderr.startswith("note: large.png: is resized")
    assert len(shown.stderr.splitlines()) == 1


def write_cut(path: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-300])


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("no picture"), "is no picture that can be decoded (none"),
    "empty": (lambda path: path.write_bytes(b""), "is no picture that can be decoded (empty)"),
    "cut": (write_cut, "is no picture that can be decoded"),
    "missing": (lambda path: None, "cannot be read (No such file or directory)"),
    "folder": (lambda path: path.mkdir(), "is a folder, where a file is expected"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_picture_is_one_line(cli: Cli, here: Path, kind: str) -> None:
    write, said = BAD[kind]
    write(here / "bad.jpg")
    done = cli("predict", "digit.png", "bad.jpg", "--model", small_run().folder, "--storage", "s")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith(f"error: bad.jpg: {said}")
    # But for what shows only once it is decoded, nothing is computed before.
    assert (done.stdout == "") == (kind != "cut")


def test_weights_made_elsewhere_are_told_their_row_and_dataset(cli: Cli, here: Path) -> None:
    tensors, _ = read_tensors(weights_of(small_run()), "ours")
    torch.save({f"module.{name}": tensor for name, tensor in tensors.items()}, "theirs.pth")
    words = ("digit.png", "--model", "theirs.pth", "--as", "resnet20", "--set", "depth=8")
    of_run = predicted(cli, "digit.png", "--model", small_run().folder, "--storage", "s")
    assert predicted(cli, *words, "--data", "digits", "--storage", "s") == of_run

    untold = cli("predict", *words)
    assert untold.returncode == 2 and untold.stderr.splitlines()[-1].startswith(
        "error: theirs.pth: normalisation=per_pixel_mean takes a mean of the training images; name"
    )
    # One that takes none needs no dataset, and its classes have numbers.
    alone = cli("predict", *words, "--set", "normalisation=torchvision", "--json")
    assert alone.returncode == 0 and "its classes have no names here" in alone.stderr
    assert cli("predict", "digit.png", "--model", "theirs.pth").returncode == 2


def test_imagenets_weights_made_elsewhere_have_its_words(cli: Cli, here: Path) -> None:
    from torchvision.models import resnet18

    torch.save(unlike(resnet18()).state_dict(), "resnet18.pth")
    Image.new("RGB", (300, 400), "green").save("photo.jpg")
    words = ("photo.jpg", "--model", "resnet18.pth", "--as", "resnet18", "--set", "shortcut=B")
    (likeliest,) = predicted(cli, *words, "--set", "normalisation=torchvision")
    assert all(not each["name"].isdecimal() for each in likeliest)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--model nothing", "nothing: no such run in"),
        ("--model nothing.pth", "nothing.pth: no such file"),
        ("--model resnet20", "resnet20: 2 runs are meant"),
        ("--model RUN --as resnet20", "says itself what it is"),
        ("--model RUN --data digits", "says itself what it is"),
    ],
)
def test_networks_that_are_not_clear_are_one_line(
    cli: Cli, here: Path, words: str, said: str
) -> None:
    words = words.replace("RUN", small_run().folder)
    done = cli("predict", "digit.png", *words.split(), "--storage", "s")
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1


def test_folders_are_never_written_over(cli: Cli, here: Path) -> None:
    words = ("results", "weights", "seed-0", "--storage", "s")
    refused = cli(*words)
    assert refused.returncode == 2 and "no such run" in refused.stderr
    words = ("results", "weights", small_run().folder, "--storage", "s")
    # What a killed command left is no folder, and goes with the next one.
    left = here / "weights" / f".{NAME}.resnet-repro.partial"
    left.mkdir(parents=True)
    (left / "README.md").write_text("cut")
    assert cli(*words).returncode == 0
    assert (here / "weights" / NAME / "README.md").read_text() != "cut" and not left.exists()
    before = (here / "weights" / NAME / "README.md").stat().st_mtime_ns
    again = cli(*words)
    assert again.returncode == 2 and f"weights/{NAME}: is there already" in again.stderr
    # All seeds of a name: one is in the way, and so none is written.
    assert cli("results", "weights", "resnet20", "--storage", "s").returncode == 2
    assert [file.name for file in (here / "weights").iterdir()] == [NAME]
    assert (here / "weights" / NAME / "README.md").stat().st_mtime_ns == before


def test_the_help_says_which_folders_are_taken_as_they_are(cli: Cli) -> None:
    words = " ".join(cli("results", "weights", "--help").stdout.split())
    assert "torchvision's .pth needs --as" in words.replace("`", "")


@pytest.mark.parametrize("layout", ["torchvision", "transformers"])
def test_a_row_that_no_library_has_is_one_line(cli: Cli, here: Path, layout: str) -> None:
    done = cli("results", "weights", "--layout", layout, "--storage", "s")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert f"{layout} has no network that computes what resnet20 does: it is one of" in done.stderr
    assert "(and 1 more)" in done.stderr and not (here / "weights").exists()


def test_runs_that_are_not_there_any_more_are_one_line(cli: Cli, here: Path) -> None:
    empty = cli("results", "weights", "--storage", "empty")
    assert empty.returncode == 2 and "holds no finished runs" in empty.stderr
    shutil.copytree(here / "s", here / "copy")
    shutil.rmtree(here / "copy" / "datasets")
    gone = cli("results", "weights", "--storage", "copy")
    assert gone.returncode == 2 and "its dataset is not in" in gone.stderr
    assert len(gone.stderr.splitlines()) == 1 and not (here / "weights").exists()
    # A run that was brought here without its weights counts as a seed, and is left out.
    (here / "copy").rename(here / "gone")
    shutil.copytree(here / "s", here / "copy")
    for file in (here / "copy" / small_run().folder).rglob("weights.safetensors"):
        file.unlink()
    assert cli("results", "weights", "--storage", "copy").returncode == 0
    (folder,) = (here / "weights").iterdir()
    assert folder.name == NAME[:-1] + "1" and "(n = 2)" in (folder / "README.md").read_text()
    without = cli("results", "weights", small_run().folder, "--storage", "copy")
    assert without.returncode == 2 and "was brought here without them" in without.stderr
    (here / "foreign.safetensors").write_bytes(weights_of(small_run()))
    unsaid = cli("results", "weights", "foreign.safetensors")
    assert unsaid.returncode == 2 and "does not say what it is" in unsaid.stderr


def copied_with_a_lost_dataset(place: Path) -> Run:
    """The run on it, which a copy of the storage holds beside its own."""
    run = replace(small_run(), dataset_id="1" * 16, dataset_key="gone-11111111")
    shutil.copytree("s", place)
    start_run(Storage(str(place)), run, 1)
    ours = ignore_patterns("run.json")
    shutil.copytree(place / small_run().folder, place / run.folder, ignore=ours, dirs_exist_ok=True)
    result = place / run.folder / "result.json"
    result.write_text(result.read_text().replace(small_run().dataset_id, run.dataset_id))
    return run


def test_a_run_whose_dataset_is_gone_is_left_out_unless_it_alone_is_named(
    cli: Cli, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = copied_with_a_lost_dataset(here / "copy")
    all_of_them = cli("results", "weights", "--storage", "copy")
    assert all_of_them.returncode == 0, all_of_them.stderr
    assert f"note: left out: {gone}: its dataset is not in" in all_of_them.stderr
    assert len(list((here / "weights").iterdir())) == 2
    alone = cli("results", "weights", gone.folder, "--storage", "copy", "--out", "other")
    assert alone.returncode == 2 and "its dataset is not in" in alone.stderr

    keys = [gone.key, small_run().key]
    rows = pd.DataFrame({"run_id": keys, "status": [FINISHED] * 2})
    frames: Any = SimpleNamespace(runs=rows)
    packed = weights_folders(Storage("copy"), frames)
    assert packed.keys() == {f"{NAME}/README.md", f"{NAME}/model.safetensors"}
    said = capsys.readouterr().err
    assert said.startswith(f"note: weights left out: {gone}: its dataset is not in")


def test_a_run_on_photographs_is_one_network_in_every_layout(cli: Cli, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "s"))
    folders = as_folders(tmp_path / "p", pictures())
    photos = open_photos(storage, ingested(storage, folders)["id"], None)
    run = run_on(photos, shortcut="B")
    start_run(storage, run, 1)
    train(run, photos, storage, single_process())

    place, shown = (
        ("--storage", str(tmp_path / "s")),
        [str(file) for file in folders.rglob("*_*2*")],
    )
    assert len(shown) > 3  # grey ones, CMYK and others
    of_run = predicted(cli, *shown, "--model", run.folder, *place)
    assert {each["name"] for each in of_run[0]} == set(WNIDS)
    name = run.folder.removeprefix("runs/").replace("/", "-")
    for layout in get_args(WeightsLayout):
        out = tmp_path / layout
        words = ("results", "weights", run.folder, "--layout", layout, "--out", str(out), *place)
        made = cli(*words)
        assert made.returncode == 0, made.stderr
        assert made.stderr == ""  # of a crop of 32 no mean image is subtracted, as there is none
        model = ["--model", str(out / name)]
        if layout == "torchvision":
            model = ["--model", str(out / name / "resnet18.pth"), "--as", "resnet18"]
            model += [f"--set={each}" for each in ("shortcut=B", "crop=32", "scale=32,40")]
            model += ["--set=test_side=36", "--set=test_sides=32,40", "--data", photos.id, *place]
        assert predicted(cli, *shown, *model) == of_run
        # And back: from a folder to another layout, without the storage.
        if layout != "torchvision":
            back = ("results", "weights", str(out / name), "--out", str(out / "back"))
            assert cli(*back).returncode == 0
            again, first = (
                (folder / name / "model.safetensors").read_bytes()
                for folder in (out / "back", tmp_path / "resnet-repro")
            )
            assert again == first
