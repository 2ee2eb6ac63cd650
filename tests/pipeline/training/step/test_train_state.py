"""One SGD iteration by hand: the tree, the two forms of SGD, weight decay, and statistics over
groups.
"""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.recipe.experiments import SgdForm
from pipeline.training.step.networks import GroupBatchNorm2d, build_network
from pipeline.training.step.process_group import single_process, sum_subtree
from pipeline.training.step.train_state import TrainState, sgd_update
from tests.pipeline.training.small_runs import small_row

CPU = torch.device("cpu")


def images(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, 3, 16, 16, generator=generator), torch.randint(
        0, 10, (count,), generator=generator
    )


def test_groups_are_added_in_a_binary_tree() -> None:
    """At 1e8 fp32 counts in eights: a lone 3 is lost, 3 + 3 becomes 8, so only ((a+b)+(c+d)) gives
    these digits.
    """
    parts = [torch.tensor([value]) for value in (1e8, 3.0, 3.0, 3.0)]
    assert (
        sum_subtree(parts).item()
        == (torch.tensor(1e8) + torch.tensor(3.0) + torch.tensor(6.0)).item()
        == 100000008.0
    )
    in_line = torch.tensor(1e8) + 3 + 3 + 3
    assert in_line.item() == 1e8


@pytest.mark.parametrize("count", [1, 2, 4, 8, 16])
def test_the_tree_adds_everything_once(count: int) -> None:
    assert sum_subtree(torch.tensor([2.0**i]) for i in range(count)).item() == 2**count - 1


@pytest.mark.parametrize("count", [0, 3, 5, 6, 7])
def test_a_tree_needs_a_power_of_two(count: int) -> None:
    with pytest.raises(ValueError, match=f"power of two of parts, not {count}"):
        sum_subtree(torch.ones(1) for _ in range(count))


def steps(form: str, rates: list[float]) -> list[float]:
    """A weight of 1 under a constant gradient of 1, momentum 0.5, no decay: its values after each
    rate.
    """
    experiment = small_row(sgd=form, momentum=0.5, weight_decay=0.0)
    weight, momentum = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    values = []
    for lr in rates:
        sgd_update(
            experiment,
            weight,
            momentum,
            torch.ones(1, dtype=torch.float64),
            torch.zeros(1, dtype=torch.float64),
            torch.tensor(lr, dtype=torch.float64),
        )
        values.append(weight.item())
    return values


def test_both_forms_of_sgd_agree_at_a_constant_rate() -> None:
    by_hand = [1 - 0.1, 0.9 - 0.15, 0.75 - 0.175]
    assert steps("caffe", [0.1] * 3) == pytest.approx(by_hand)
    assert steps("torch", [0.1] * 3) == pytest.approx(by_hand)


def test_after_a_drop_caffes_buffer_still_holds_the_old_rate() -> None:
    # caffe: v = .1, .15, .5 * .15 + .01 = .085;  torch: v = 1, 1.5, 1.75 and the last step is .01 *
    # 1.75
    assert steps("caffe", [0.1, 0.1, 0.01]) == pytest.approx([0.9, 0.75, 0.665])
    assert steps("torch", [0.1, 0.1, 0.01]) == pytest.approx([0.9, 0.75, 0.7325])


def test_torch_form_is_torch_optim_sgd() -> None:
    experiment = small_row(sgd="torch")
    mine, theirs = torch.tensor([1.0, -2.0]), torch.tensor([1.0, -2.0], requires_grad=True)
    momentum, optimiser = (
        torch.zeros(2),
        torch.optim.SGD([theirs], lr=0.1, momentum=0.9, weight_decay=1e-4),
    )
    for gradient in (
        torch.tensor([0.5, 1.0]),
        torch.tensor([-0.25, 2.0]),
        torch.tensor([1.0, 0.0]),
    ):
        theirs.grad = gradient.clone()
        optimiser.step()
        sgd_update(
            experiment, mine, momentum, gradient.clone(), torch.full((2,), 1e-4), torch.tensor(0.1)
        )
    torch.testing.assert_close(mine, theirs.detach())


@pytest.mark.parametrize("form", ["caffe", "torch"])
@pytest.mark.parametrize("lr", [0.1, 0.01, 0.001, 1 / 3])
def test_a_rate_on_the_device_rounds_as_a_rate_on_the_host(form: SgdForm, lr: float) -> None:
    """Runs that were trained with a host's rate keep their bytes: all elements, odd sizes too."""
    generator = torch.Generator().manual_seed(7)
    for size in (1, 7, 100_003):
        weights, momentum, gradients = (torch.randn(size, generator=generator) for _ in range(3))
        decay = torch.full((size,), 1e-4)
        expected_momentum, expected_weights = momentum.clone(), weights.clone()
        total = gradients.clone().addcmul_(expected_weights, decay)
        expected_momentum.mul_(0.9)
        if form == "caffe":
            expected_momentum.add_(total, alpha=lr)
            expected_weights.sub_(expected_momentum)
        else:
            expected_momentum.add_(total)
            expected_weights.sub_(expected_momentum, alpha=lr)
        sgd_update(small_row(sgd=form), weights, momentum, gradients, decay, torch.tensor(lr))
        assert torch.equal(momentum, expected_momentum) and torch.equal(weights, expected_weights)


