"""When the learning rate falls, warm-up ends and errors are taken (Sec. 4.2, footnote 5)."""

from dataclasses import replace

import pytest

from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.schedule import evaluates_after, lr_at, milestone, warmup_ends

RESNET20, RESNET110 = EXPERIMENTS["resnet20"], EXPERIMENTS["resnet110"]


@pytest.mark.parametrize(
    ("iteration", "lr"),
    [(0, 0.1), (31_999, 0.1), (32_000, 0.01), (47_999, 0.01), (48_000, 0.001), (63_999, 0.001)],
)
def test_the_rate_is_divided_by_ten_at_32k_and_48k(iteration: int, lr: float) -> None:
    assert lr_at(RESNET20, iteration, None) == pytest.approx(lr, rel=1e-12)


@pytest.mark.parametrize(
    ("iteration", "lr"), [(149_999, 0.1), (150_000, 0.01), (299_999, 0.01), (300_000, 0.001)]
)
def test_imagenet_drops(iteration: int, lr: float) -> None:
    assert lr_at(EXPERIMENTS["resnet50"], iteration, None) == pytest.approx(lr, rel=1e-12)


def test_warmup_holds_the_small_rate_until_it_ended() -> None:
    assert lr_at(RESNET110, 0, None) == lr_at(RESNET110, 5_000, None) == 0.01
    assert lr_at(RESNET110, 399, 400) == 0.01
    assert lr_at(RESNET110, 400, 400) == 0.1
    assert lr_at(RESNET110, 32_000, 400) == pytest.approx(0.01)


def test_warmup_never_raises_the_rate() -> None:
    for iteration in (0, 31_999, 32_000, 48_000, 63_999):
        assert lr_at(RESNET110, iteration, None) <= lr_at(RESNET20, iteration, None)
    assert lr_at(RESNET110, 48_000, None) == pytest.approx(0.001)


def test_warmup_ends_strictly_below_80_percent_of_3200_images() -> None:
    assert warmup_ends(RESNET110, 400, 2_559)
    assert not warmup_ends(RESNET110, 400, 2_560)


@pytest.mark.parametrize("iteration", [1, 24, 26, 399, 401])
def test_warmup_is_looked_at_every_25_iterations(iteration: int) -> None:
    assert not warmup_ends(RESNET110, iteration, 0)
    assert warmup_ends(RESNET110, 25, 0)


def test_only_the_two_deepest_rows_warm_up_and_footnote_5_does_not() -> None:
    warm = [name for name, experiment in EXPERIMENTS.items() if experiment.warmup_lr is not None]
    assert warm == ["resnet110", "resnet1202"]
    assert lr_at(EXPERIMENTS["resnet110-nowarmup"], 0, None) == 0.1
    assert not warmup_ends(EXPERIMENTS["resnet110-nowarmup"], 400, 0)


def test_evaluations_are_at_multiples_and_milestones() -> None:
    experiment = replace(RESNET20, iterations=25, lr_drops=(12, 18), eval_every=10)
    assert [i for i in range(1, 26) if evaluates_after(experiment, i)] == [10, 12, 18, 20, 25]


def test_milestones_are_the_ends_of_constant_rates() -> None:
    assert [i for i in range(0, 64_001, 500) if milestone(RESNET20, i)] == [32_000, 48_000, 64_000]
