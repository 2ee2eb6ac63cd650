"""The paper's test protocols against plain implementations of their own."""

import math
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pipeline.data.photo_shards import Photos, open_photos
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.storage import Storage
from pipeline.training.measuring.protocols import Scorer, errors_of, misses
from pipeline.training.step.networks import ResNet, build_network
from pipeline.training.step.process_group import single_process
from tests.pipeline.data.photographs import as_parquet, ingested, pictures

CPU = torch.device("cpu")
SMALL = replace(
    EXPERIMENTS["resnet18"], crop=64, scale=(64, 96), test_side=72, test_sides=(64, 80, 96)
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    place = tmp_path_factory.mktemp("photos")
    storage = Storage(str(place / "storage"))
    return open_photos(storage, ingested(storage, as_parquet(place / "p", pictures()))["id"], None)


@pytest.fixture(scope="module")
def network() -> ResNet:
    """A network with running statistics of its own."""
    made = build_network(SMALL, seed=1)
    generator = torch.Generator().manual_seed(0)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = 0.1 * torch.randn(module.num_features, generator=generator)
            module.running_var = 0.5 + torch.rand(module.num_features, generator=generator)
    return made.eval()


def resized(content: bytes, shorter: int) -> Image.Image:
    image = Image.open(BytesIO(content)).convert("RGB")
    ratio = shorter / min(image.size)
    size = tuple(
        shorter if side == min(image.size) else int(side * ratio + 0.5) for side in image.size
    )
    return image.resize(size, Image.Resampling.BILINEAR)


def probabilities(network: ResNet, view: Image.Image, mean: np.ndarray) -> torch.Tensor:
    x = (torch.from_numpy(np.array(view, dtype=np.float32)) - torch.tensor(mean)) / 255
    with torch.no_grad():
        return network(x.permute(2, 0, 1)[None]).softmax(1)[0].double()


def test_ten_crops_are_the_mean_of_ten_softmax_scores(photos: Photos, network: ResNet) -> None:
    scorer = Scorer("ten_crop", SMALL, photos, CPU)
    contents = [photos.test.encoded(i) for i in range(len(photos.test))]
    with torch.no_grad():
        ours = scorer.scores(network, [scorer.views(content) for content in contents])
    for content, scores in zip(contents, ours, strict=True):
        whole = resized(content, 72)
        right, bottom = whole.width - 64, whole.height - 64
        corners = [(0, 0), (right, 0), (0, bottom), (right, bottom), (right // 2, bottom // 2)]
        crops = [whole.crop((x, y, x + 64, y + 64)) for x, y in corners]
        crops += [crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for crop in crops]
        plain = torch.stack([probabilities(network, crop, photos.mean(64)) for crop in crops]).mean(
            0
        )
        assert torch.allclose(scores, plain, atol=2e-3, rtol=2e-2)
        assert scores.argmax() == plain.argmax()


def test_the_centre_crop_is_one_view(photos: Photos, network: ResNet) -> None:
    scorer, content = Scorer("center_crop", SMALL, photos, CPU), photos.test.encoded(0)
    whole = resized(content, 72)
    x, y = (whole.width - 64) // 2, (whole.height - 64) // 2
    plain = probabilities(network, whole.crop((x, y, x + 64, y + 64)), photos.mean(64))
    with torch.no_grad():
        assert torch.allclose(
            scorer.scores(network, [scorer.views(content)])[0], plain, atol=2e-3, rtol=2e-2
        )


def test_multi_scale_is_the_mean_over_places_then_scales(photos: Photos, network: ResNet) -> None:
    scorer, content = Scorer("multi_scale", SMALL, photos, CPU), photos.test.encoded(1)
    each = []
    for side in SMALL.test_sides:
        x = (
            torch.from_numpy(np.asarray(resized(content, side)).astype(np.float32))
            - photos.mean(1)[0]
        ) / 255
        with torch.no_grad():
            maps = network.maps(x.permute(2, 0, 1)[None])
            places = [
                network.fc(maps[:, :, i : i + 2, j : j + 2].mean((2, 3))).softmax(1)[0].double()
                for i in range(maps.shape[2] - 1)
                for j in range(maps.shape[3] - 1)
            ]
        each.append(torch.stack(places).mean(0))
    with torch.no_grad():
        ours = scorer.scores(network, [scorer.views(content)])[0]
    assert len(scorer.views(content)) == 3 and scorer.places == 2
    assert torch.allclose(ours, torch.stack(each).mean(0), atol=1e-6)


@torch.no_grad()
def test_the_dense_form_at_the_crops_size_is_the_network() -> None:
    network = build_network(EXPERIMENTS["resnet18"], seed=0).eval()
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    dense = network.dense(x, 7)
    assert dense.shape == (2, 1000, 1, 1)
    assert torch.allclose(dense[:, :, 0, 0], network(x), atol=1e-4)


@torch.no_grad()
def test_the_dense_form_on_larger_images_pools_every_window_of_the_last_map(
    network: ResNet,
) -> None:
    x = torch.randn(1, 3, 256, 320, generator=torch.Generator().manual_seed(0))
    dense, maps = network.dense(x, 7), network.maps(x)
    assert maps.shape[2:] == (8, 10) and dense.shape[2:] == (2, 4)
    for i in range(2):
        for j in range(4):
            window = maps[:, :, i : i + 7, j : j + 7].mean((2, 3))
            assert torch.allclose(dense[:, :, i, j], network.fc(window), rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_without_padding_each_place_is_an_image_window_at_stride_32() -> None:
    network = build_network(EXPERIMENTS["plain18"], seed=0).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d):
            module.padding = (0, 0) if isinstance(module, nn.Conv2d) else 0
    side = next(
        n
        for n in range(300, 600)
        if last_side(n) == 3 and last_side(n + 32) == 4 and last_side(n - 1) == 2
    )
    x = torch.randn(1, 3, side + 32, side + 64, generator=torch.Generator().manual_seed(0))
    dense = network.dense(x, 3)
    assert dense.shape[2:] == (2, 3)
    for i in range(2):
        for j in range(3):
            window = x[:, :, 32 * i : 32 * i + side, 32 * j : 32 * j + side]
            assert torch.allclose(dense[:, :, i, j], network(window), atol=1e-4)


def last_side(side: int) -> int:
    """Side of plain-18's last map without padding: 7x7/2, pool 3x3/2, then 3x3 convolutions,
    strided at three stages.
    """
    side = (side - 7) // 2 + 1
    side = (side - 3) // 2 + 1
    for stage in range(4):
        for number in range(4):
            side = (side - 3) // (2 if stage and not number else 1) + 1
    return side


def test_misses_by_hand() -> None:
    scores = torch.tensor(
        [[0.1, 0.9, 0.0, 0, 0, 0], [0.5, 0.5, 0, 0, 0, 0], [0.1, 0.2, 0.3, 0.4, 0.5, 0.0]]
    )
    assert misses(scores, torch.tensor([1, 0, 4])).tolist() == [0, 0]
    assert misses(scores, torch.tensor([0, 1, 5])).tolist() == [
        3,
        1,
    ]  # of equal scores the lower class comes first
    assert misses(torch.full((2, 6), math.nan), torch.tensor([0, 1])).tolist() == [2, 2]


def test_an_ensemble_averages_scores(photos: Photos, network: ResNet) -> None:
    other, experiments = (
        build_network(replace(SMALL, depth=34), seed=5).eval(),
        [SMALL, replace(SMALL, depth=34)],
    )
    scorer = Scorer("center_crop", SMALL, photos, CPU)
    views = [scorer.views(photos.test.encoded(i)) for i in range(len(photos.test))]
    with torch.no_grad():
        mean = (scorer.scores(network, views) + scorer.scores(other, views)) / 2
    labels = torch.from_numpy(photos.test.labels.astype(np.int64))
    both = errors_of(
        [network, other], experiments, "center_crop", photos, single_process(), threads=2
    )
    first, five = misses(mean, labels).tolist()
    assert both.count == 6 and (both.top1_err, both.top5_err) == (100 * first / 6, 100 * five / 6)


def test_every_test_side_of_the_paper_is_looked_at(photos: Photos) -> None:
    experiment = EXPERIMENTS["resnet50"]
    assert experiment.test_sides == (224, 256, 384, 480, 640) and experiment.test_side == 256
    views = Scorer("multi_scale", experiment, photos, CPU).views(photos.test.encoded(0))
    assert [min(view.shape[:2]) for view in views] == [224, 256, 384, 480, 640]
    assert len(Scorer("ten_crop", experiment, photos, CPU).views(photos.test.encoded(0))) == 10
