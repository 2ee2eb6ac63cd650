"""`resnet-repro bench gpu-imagenet`, tried on the CPU: everything but what a GPU makes of it."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.one_gpu import imagenet as gpu_imagenet
from benchmarks.one_gpu.imagenet import STOCK, ImagenetBench, bench
from pipeline.errors import InputError
from pipeline.storage import Storage
from tests.conftest import Cli
from tests.pipeline.data.photographs import as_parquet, ingested, photograph, pictures


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Storage, str]:
    place, images = tmp_path_factory.mktemp("photos"), pictures()
    images["train"] = [(f"{n}.JPEG", n % 3, photograph(n, (60 + n, 140 - n))) for n in range(70)]
    storage = Storage(str(place / "storage"))
    return storage, ingested(storage, as_parquet(place / "p", images))["id"]


torch.set_num_threads(1)  # tiny networks; other work beside it would cost more than it brings


def asked_for(names: list[str], batch: int = 64) -> ImagenetBench:
    return ImagenetBench(names, batch, 32, 1, 2, False, torch.device("cpu"))


def test_without_a_gpu_it_is_one_line(cli: Cli, tmp_path: Path) -> None:
    done = cli("bench", "gpu-imagenet", "--storage", tmp_path)
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("error: bench gpu-imagenet: no GPU is here")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (asked_for(["resnet20"]), "--experiments resnet20: expected some of resnet18"),
        (asked_for(["resnet18"], 96), "--batch 96: expected 32 times a power of two"),
        (asked_for(["resnet18"], 128), "--batch 128: there are 70 photographs only"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    photographs: tuple[Storage, str], tmp_path: Path, asked: ImagenetBench, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        bench(asked, *photographs, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_rows_are_measured_as_they_are_but_for_what_is_asked() -> None:
    small = asked_for(["resnet50"]).experiment("resnet50")
    assert (small.crop, small.scale, small.global_batch_size, small.precision) == (
        32,
        (36, 68),  # the paper's 256 to 480, times 32/224
        64,
        "bf16",
    )
    full = ImagenetBench(["resnet50"], 256, 224, 1, 2, False, torch.device("cpu"))
    assert full.experiment("resnet50").scale == (256, 480)
    assert set(STOCK) >= {"resnet18", "resnet50"}


@pytest.mark.slow
def test_every_contestant_the_feed_and_a_training_are_measured(
    photographs: tuple[Storage, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_imagenet, "FEED_SECONDS", 0.05)
    monkeypatch.setattr(gpu_imagenet, "counts_here", lambda: [1])
    bench(asked_for(["resnet18"]), *photographs, tmp_path / "out.json")
    kept = json.loads((tmp_path / "out.json").read_text())
    assert kept["taken"]["gpu"] == "none"
    assert list(kept["images_per_second"]["resnet18"]) == [
        "torchvision, batch 64",
        "groups one by one, batch 64",
        "one pass, batch 64",
        "torchvision, batch 32",
        "one group, batch 32",
    ]
    assert all(rates[0] > 0 for rates in kept["images_per_second"]["resnet18"].values())
    assert kept["feed"]["exact"]["1 processes"][0] > 0
    assert kept["feed"]["gpu"]["views a second"][0] > 0
    assert 0 <= kept["training"]["resnet18"]["waited_percent"] <= 100