@pytest.mark.parametrize("scope", ["conv_fc", "all"])
def test_weight_decay_reaches_what_its_scope_says(scope: str) -> None:
    train_state = TrainState(
        small_row(weight_decay_scope=scope), build_network(small_row(), 0), CPU
    )
    parts = train_state.decay.split([p.numel() for p in train_state.parameters])
    for (name, parameter), decay in zip(train_state.network.named_parameters(), parts, strict=True):
        matrix = parameter.dim() > 1
        assert matrix == (name.endswith("weight") and "bn" not in name)
        assert decay.unique().tolist() == pytest.approx([1e-4 if matrix or scope == "all" else 0.0])


def test_flat_vectors_are_the_networks_own_memory() -> None:
    network = build_network(small_row(), 0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    train_state = TrainState(small_row(), network, CPU)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert network.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    train_state.weights.fill_(0.25)
    train_state.running.fill_(0.5)
    assert all((parameter == 0.25).all() for parameter in network.parameters())
    assert (network.bn1.running_mean == 0.5).all()


def test_flat_vectors_stay_the_memory_after_loading_a_state() -> None:
    train_state = TrainState(small_row(), build_network(small_row(), 0), CPU)
    other = TrainState(small_row(), build_network(small_row(), 1), CPU)
    other.step(images(16), 0.1, single_process())
    train_state.network.load_state_dict(other.network.state_dict())
    assert torch.equal(train_state.weights, other.weights)
    assert torch.equal(train_state.running, other.running)
    train_state.momentum.copy_(other.momentum)
    train_state.step(images(16), 0.1, single_process())
    other.step(images(16), 0.1, single_process())
    assert torch.equal(train_state.weights, other.weights)
    assert torch.equal(train_state.running, other.running)


def test_running_statistics_move_once_by_the_mean_over_groups() -> None:
    experiment = small_row(bn_momentum=0.1)
    train_state = TrainState(experiment, build_network(experiment, 0), CPU)
    x, labels = images(16)
    with torch.no_grad():
        entering = train_state.network.conv1(x)
    groups = [entering[:8], entering[8:]]
    mean = sum(group.mean((0, 2, 3)) for group in groups) / 2
    var = sum(group.var((0, 2, 3), unbiased=True) for group in groups) / 2
    train_state.step((x, labels), 0.1, single_process())
    norm = train_state.network.bn1
    torch.testing.assert_close(norm.running_mean, 0.1 * mean)
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * var)


def test_without_norm_the_step_follows_the_gradient_of_the_batchs_mean_loss() -> None:
    experiment = small_row(norm="none", momentum=0.0, weight_decay=0.0)
    x, labels = images(16)
    network = build_network(experiment, 0)
    loss = F.cross_entropy(network(x), labels)
    wanted = torch.autograd.grad(loss, list(network.parameters()))
    before = [parameter.detach().clone() for parameter in network.parameters()]
    train_state = TrainState(experiment, network, CPU)
    assert train_state.norms == []
    scalars = train_state.step((x, labels), 0.1, single_process())
    for old, parameter, gradient in zip(before, network.parameters(), wanted, strict=True):
        torch.testing.assert_close((old - parameter.detach()) / 0.1, gradient, rtol=1e-3, atol=1e-5)
    assert scalars[0].item() == pytest.approx(loss.item(), rel=1e-5)


def test_loss_and_wrong_predictions_are_of_the_whole_batch() -> None:
    experiment = small_row(global_batch_size=32)
    x, labels = images(32)
    network = build_network(experiment, 0).train()
    with torch.no_grad():
        logits = torch.cat([network(x[start : start + 8]) for start in range(0, 32, 8)])
    loss, wrong = (
        TrainState(experiment, network, CPU).step((x, labels), 0.1, single_process()).tolist()
    )
    assert loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert wrong == (logits.argmax(1) != labels).sum().item()


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("groups", [2, 8])
def test_one_pass_over_all_groups_is_the_exact_step_up_to_rounding(groups: int, norm: str) -> None:
    experiment = small_row(global_batch_size=8 * groups, norm=norm, weight_decay=0.0)
    exact, one_pass = (
        TrainState(experiment, build_network(experiment, 0), CPU, one_pass=way)
        for way in (False, True)
    )
    # With a rate of 1 and no decay, the first momentum is the gradient.
    (loss, wrong), (loss_too, wrong_too) = (
        way.step(images(8 * groups), 1.0, single_process()) for way in (exact, one_pass)
    )
    assert loss_too.item() == pytest.approx(loss.item(), rel=1e-6)
    assert wrong_too == wrong
    torch.testing.assert_close(one_pass.momentum, exact.momentum, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(one_pass.running, exact.running, rtol=1e-5, atol=1e-7)
    assert len(one_pass.running) == (0 if norm == "none" else len(exact.statistics))


def test_statistics_of_images_outside_the_group_do_not_matter() -> None:
    experiment = small_row()
    x, labels = images(16)
    train_state = TrainState(experiment, build_network(experiment, 0), CPU)
    train_state.network.train()
    alone = train_state.forward_backward_group(x[:8], labels[:8])
    train_state.forward_backward_group(x[8:] * 100, labels[8:])
    assert torch.equal(train_state.forward_backward_group(x[:8], labels[:8]), alone)
    assert isinstance(train_state.norms[0], GroupBatchNorm2d)
