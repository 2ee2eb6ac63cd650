"""Groups side by side, and weights that are rounded all at once: the bytes of the plain way."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.recipe.experiments import Experiment
from pipeline.training.step.lanes import Lane, rounded_parameters
from pipeline.training.step.networks import build_network
from pipeline.training.step.precision import autocast
from pipeline.training.step.process_group import single_process
from pipeline.training.step.train_state import TrainState
from tests.pipeline.training.small_runs import small_row

CPU = torch.device("cpu")


def batch(row: Experiment, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    size = row.global_batch_size
    return torch.randn(size, 3, 16, 16, generator=generator), torch.randint(
        0, 10, (size,), generator=generator
    )


def trained(row: Experiment, **how: Any) -> list[Tensor]:
    """What three iterations leave: weights, momentum, statistics, losses and wrong predictions."""
    state = TrainState(row, build_network(row, 0, 10), CPU, **how)
    scalars = [state.step(batch(row, seed), 0.05, single_process()) for seed in range(3)]
    return [state.weights, state.momentum, state.running, torch.stack(scalars)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "change", [{}, {"norm": "none"}, {"shortcut": "B"}, {"shortcut": "C"}], ids=str
)
def test_lanes_change_no_byte(precision: str, change: dict[str, str]) -> None:
    """Eight groups in one lane, in two and in four, with batch norm and without."""
    row = small_row(precision=precision, global_batch_size=32, bn_group=4, **change)
    one, two, four = (trained(row, lanes=lanes) for lanes in (1, 2, 4))
    for parts in zip(one, two, four, strict=True):
        assert torch.equal(parts[0], parts[1]) and torch.equal(parts[0], parts[2])


def test_a_lane_leaves_the_others_alone() -> None:
    row = small_row(global_batch_size=8, bn_group=4)
    state = TrainState(row, build_network(row, 0, 10), CPU, lanes=2)
    x, labels = batch(row, 0)
    state.network.train()
    first = state.forward_backward_group(x[:4], labels[:4])
    kept = [state.lanes[0].gradients.clone(), state.statistics.clone()]
    second = state.forward_backward_group(x[4:8] * 3, labels[4:8], state.lanes[1])
    assert torch.equal(state.lanes[0].gradients, kept[0])
    assert torch.equal(state.statistics, kept[1])
    assert not torch.equal(first, second)
    # The same images give the same in either lane.
    assert torch.equal(state.forward_backward_group(x[:4], labels[:4], state.lanes[1]), first)


def test_weights_rounded_at_once_are_those_that_autocast_rounds() -> None:
    """Against a forward and a backward pass that know nothing of it."""
    row = small_row(precision="bf16", norm="none", global_batch_size=8, bn_group=8)
    state = TrainState(row, build_network(row, 0, 10), CPU)
    network = build_network(row, 0, 10).to(memory_format=torch.channels_last)
    x, labels = batch(row, 0)
    with autocast("bf16", CPU):
        sums = state.forward_backward_group(x, labels)
        loss = F.cross_entropy(network(x).float(), labels)
    loss.backward()
    expected = [weight.grad for weight in network.parameters()]
    for parameter, gradient in zip(state.parameters, expected, strict=True):
        assert gradient is not None and torch.equal(parameter.grad, gradient)
    assert sums[-2] == loss
    assert {"conv1.weight", "fc.weight", "fc.bias", "conv1.bias"} <= rounded_parameters(network)


def test_what_batch_norm_multiplies_by_is_not_rounded() -> None:
    network = build_network(small_row(precision="bf16"), 0, 10)
    named = rounded_parameters(network)
    assert "bn1.weight" not in named and "conv1.weight" in named
    assert {name for name, _ in network.named_parameters()} > named


def test_a_lane_keeps_gradients_of_both_precisions() -> None:
    flat = torch.zeros(5)
    lane = Lane(flat, [flat[:2], flat[2:4], flat[4:]], torch.zeros(0), {}, first=True)
    half = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    lane.keep([half, torch.tensor([3.0, 4.0]), half[:1] * 5])
    assert flat.tolist() == [1, 2, 3, 4, 5]
