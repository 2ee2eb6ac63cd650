"""What a user can get wrong on the command line ends in one clear line and exit code 2, before
anything starts.
"""

import json
from io import BytesIO
from pathlib import Path
from time import monotonic

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipeline.data.datasets import Dataset
from pipeline.recipe.overrides import experiment_named
from pipeline.runs.run import Run
from pipeline.storage import Storage
from tests.conftest import Cli

SHORT = ("--data", "digits", "--iterations", "8", "--set", "eval_every=8")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train", "resnet21"), "unknown experiment resnet21; did you mean"),
        (
            ("train", "plain18", "--data", "digits"),
            "plain18 does not suit --data digits, which is of small images",
        ),
        (("train", "resnet20", "--set", "wieght_decay=0"), "did you mean weight_decay"),
        (("train", "resnet20", "--set", "lr=fast"), "lr takes a number"),
        (("train", "resnet20", "--set", "sgd=adam"), "one of caffe, torch"),
        (("train", "resnet20", "--set", "lr"), "FIELD=VALUE"),
        (("train", "resnet20", "--iterations", "2"), "at least 4"),
        (("train", "resnet20", "--data", "digit"), "did you mean digits"),
        (("train", "resnet20", "--data", "/no/such/place"), "no dataset and no path"),
        (("train", "resnet20", "--data", "cifar10"), "data prepare cifar10"),
        (("train", "resnet20", "--data", "digits", "--workers", "4"), "at most 2"),
        (("train", "resnet20", "--tracking", "htp:/x"), "expected http://HOST:PORT"),
        (("train", "resnet20", "--tracking", "sqlite://x.db"), "expected http://HOST:PORT"),
        (("train", "resnet20", "--tracking", "http://:5000"), "expected http://HOST:PORT"),
        (("train", "resnet20", "--threads", "0"), "greater than or equal to 1"),
        (
            ("train", "resnet20", "--set", "augmentation=scale_crop_flip_colour"),
            "not for cifar rows",
        ),
        (("train", "resnet20", "--storage", "ftp://host/x"), "not a folder or URI"),
        (("grid", "table7"), "did you mean table6"),
        (("grid",), "Missing argument"),
        (("train", "resnet20", "--bogus"), "No such option"),
        (("data", "prepare", "mnist"), "unknown dataset mnist"),
        (("data", "verify", "digits"), "not prepared"),
        (("report",), "holds no runs yet"),
        (("report", "--seeds", "0-x"), "expected numbers such as 0-4"),
        (("ui",), "does not exist"),
    ],
)
def test_one_line_and_exit_code_2(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    own = (
        ()
        if arguments[0] in ("experiments",) or "--storage" in arguments
        else ("--storage", str(tmp_path / "s"))
    )
    done = cli(*arguments, *own)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("error: ") and says in done.stderr


LONG = "a" * 5000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("status", "--storage", LONG), "File name too long"),
        (("status", "--storage", "/dev/null"), "/dev/null is no folder"),
        (("status", "--storage", "/dev/null/x"), "/dev/null is no folder"),
        (("data", "list", "--storage", "s3://"), "names no bucket"),
        (("clean", "--storage", " "), "is empty"),
        (("status", "--storage", "a\nb"), "argument 3, a\\nb: holds a line break"),
        (("status", "--storage", "\udcff"), "bytes that are no text"),
        (("train", "resnet20", "--data", "~nouser/x"), "no dataset and no path"),
        (("train", "resnet20", "--data", LONG, "--dry-run"), "no dataset and no path"),
        (("train", "resnet20", "--set", "lr=0.1\n"), "holds a line break"),
        (("train", "resnet20", "--set", "depth=4294967294"), "depth must be at most 10,000"),
        (("train", "resnet20", "--set", "eval_every=1", "--iterations", "200000"), "evaluations"),
        (("train", "resnet20", "--seed", "9223372036854775808"), "--seed"),
        (("train", "resnet20", "--workers", "9" * 5000), "expected a number such as 2"),
        (("train", "resnet20", "--gpus", "nan"), "--gpus"),
        (("train", "resnet20", "--checkpoint-seconds", "nan"), "--checkpoint-seconds"),
        (("train", "resnet20", "--tracking", "http://a b@host"), "no blanks"),
        (("grid", "demo", "--iterations", "0"), "at least 4 iterations"),
        (("grid", "demo", "--seeds", "4294967296"), "'--seeds'"),
        (("plan", "demo", "--seeds", "4294967296", "--gpus", "8xH100"), "'--seeds'"),
        (("plan", "demo", "--iterations", "4294967296", "--gpus", "8xH100"), "'--iterations'"),
        (("plan", "demo", "--set", "iterations=4294967296", "--gpus", "8xH100"), "iterations must"),
        (("plan", "demo", "--gpus", "9" * 5000 + "xH100"), "--gpus"),
        (("report", "--seeds", "0-4294967296"), "more than 1,000 seeds"),
        (("report", "--seeds", "9" * 5000), "expected numbers such as 0-4"),
    ],
)
def test_what_nothing_could_be_done_with_is_refused_at_once(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    own = () if "--storage" in arguments else ("--storage", str(tmp_path / "s"))
    begun = monotonic()
    done = cli(*arguments, *own, timeout=30)
    assert done.returncode == 2, done.stderr
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ") and says in done.stderr and len(done.stderr) < 1100
    # Three seconds on a machine that does nothing else: tests run beside each other.
    assert monotonic() - begun < 10
    assert not (tmp_path / "s" / "runs").exists()


@pytest.mark.parametrize("command", ["train", "grid"])
def test_tf32_on_cpus_is_refused_before_anything_is_written(
    cli: Cli, tmp_path: Path, command: str
) -> None:
    line = ("resnet20", "--set", "precision=tf32", "--device", "cpu", "--storage", tmp_path / "s")
    done = cli(command, *line)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "error: resnet20" in done.stderr and "precision=tf32" in done.stderr
    assert not (tmp_path / "s").exists()


@pytest.mark.ray
@pytest.mark.skipif(torch.cuda.is_available(), reason="here it would be trained")
def test_tf32_is_refused_where_the_cluster_turns_out_to_have_cpus(cli: Cli, tmp_path: Path) -> None:
    done = cli("train", "resnet20", *SHORT, "--set", "precision=tf32", "--storage", tmp_path)
    assert done.returncode == 2 and "this would run on CPUs" in done.stderr, done.stderr
    assert not (tmp_path / "runs").exists()


def test_storage_that_cannot_be_written(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = cli("train", "resnet20", "--storage", str(tmp_path / "file" / "below"))
    assert done.returncode == 2 and "cannot be written" in done.stderr


@pytest.mark.parametrize("content", [b"not an archive", b""])
def test_a_truncated_or_foreign_archive_has_the_wrong_checksum(
    cli: Cli, tmp_path: Path, content: bytes
) -> None:
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(content)
    done = cli(
        "data", "prepare", "cifar10", "--from", str(archive), "--storage", str(tmp_path / "s")
    )
    assert done.returncode == 2 and "md5" in done.stderr
    assert not (tmp_path / "s" / "datasets").exists()


@pytest.mark.parametrize(
    ("side", "label", "says"),
    [
        (32, 10, "label 10, labels go from 0 to 9"),
        (31, 3, "an image of shape (31, 31, 3), not (32, 32, 3)"),
    ],
)
def test_a_label_out_of_range_and_an_image_of_the_wrong_shape(
    cli: Cli, tmp_path: Path, side: int, label: int, says: str
) -> None:
    picture = BytesIO()
    Image.new("RGB", (side, side)).save(picture, format="PNG")
    rows = [{"img": {"bytes": picture.getvalue(), "path": None}, "label": label}]
    (tmp_path / "mine").mkdir()
    for split in ("train", "test"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "mine" / f"{split}.parquet")
    done = cli("train", "resnet20", "--data", tmp_path / "mine", "--storage", tmp_path / "s")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert "train.parquet, row 0: " in done.stderr and says in done.stderr
    assert not (tmp_path / "s" / "datasets").exists()


@pytest.mark.ray
def test_more_than_the_cluster_can_ever_have_is_refused_at_once(cli: Cli, tmp_path: Path) -> None:
    done = cli(
        "train",
        "resnet20",
        "--threads",
        "4096",
        *SHORT,
        "--storage",
        str(tmp_path / "s"),
        timeout=90,
    )
    assert done.returncode == 2 and "4096 CPU each" in done.stderr and "at the most" in done.stderr


def test_weights_of_another_architecture(cli: Cli, tmp_path: Path) -> None:
    from pipeline.training.step.networks import build_network
    from pipeline.training.step.weights import weights_bytes

    plain = experiment_named("plain20")
    (tmp_path / "w.safetensors").write_bytes(
        weights_bytes(build_network(plain, 0).state_dict(), plain, 10)
    )
    done = cli(
        "evaluate",
        str(tmp_path / "w.safetensors"),
        "--as",
        "resnet20",
        "--data",
        "digits",
        "--storage",
        str(tmp_path / "s"),
    )
    assert done.returncode == 2 and "plain" in done.stderr and "option A" in done.stderr
    done = cli(
        "evaluate",
        tmp_path / "w.safetensors",
        *("--as", "plain20", "--device", "gpu", "--storage", tmp_path / "s", "--data", "digits"),
    )
    if not torch.cuda.is_available():
        assert done.returncode == 2 and "--device gpu: torch finds no GPU here" in done.stderr
    # Nor is a network of an arithmetic that CPUs do not have tested in another one.
    line = ("evaluate", tmp_path / "w.safetensors", "--as", "plain20", "--set", "precision=tf32")
    done = cli(*line, "--data", "digits", "--device", "cpu", "--storage", tmp_path / "s")
    assert done.returncode == 2 and "plain20" in done.stderr and "precision=tf32" in done.stderr


def test_weights_made_elsewhere(cli: Cli, tmp_path: Path) -> None:
    from pipeline.training.step.networks import build_network

    options = ("--as", "resnet20", "--set", "depth=8", "--data", "digits")
    options = (*options, "--storage", str(tmp_path / "s"))
    state = build_network(experiment_named("resnet20", ["depth=8"]), 0).state_dict()
    names = {f"module.{name.replace('fc.', 'linear.')}": value for name, value in state.items()}
    torch.save({"state_dict": names}, tmp_path / "w.th")
    done = cli("evaluate", tmp_path / "w.th", *options, "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 1
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert len(notes) == 4 and "zero channels on both sides" in notes[-1]

    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pt")
    (tmp_path / "w.pth").write_text("<html>404</html>")
    for name, said in (("w.pt", "holds no convolution's weights"), ("w.pth", "is a web page")):
        done = cli("evaluate", tmp_path / name, *options)
        assert done.returncode == 2 and f"{name}: {said}" in done.stderr
        assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1
    done = cli("evaluate", "nowhere.ckpt", *options)
    assert done.returncode == 2 and "nowhere.ckpt: no such file" in done.stderr


@pytest.mark.ray
def test_a_checkpoint_that_is_not_ours(cli: Cli, storage: Storage, digits_dataset: Dataset) -> None:
    experiment = experiment_named("resnet20", ["eval_every=8"], 8)
    key = digits_dataset.id
    run = Run(experiment, key, f"digits-{key[:8]}", 0)
    storage.write(
        f"{run.folder}/checkpoints/00000004/manifest.json",
        json.dumps({"format": "someone else's"}).encode(),
    )
    done = cli("train", "resnet20", *SHORT, "--storage", storage.uri)
    assert done.returncode == 2, done.stderr
    assert "not a checkpoint of ours" in done.stderr


@pytest.mark.ray
def test_a_run_json_that_is_not_ours_and_a_damaged_dataset(
    cli: Cli, storage: Storage, digits_dataset: Dataset
) -> None:
    run = Run(
        experiment_named("resnet20", ["eval_every=8"], 8), digits_dataset.id, digits_dataset.key, 0
    )
    storage.write(f"{run.folder}/run.json", b"{}")
    done = cli("train", "resnet20", *SHORT, "--storage", storage.uri)
    assert done.returncode == 2 and "run.json: not a file of ours" in done.stderr
    storage.delete(run.folder)
    images = f"datasets/{digits_dataset.id}/images.safetensors"
    storage.write(images, storage.read(images)[:-1] + b"?")
    done = cli("train", "resnet20", *SHORT, "--storage", storage.uri)
    assert done.returncode == 2 and "damaged (checksum differs)" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
