"""The layers' signals against plain autograd, and that taking them changes nothing."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.data.sampling import batch_at
from pipeline.recipe.experiments import EXPERIMENTS, Experiment
from pipeline.recipe.layers import layout, main_path
from pipeline.recipe.metrics import CONVOLUTION_VARIANCE, FORWARD_VARIANCE, GRADIENT_NORM
from pipeline.training.feeding.image_batches import TrainImages
from pipeline.training.measuring.signals import signals
from pipeline.training.step.networks import build_network
from pipeline.training.step.process_group import single_process
from pipeline.training.step.train_state import TrainState
from tests.pipeline.training.small_runs import digits_once, small_row

CPU = torch.device("cpu")


def taken(
    experiment: Experiment, **scaled: float
) -> tuple[dict[str, list[float]], TrainState, tuple[Tensor, Tensor]]:
    """The quantities at the start of a row's training on digits, by name.

    `scaled` multiplies the weights of a convolution first.
    """
    dataset, size = digits_once(), experiment.global_batch_size
    train_state = TrainState(experiment, build_network(experiment, 0, dataset.spec.classes), CPU)
    for name, factor in scaled.items():
        train_state.network.get_parameter(f"{name}.weight").data.mul_(factor)
    batch = TrainImages(experiment, dataset, CPU).batch(
        batch_at(0, len(dataset.train), 0, size, 0, size)
    )
    return (
        {values.quantity: values.values for values in signals(train_state, batch, 0)},
        train_state,
        batch,
    )


@pytest.mark.parametrize(
    ("name", "count"), [("plain20", 19), ("resnet56", 55), ("plain34", 33), ("resnet50", 49)]
)
def test_the_main_path_is_every_weighted_layer_but_the_classifier(name: str, count: int) -> None:
    assert len(main_path(layout(EXPERIMENTS[name]))) == count


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_they_are_those_of_plain_autograd_on_the_first_group(norm: str) -> None:
    experiment = small_row(norm=norm)
    found, train_state, (x, labels) = taken(experiment)
    x, labels, network = x[:8], labels[:8], train_state.network.train()
    before_norm = network.conv1(x)
    first = network.bn1(before_norm)
    second = network.layer1[0].bn1(network.layer1[0].conv1(first.relu()))
    assert found[FORWARD_VARIANCE][:2] == pytest.approx(
        [out.detach().var(correction=0).item() for out in (first, second)]
    )
    # Each channel about its own mean: 16 of them, over 8 images of 16x16 places.
    channels = before_norm.detach().transpose(0, 1).flatten(1)
    assert found[CONVOLUTION_VARIANCE][0] == pytest.approx(
        float((channels - channels.mean(1, keepdim=True)).square().mean())
    )
    weights = [network.conv1.weight, network.layer3[0].conv2.weight]
    expected = torch.autograd.grad(F.cross_entropy(network(x), labels), weights)
    norms = found[GRADIENT_NORM]
    assert [norms[0], norms[-1]] == pytest.approx(
        [float(gradient.norm()) for gradient in expected], rel=1e-5
    )


def test_taking_them_changes_nothing_that_is_trained() -> None:
    experiment = small_row()
    _, looked, batch = taken(experiment)
    untouched = TrainState(experiment, build_network(experiment, 0, 10), CPU)
    for train_state in (looked, untouched):
        train_state.step(batch, 0.1, single_process())
    for name in ("weights", "momentum", "running"):
        assert torch.equal(getattr(looked, name), getattr(untouched, name))


def test_a_signal_that_batch_norm_hides_is_seen_before_it() -> None:
    # A hundredth of the weights is a ten-thousandth of the variance: batch norm makes it 1 again.
    healthy, _, _ = taken(small_row())
    found, _, _ = taken(small_row(), **{"layer2.0.conv1": 0.01})
    layer = list(main_path(layout(small_row()))).index("layer2.0.conv1")
    assert found[CONVOLUTION_VARIANCE][layer] == pytest.approx(
        1e-4 * healthy[CONVOLUTION_VARIANCE][layer], rel=1e-4
    )
    assert found[CONVOLUTION_VARIANCE][layer] < 1e-3 < min(healthy[CONVOLUTION_VARIANCE])
    assert min(found[FORWARD_VARIANCE]) > 0.8


def test_a_deep_plain_net_without_care_gets_no_signal_and_he_or_batch_norm_cure_it() -> None:
    experiment = replace(EXPERIMENTS["plain56"], global_batch_size=16, bn_group=8)
    careless, _, _ = taken(replace(experiment, norm="none", initialisation="gaussian_0.01"))
    assert careless[FORWARD_VARIANCE][0] > 1e-5
    assert careless[CONVOLUTION_VARIANCE][-1] == 0.0
    assert (
        careless[FORWARD_VARIANCE][-1] == careless[GRADIENT_NORM][0] == 0.0
    )  # below what float32 can hold
    for cured in (
        replace(experiment, norm="none"),
        replace(experiment, initialisation="gaussian_0.01"),
    ):
        found, _, _ = taken(cured)
        assert min(found[FORWARD_VARIANCE]) > 1e-7
        assert min(found[GRADIENT_NORM]) > 1e-4
