"""Each image counts once, whatever the size of the split."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pipeline.data.datasets import Images
from pipeline.training.feeding.image_batches import OriginalImages, single_views
from pipeline.training.measuring.evaluate import Score, evaluate
from pipeline.training.step.networks import build_network
from pipeline.training.step.process_group import single_process
from tests.pipeline.training.small_runs import digits_once, small_row

CPU = torch.device("cpu")


def some(count: int) -> OriginalImages:
    train = digits_once().train
    return single_views(
        small_row(), digits_once(), Images(train.pixels[:count], train.labels[:count]), CPU
    )


@pytest.mark.parametrize("count", [1, 249, 250, 251, 503])
def test_counts_equal_a_plain_loops(count: int) -> None:
    network, images = build_network(small_row(), 0), some(count)
    score = evaluate(network, images, "fp32", single_process())
    wrong, loss = 0, 0.0
    with torch.no_grad():
        for i in range(count):
            view, label = images.batch(i, 1)
            logits = network(view)
            wrong += int(logits.argmax(1).item() != label.item())
            loss += F.cross_entropy(logits, label).item()
    assert (score.wrong, score.count) == (wrong, count)
    assert score.loss == pytest.approx(loss / count, rel=1e-5)


def test_a_network_that_always_says_zero_is_wrong_on_all_other_digits() -> None:
    network = build_network(small_row(), 0)
    torch.nn.init.zeros_(network.fc.weight)
    network.fc.bias.data = torch.eye(10)[0]
    score = evaluate(network, some(503), "fp32", single_process())
    zeros = int(np.count_nonzero(digits_once().train.labels[:503] == 0))
    assert score.wrong == 503 - zeros


def test_error_is_in_percent() -> None:
    assert Score(wrong=643, count=10_000, loss=0.0).top1_err == 6.43


def test_evaluation_changes_no_statistics() -> None:
    network = build_network(small_row(), 0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    evaluate(network, some(20), "fp32", single_process())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
