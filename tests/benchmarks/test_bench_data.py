"""`resnet-repro bench data`: both sides show the same photographs, and the order of ImageNet's fits
its memory.
"""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
import torch

from benchmarks.photographs import data_rate, feed_rate
from benchmarks.photographs.feed_rate import KINDS, feed_rates, print_rates
from benchmarks.photographs.standard_input import InputSetting
from pipeline.data.photo_shards import Photos, open_photos
from pipeline.errors import InputError
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.storage import Storage
from tests.conftest import Cli
from tests.pipeline.data.photographs import as_parquet, ingested, photograph, pictures

ROW = replace(EXPERIMENTS["resnet18"], crop=32, scale=(32, 48))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    place, images = tmp_path_factory.mktemp("photos"), pictures()
    images["train"] = [(f"{n}.JPEG", n % 3, photograph(n, (60 + n, 140 - n))) for n in range(70)]
    storage = Storage(str(place / "storage"))
    return open_photos(storage, ingested(storage, as_parquet(place / "p", images))["id"], None)


def test_both_sides_show_the_same_views(photos: Photos) -> None:
    most, mean = data_rate._greatest_difference(ROW, photos)
    assert 0 < most < 2.5 and mean < 0.3


@pytest.mark.parametrize("there", [True, False], ids=["normalised in workers", "as a batch"])
def test_the_reference_gives_the_same_in_every_setting(photos: Photos, there: bool) -> None:
    with closing(data_rate._standard(ROW, photos, InputSetting(0, True), 1)) as plain:
        wanted = plain.batch()
    with closing(data_rate._standard(ROW, photos, InputSetting(2, there), 1)) as standard:
        assert torch.allclose(standard.batch(), wanted, atol=1e-5)


def test_rates_are_of_what_was_decoded(photos: Photos) -> None:
    seen: list[int] = []
    with closing(data_rate._feed(ROW, photos)) as feed:
        rate = data_rate._rate(lambda number: seen.append(number) or feed.batch(number)[0], 2)  # type: ignore[func-returns-value]
    assert seen == [0, 1, 2, 3] and rate > 0


def test_scaled_down_photographs_are_a_dataset_of_their_own(photos: Photos, tmp_path: Path) -> None:
    smaller = data_rate.scaled_down(photos, 20, tmp_path)
    assert len(smaller.train) == 20 and smaller.manifest["longest_short_side"] == 480


def test_the_order_of_imagenet_takes_at_most_32_megabytes() -> None:
    seconds, megabytes = data_rate.order_cost()
    assert seconds > 0 and 5 < megabytes <= 32


def test_too_few_photographs_and_small_images_are_refused(
    cli: Cli, storage: Storage, tmp_path: Path
) -> None:
    done = cli("bench", "data", "--data", "digits", "--storage", storage.uri)
    assert done.returncode == 2 and "wants photographs, such as imagenet" in done.stderr
    few = Storage(str(tmp_path / "few"))
    manifest = ingested(few, as_parquet(tmp_path / "p", pictures()))
    with pytest.raises(InputError, match="has 12 training photographs; 64 are needed"):
        data_rate.bench(few, manifest["id"], 1, 2)


def test_feeds_are_measured_at_each_number_of_decoders(
    photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = Storage(str(Path(photos.train.files[0]).parents[1]))
    rates = feed_rates(ROW, storage, photos.id, torch.device("cpu"), 1, 0.05, counts=[2])
    assert set(rates) == {(2, kind) for kind in KINDS}
    assert all(len(values) == 1 and min(values) > 0 for values in rates.values())
    print_rates(rates, "views a second")
    lines = capsys.readouterr().out.splitlines()
    (two,) = (line.split() for line in lines if line.strip().startswith("2 "))
    shares = [median(a / b for a, b in zip(rates[2, kind], rates[2, KINDS[2]], strict=True))
              for kind in KINDS[:2]]  # fmt: skip
    assert two[4:] == [f"{share:.2f}" for share in shares]


def test_decoders_are_counted_up_to_every_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    for cpus, expected in ((1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (16, [1, 2, 4, 8, 16])):
        monkeypatch.setattr(feed_rate, "usable_cpus", lambda cpus=cpus: cpus)
        assert feed_rate.counts_here() == expected
