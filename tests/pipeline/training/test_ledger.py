"""The details in which reproductions differ from the paper, each as it is here (Sec. 3.4 and 4.2)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.datasets import Images
from pipeline.data.photo_decoding import decode, training_view
from pipeline.recipe.experiments import EXPERIMENTS, Experiment
from pipeline.recipe.layers import layout
from pipeline.recipe.metrics import TEST_ERR
from pipeline.recipe.schedule import lr_at, warmup_ends
from pipeline.runs.checkpoint import newest_checkpoint
from pipeline.runs.execution import Execution
from pipeline.runs.history import History
from pipeline.storage import Storage
from pipeline.training.feeding.image_batches import TrainImages, normalisation, training_split
from pipeline.training.loop import train
from pipeline.training.step.networks import build_network
from pipeline.training.step.process_group import single_process
from pipeline.training.step.train_state import TrainState
from tests.pipeline.data.photographs import photograph
from tests.pipeline.training.small_runs import digits_once, small_run

CIFAR = [experiment for experiment in EXPERIMENTS.values() if experiment.family == "cifar"]
RESIDUAL = [experiment for experiment in CIFAR if experiment.name.startswith("resnet")]
CPU = torch.device("cpu")
by_name = pytest.mark.parametrize("experiment", CIFAR, ids=lambda experiment: experiment.name)


@pytest.mark.parametrize("experiment", RESIDUAL, ids=lambda experiment: experiment.name)
def test_cifar_shortcuts_are_option_a_and_cost_nothing(experiment: Experiment) -> None:
    assert {block.shortcut for block in layout(experiment).blocks} == {"identity", "pad"}
    assert layout(experiment).params == layout(replace(experiment, shortcut="none")).params


def test_bottlenecks_halve_their_map_in_the_first_1x1() -> None:
    for depth in (50, 101, 152):
        block = layout(EXPERIMENTS[f"resnet{depth}"]).stages[1][0]
        assert [(conv.kernel, conv.stride) for conv in block.convs] == [(1, 2), (3, 1), (1, 1)]


@by_name
def test_training_is_64k_iterations_with_drops_at_32k_and_48k(experiment: Experiment) -> None:
    rates = [
        lr_at(experiment, iteration, warmup_end=400)
        for iteration in (1_000, 31_999, 32_000, 47_999, 48_000, 63_999)
    ]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert experiment.iterations == 64_000


def test_training_is_on_all_images_and_45k_5k_is_one_setting_away() -> None:
    fifty_thousand = Images(np.zeros((50_000, 1, 1, 3), np.uint8), np.zeros(50_000, np.uint8))
    dataset = replace(digits_once(), train=fifty_thousand)
    assert {len(training_split(experiment, dataset)) for experiment in CIFAR} == {50_000}
    assert len(training_split(replace(CIFAR[0], holdout=5_000), dataset)) == 45_000


def test_resnet110_warms_up_until_the_training_error_is_below_80_percent() -> None:
    experiment = EXPERIMENTS["resnet110"]
    assert lr_at(experiment, 10_000, warmup_end=None) == 0.01
    assert (warmup_ends(experiment, 400, 2_559), warmup_ends(experiment, 400, 2_560)) == (
        True,
        False,
    )
    assert lr_at(experiment, 400, warmup_end=400) == 0.1


@by_name
def test_the_input_is_centred_per_pixel_and_not_divided_by_a_deviation(
    experiment: Experiment,
) -> None:
    train = digits_once().train
    offset, scale = normalisation(experiment.normalisation, train)
    np.testing.assert_allclose(offset.numpy(), train.pixels.mean(axis=0), rtol=1e-5, atol=1e-5)
    assert torch.equal(scale, torch.full((3,), 1 / 255))


def test_cifar_images_are_padded_by_four_pixels_of_the_mean() -> None:
    dataset = digits_once()
    images = TrainImages(CIFAR[0], replace(dataset, row=replace(dataset.row, pad=4)), CPU)
    border = torch.ones(24, 24, dtype=torch.bool)
    border[4:-4, 4:-4] = False
    assert not images.offset[border].any()
    assert not images.pixels[:, border].any()


@by_name
def test_weights_decay_and_norms_and_biases_do_not(experiment: Experiment) -> None:
    small = replace(experiment, depth=8)
    train_state = TrainState(small, build_network(small, 0), CPU)
    decayed = int((train_state.decay > 0).sum())
    assert decayed == sum(
        p.numel() for name, p in train_state.network.named_parameters() if p.dim() > 1
    )
    assert decayed < len(train_state.weights)


@by_name
def test_sgd_keeps_the_rate_in_its_buffer_as_caffe_does(experiment: Experiment) -> None:
    assert experiment.sgd == "caffe"
    small = replace(experiment, depth=8, momentum=0.9)
    train_state = TrainState(small, build_network(small, 0), CPU)
    train_state.momentum.fill_(1.0)
    before = train_state.weights.clone()
    x, labels = torch.zeros(128, 3, 8, 8), torch.zeros(128, dtype=torch.int64)
    train_state.step((x, labels), 0.0, single_process())
    torch.testing.assert_close(
        before - train_state.weights, torch.full_like(before, 0.9)
    )  # moves at a rate of zero


def test_batch_norm_groups_do_not_follow_the_hardware() -> None:
    assert {(experiment.bn_group, experiment.groups) for experiment in CIFAR} == {(64, 2)}
    assert {
        (experiment.bn_group, experiment.groups)
        for experiment in EXPERIMENTS.values()
        if experiment.family == "imagenet"
    } == {(32, 8)}


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("resnet20", 269_722),
        ("resnet56", 853_018),
        ("resnet110", 1_727_962),
        ("resnet1202", 19_421_274),
    ],
)
def test_parameter_counts_did_not_drift(name: str, params: int) -> None:
    assert layout(EXPERIMENTS[name]).params == params


def test_the_final_iterate_is_reported_not_the_best(tmp_path: Path) -> None:
    run, storage = small_run(iterations=20, lr_drops=(18,), eval_every=2), Storage(str(tmp_path))
    final = train(run, digits_once(), storage, single_process(), Execution(checkpoint_seconds=1e9))[
        "final"
    ]
    end = newest_checkpoint(storage, run)
    assert end is not None
    curve = [
        point.value
        for point in History.from_json(end.files["history.json"]).points
        if point.metric == TEST_ERR
    ]
    assert len(curve) == 10
    assert final[TEST_ERR] == curve[-1]


def test_imagenet_is_scale_and_colour_augmented_for_120_epochs() -> None:
    experiment = EXPERIMENTS["resnet50"]
    assert experiment.augmentation == "scale_crop_flip_colour"
    assert round(experiment.iterations * experiment.global_batch_size / 1_281_167, 1) == 119.9


IMAGENET = [experiment for experiment in EXPERIMENTS.values() if experiment.family == "imagenet"]
by_photographs = pytest.mark.parametrize(
    "experiment", IMAGENET, ids=lambda experiment: experiment.name
)


@by_photographs
def test_imagenets_rate_drops_where_figure_4_shows_it(experiment: Experiment) -> None:
    times = experiment.iterations // 600_000
    at = [100, 149_999 * times, 150_000 * times, 299_999 * times, 300_000 * times, 599_999 * times]
    assert [lr_at(experiment, i, None) for i in at] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )


@by_photographs
def test_the_shorter_side_is_drawn_from_256_to_480_and_224_are_cropped(
    experiment: Experiment,
) -> None:
    assert (experiment.scale, experiment.crop, experiment.augmentation) == (
        (256, 480),
        224,
        "scale_crop_flip_colour",
    )
    lowest, highest = np.zeros((1, 4), np.uint64), np.full((1, 4), 2**64 - 1, np.uint64)
    content = photograph(0, (480, 480))
    same = replace(
        experiment, scale=(480, 480)
    )  # at 480 nothing is resized, so a view is a cut of the photograph
    whole = np.asarray(decode(content))
    assert np.array_equal(training_view(content, lowest[0], same), whole[:224, :224])
    assert np.array_equal(training_view(content, highest[0], same), whole[256:, 256:][:, ::-1])
    assert np.array_equal(
        training_view(content, highest[0], experiment), whole[256:, 256:][:, ::-1]
    )  # 480 is drawn too


@by_photographs
def test_colour_is_alexnets_and_the_input_is_centred_per_pixel_without_a_deviation(
    experiment: Experiment,
) -> None:
    assert (experiment.colour, experiment.normalisation) == (0.1, "per_pixel_mean")


@by_photographs
def test_statistics_are_averaged_after_training_over_51200_images(experiment: Experiment) -> None:
    assert experiment.statistics_images == 51_200 == 200 * experiment.global_batch_size


@by_photographs
def test_finished_networks_are_tested_by_ten_crops_and_at_five_scales(
    experiment: Experiment,
) -> None:
    assert experiment.protocols == ("center_crop", "ten_crop", "multi_scale")
    assert (experiment.test_side, experiment.test_sides) == (256, (224, 256, 384, 480, 640))


@by_photographs
def test_imagenets_recipe_shares_sgd_decay_and_initialisation_with_cifar(
    experiment: Experiment,
) -> None:
    assert (
        experiment.sgd,
        experiment.momentum,
        experiment.weight_decay,
        experiment.weight_decay_scope,
    ) == (
        "caffe",
        0.9,
        1e-4,
        "conv_fc",
    )
    assert (experiment.initialisation, experiment.lr, experiment.warmup_lr, experiment.holdout) == (
        "he_fan_in",
        0.1,
        None,
        0,
    )
    assert (experiment.bottleneck_stride, experiment.decoding) == ("1x1", "exact")
