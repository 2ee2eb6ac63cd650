"""What travels with weights prepares pictures as the tests of the network that it is of."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.photo_decoding import decode
from pipeline.data.photo_shards import Photos, open_photos
from pipeline.recipe.experiments import EXPERIMENTS, Experiment, Normalisation
from pipeline.storage import Storage
from pipeline.training.feeding.central_views import CentralViews
from pipeline.training.feeding.image_batches import single_views
from pipeline.training.feeding.preprocessing import Preprocessing, PreprocessingFacts
from tests.pipeline.data.photographs import as_parquet, ingested, pictures
from tests.pipeline.training.small_runs import digits_once

CPU = torch.device("cpu")
KINDS = get_args(Normalisation)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    place = tmp_path_factory.mktemp("photos")
    storage = Storage(str(place / "storage"))
    return open_photos(storage, ingested(storage, as_parquet(place / "p", pictures()))["id"], None)


def seen(prepared: Preprocessing, image: Image.Image) -> torch.Tensor:
    """What a network sees of a picture, by what came back from JSON."""
    again = Preprocessing.from_facts(prepared.facts())
    return again.normaliser(again.side, CPU)(again.view(image)[None])[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_image_is_seen_as_the_test_sees_it(kind: Normalisation) -> None:
    data, experiment = digits_once(), replace(EXPERIMENTS["resnet20"], normalisation=kind)
    prepared = Preprocessing.of(experiment, data)
    assert (prepared.mean_image is not None) == (kind == "per_pixel_mean")
    views, _ = single_views(experiment, data, data.test, CPU).batch(0, 3)
    for number, view in enumerate(views):
        assert torch.equal(seen(prepared, Image.fromarray(data.test.pixels[number])), view)


@pytest.mark.parametrize("crop", [64, 224])
@pytest.mark.parametrize("kind", KINDS)
def test_a_photograph_is_seen_as_the_test_sees_it(
    kind: Normalisation, crop: int, photos: Photos
) -> None:
    experiment = replace(EXPERIMENTS["resnet18"], normalisation=kind, crop=crop)
    prepared = Preprocessing.of(experiment, photos)
    # The mean image is one of 224 pixels: rows of another crop subtract its channels' averages.
    assert (prepared.mean_image is not None) == (kind == "per_pixel_mean" and crop == 224)
    views = CentralViews(experiment, photos, photos.test, range(2), CPU, 1)
    ((_, batch, _),) = views.batches([0])
    for number, view in enumerate(batch):
        assert torch.equal(seen(prepared, decode(photos.test.encoded(number))), view)


def test_a_picture_of_another_size_is_resized_and_its_centre_taken() -> None:
    prepared = Preprocessing.of(EXPERIMENTS["resnet20"], digits_once())
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, 16:48] = 200  # the central square, which is all that is looked at
    assert prepared.is_of_another_size(Image.fromarray(pixels))
    view = prepared.view(Image.fromarray(pixels))
    assert view.shape == (16, 16, 3) and (view[:, 2:-2] == 200).all()


@pytest.mark.parametrize("kind", ["none", "torchvision"])
def test_a_row_that_takes_no_mean_needs_no_dataset(kind: Normalisation) -> None:
    experiment = replace(EXPERIMENTS["resnet20"], normalisation=kind)
    with_data = Preprocessing.of(experiment, digits_once())
    assert Preprocessing.without_dataset(experiment, 16).facts() == with_data.facts()
    photographs = replace(EXPERIMENTS["resnet18"], normalisation=kind)
    assert Preprocessing.without_dataset(photographs, 224).shorter_side == 256


@pytest.mark.parametrize("kind", ["per_pixel_mean", "channel_mean_std"])
def test_a_row_that_takes_a_mean_does(kind: Normalisation) -> None:
    experiment: Experiment = replace(EXPERIMENTS["resnet20"], normalisation=kind)
    with pytest.raises(ValueError, match=f"normalisation={kind} takes a mean"):
        Preprocessing.without_dataset(experiment, 32)


GOOD: PreprocessingFacts = {
    "side": 2, "shorter_side": 0, "mean": [1.0, 2.0, 3.0], "scale": [1.0, 1.0, 1.0],
}  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [{"side": 0}, {"side": -1}, {"side": 10**9}, {"shorter_side": 1}, {"shorter_side": -3},
     {"mean": [1.0]}, {"mean": [[1.0], [2.0]]}, {"scale": [1.0, float("nan"), 1.0]},
     {"mean_image": "AAAA"}, {"mean_image": "no base64!"}, {"mean": [1.0, 2.0, float("inf")]}],
)  # fmt: skip
def test_what_prepares_no_picture_is_refused(wrong: dict) -> None:
    assert Preprocessing.from_facts(GOOD).facts() == GOOD
    with pytest.raises(ValueError):
        Preprocessing.from_facts(GOOD | wrong)
