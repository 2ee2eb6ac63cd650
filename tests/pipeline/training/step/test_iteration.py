"""The iteration as a function of fixed tensors: what a GPU replays is what these lines compute."""

from dataclasses import replace

import pytest
import torch

from pipeline.recipe.metrics import WINDOW
from pipeline.recipe.schedule import lr_at
from pipeline.training.feeding.device_batches import DeviceBatches
from pipeline.training.feeding.image_batches import TrainImages
from pipeline.training.step.iteration import Iteration, in_fewer_lanes
from pipeline.training.step.networks import build_network
from pipeline.training.step.process_group import single_process
from pipeline.training.step.train_state import TrainState
from tests.pipeline.training.small_runs import digits_once, small_row

CPU = torch.device("cpu")
ROW = small_row(iterations=40, lr_drops=(12, 30), warmup_lr=0.01)


def state() -> TrainState:
    return TrainState(ROW, build_network(ROW, 0, 10), CPU)


def feed() -> DeviceBatches:
    images = TrainImages(ROW, digits_once(), CPU)
    return DeviceBatches(images, 0, ROW.global_batch_size, 0, ROW.global_batch_size)


def test_iterations_are_steps_on_the_batches_of_their_numbers() -> None:
    """Over a warm-up's end and a drop of the rate, from an iteration in the middle."""
    one_by_one, batches, group = state(), feed(), single_process()
    run_state, window = state(), torch.zeros(WINDOW, 2)
    iteration = Iteration(run_state, feed(), group, window, first=3)
    expected = torch.zeros(WINDOW, 2)
    for number in range(3, 32):
        lr = lr_at(ROW, number, warmup_end=8)
        expected[number % WINDOW] = one_by_one.step(batches.batch(number), lr, group)
        iteration.run(number, lr)
    assert torch.equal(run_state.weights, one_by_one.weights)
    assert torch.equal(run_state.momentum, one_by_one.momentum)
    assert torch.equal(run_state.running, one_by_one.running)
    assert torch.equal(window, expected)
    assert int(iteration.number) == 32 and not iteration.captured


def test_what_is_trained_stays_at_its_address() -> None:
    """A captured iteration writes to these addresses for as long as the run lives."""
    run_state, window = state(), torch.zeros(WINDOW, 2)
    iteration = Iteration(run_state, feed(), single_process(), window, first=0)
    tensors = (run_state.weights, run_state.momentum, run_state.running, window, iteration.lr)
    before = [tensor.data_ptr() for tensor in tensors]
    gradients = [parameter.grad.data_ptr() for parameter in run_state.parameters]
    for number in range(4):
        iteration.run(number, 0.1 / (1 + number))
    assert [tensor.data_ptr() for tensor in tensors] == before
    assert [parameter.grad.data_ptr() for parameter in run_state.parameters] == gradients


def test_a_network_without_batch_norm_goes_the_same_way() -> None:
    row = replace(ROW, norm="none", lr=1e-3, warmup_lr=None)
    network = TrainState(row, build_network(row, 0, 10), CPU)
    iteration = Iteration(network, feed(), single_process(), torch.zeros(WINDOW, 2), first=0)
    before = network.weights.clone()
    iteration.run(0, 1e-3)
    assert not torch.equal(network.weights, before)


def test_where_memory_is_short_groups_are_computed_in_turn() -> None:
    """The bytes stay those of groups side by side; one at a time has to fit."""
    row = small_row(global_batch_size=16, bn_group=4)
    short, roomy = (TrainState(row, build_network(row, 0, 10), CPU, lanes=2) for _ in range(2))
    batch, tried = DeviceBatches(TrainImages(row, digits_once(), CPU), 0, 16, 0, 16).batch(0), []

    def launch() -> None:
        tried.append(len(short.lanes))
        if len(short.lanes) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        short.step(batch, 0.1, single_process())

    in_fewer_lanes(short, launch)
    roomy.step(batch, 0.1, single_process())
    assert tried == [2, 1] and torch.equal(short.weights, roomy.weights)

    def never_fits() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        in_fewer_lanes(short, never_fits)
