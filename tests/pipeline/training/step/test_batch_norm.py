"""Several groups in one pass are the groups one by one: forward, backward and statistics."""

import shutil
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.training.step.batch_norm import GroupBatchNorm2d, SlicedBatchNorm, grouped_batch_norm
from pipeline.training.step.networks import build_network
from pipeline.training.step.process_group import single_process
from pipeline.training.step.train_state import TrainState

CPU = torch.device("cpu")
Form = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int, float], Tensor]
SIZE, EPS = 4, 1e-5


def one_by_one(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, size: int, eps: float
) -> Tensor:
    """The reference: stock batch norm of each group."""
    parts, means, variances = [], [], []
    for group in x.split(size):
        own_mean, own_var = torch.zeros_like(mean), torch.zeros_like(var)
        parts.append(F.batch_norm(group, own_mean, own_var, weight, bias, True, 1.0, eps))
        means.append(own_mean)
        variances.append(own_var)
    mean.copy_(torch.stack(means).mean(0))
    var.copy_(torch.stack(variances).mean(0))
    return torch.cat(parts)


def results(form: Form, dtype: torch.dtype, memory_format: torch.memory_format) -> list[Tensor]:
    """Output, gradients of input, weight and bias, and the statistics."""
    torch.manual_seed(0)
    wide = torch.promote_types(dtype, torch.float32)
    x = (torch.randn(12, 5, 7, 6, dtype=torch.float64) * 3 + torch.randn(5, 1, 1)).to(dtype)
    x = x.contiguous(memory_format=memory_format).requires_grad_()
    weight = torch.rand(5, dtype=wide).add_(0.5).requires_grad_()
    bias = torch.randn(5, dtype=wide).requires_grad_()
    mean, var = torch.zeros(5, dtype=wide), torch.ones(5, dtype=wide)
    out = form(x, weight, bias, mean, var, SIZE, EPS)
    assert out.dtype == dtype and out.is_contiguous(memory_format=memory_format)
    direction = torch.randn(out.shape, dtype=torch.float64).to(dtype)
    out.backward(direction.contiguous(memory_format=memory_format))
    return [out, x.grad, weight.grad, bias.grad, mean, var]  # type: ignore[list-item]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("form", [SlicedBatchNorm.apply, grouped_batch_norm])
def test_one_pass_is_group_by_group_in_double_precision(
    form: Form, memory_format: torch.memory_format
) -> None:
    expected = results(one_by_one, torch.float64, memory_format)
    for mine, theirs in zip(results(form, torch.float64, memory_format), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("form", [SlicedBatchNorm.apply, grouped_batch_norm])
def test_one_pass_in_bf16_is_right_to_bf16(form: Form) -> None:
    expected = results(one_by_one, torch.bfloat16, torch.channels_last)
    for mine, theirs in zip(results(form, torch.bfloat16, torch.channels_last), expected):  # noqa: B905
        torch.testing.assert_close(mine.float(), theirs.float(), rtol=2e-2, atol=2e-2)


def test_sliced_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(1)
    x = torch.randn(4, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.rand(2, 2, dtype=torch.float64).unbind()
    scratch = [torch.zeros(2, dtype=torch.float64) for _ in range(2)]
    assert torch.autograd.gradcheck(
        lambda *given: SlicedBatchNorm.apply(*given, *scratch, 2, EPS),
        (x, weight.clone().requires_grad_(), bias.clone().requires_grad_()),
    )


def test_compiled_the_norm_takes_all_groups_at_once() -> None:
    layers = nn.Sequential(GroupBatchNorm2d(5, EPS), nn.ReLU())
    layers[0].group_size = SIZE

    def compiled(x: Tensor, weight: Tensor, bias: Tensor, *rest: object) -> Tensor:
        with torch.no_grad():
            layers[0].weight.copy_(weight)
            layers[0].bias.copy_(bias)
        return torch.compile(layers, dynamic=False)(x)

    torch.manual_seed(2)
    x = torch.randn(12, 5, 7, 6).contiguous(memory_format=torch.channels_last)
    x, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    weight, bias = torch.rand(5), torch.rand(5)
    mean, var = torch.zeros(5), torch.ones(5)
    expected = F.relu(one_by_one(other, weight, bias, mean, var, SIZE, EPS))
    made = compiled(x, weight, bias)
    direction = torch.randn_like(made)
    made.backward(direction)
    expected.backward(direction)
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.grad, other.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layers[0].group_mean, mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(layers[0].group_var, var, rtol=1e-5, atol=1e-6)


def test_a_worker_with_one_group_takes_stock_batch_norm_in_both_modes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The paper's own layout: eight workers of a group each. One pass is the exact step there."""

    def never(*_: object) -> Tensor:
        raise AssertionError("a single group was split")

    monkeypatch.setattr(SlicedBatchNorm, "apply", never)
    experiment = replace(EXPERIMENTS["resnet18"], bn_group=4, global_batch_size=32, crop=32)
    torch.manual_seed(3)
    x, labels = torch.randn(4, 3, 32, 32), torch.tensor([1, 0, 3, 2])
    totals = []
    for one_pass in (False, True):
        network = build_network(experiment, 0, 10)
        totals.append(TrainState(experiment, network, CPU, one_pass).totals(x, labels))
    assert torch.equal(*totals)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="no compiler")
@pytest.mark.parametrize("one_pass", [False, True])
def test_a_compiled_step_is_the_exact_step_up_to_rounding(one_pass: bool) -> None:
    experiment = replace(EXPERIMENTS["resnet20"], bn_group=8, global_batch_size=16)
    torch.manual_seed(4)
    batch = (torch.randn(16, 3, 16, 16), torch.randint(0, 10, (16,)))
    exact, compiled = (
        TrainState(experiment, build_network(experiment, 0), CPU, way and one_pass, compiled=way)
        for way in (False, True)
    )
    for state in (exact, compiled):
        state.step(batch, 0.1, single_process())
    torch.testing.assert_close(compiled.weights, exact.weights, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(compiled.running, exact.running, rtol=1e-4, atol=1e-6)
