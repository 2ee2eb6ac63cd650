"""A picture of a test split is taken for what the test takes it for."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.photo_decoding import decode
from pipeline.data.photo_shards import open_photos
from pipeline.errors import InputError
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.storage import Storage
from pipeline.training.feeding.image_batches import single_views
from pipeline.training.feeding.preprocessing import Preprocessing
from pipeline.training.measuring.evaluate import evaluate
from pipeline.training.measuring.predictions import Predictor
from pipeline.training.measuring.protocols import errors_of
from pipeline.training.step.networks import ResNet
from pipeline.training.step.process_group import single_process
from pipeline.training.step.weights import weights_bytes
from tests.pipeline.data.photographs import as_parquet, ingested, pictures
from tests.pipeline.training.small_runs import digits_once, small_row
from tests.pipeline.training.step.test_foreign_weights import unlike

CPU = torch.device("cpu")


def test_small_images_are_taken_for_what_evaluate_takes_them_for() -> None:
    data, experiment = digits_once(), small_row()
    network = unlike(ResNet(experiment, 10))
    weights = weights_bytes(network.state_dict(), experiment, 10)
    prepared, names = Preprocessing.of(experiment, data), tuple("abcdefghij")
    predictor = Predictor(experiment, weights, "w", prepared, names)
    wrong = 0
    for pixels, label in zip(data.test.pixels, data.test.labels, strict=True):
        first, *others = predictor.likeliest(Image.fromarray(pixels))
        wrong += first.number != label
        assert first.name == names[first.number] and len(others) == 4
        assert all(a.probability >= b.probability for a, b in pairwise([first, *others]))
    views = single_views(experiment, data, data.test, CPU)
    assert wrong == evaluate(network, views, "fp32", single_process()).wrong
    scores = predictor.scores(Image.fromarray(data.test.pixels[0]))
    assert float(scores.sum()) == pytest.approx(1)


def test_photographs_are_taken_for_what_the_central_crop_takes_them_for(tmp_path) -> None:
    storage = Storage(str(tmp_path / "storage"))
    photos = open_photos(
        storage, ingested(storage, as_parquet(tmp_path / "p", pictures()))["id"], None
    )
    experiment = replace(EXPERIMENTS["resnet18"], crop=64, scale=(64, 96), test_side=72)
    experiment = replace(experiment, test_sides=(64, 80, 96))
    classes = photos.spec.classes
    network = unlike(ResNet(experiment, classes))
    weights = weights_bytes(network.state_dict(), experiment, classes)
    prepared = Preprocessing.of(experiment, photos)
    predictor = Predictor(experiment, weights, "w", prepared, tuple(map(str, range(classes))))
    misses = np.zeros(2)
    for number, label in enumerate(photos.test.labels):
        likeliest = predictor.likeliest(decode(photos.test.encoded(number)))
        numbers = [each.number for each in likeliest]
        misses += [numbers[0] != label, label not in numbers]
    errors = errors_of([network], [experiment], "center_crop", photos, single_process(), 1)
    assert list(100 * misses / len(photos.test)) == [errors.top1_err, errors.top5_err]


def test_fewer_classes_than_five_and_equal_ones() -> None:
    experiment = small_row()
    network = unlike(ResNet(experiment, 3))
    network.fc.weight.data.zero_()
    network.fc.bias.data = torch.tensor([0.0, 1.0, 1.0])
    weights = weights_bytes(network.state_dict(), experiment, 3)
    prepared = Preprocessing.of(experiment, digits_once())
    predictor = Predictor(experiment, weights, "w", prepared, ("a", "b", "c"))
    found = predictor.likeliest(Image.new("RGB", (16, 16)))
    assert [each.name for each in found] == ["b", "c", "a"]
    with pytest.raises(InputError, match="w: these weights are for 3 classes"):
        Predictor(experiment, weights, "w", prepared, ("a", "b"))
