"""What is asked for as a sweep: settings with several values, and the recipe ledger one switch at a
time.
"""

from dataclasses import fields

import pytest

from analysis.paper.ledger import LEDGER_SWITCHES
from jobs.grids.sweeps import CIFAR_TRAINING_IMAGES, asked_for, ledger, split
from pipeline.errors import InputError
from pipeline.recipe.experiments import EXPERIMENTS


def test_settings_with_several_values_are_told_from_those_with_one() -> None:
    settings = ["lr=0.05,0.1", "sgd=torch", "lr_drops=32000,48000", "warmup_lr=none,0.01"]
    fixed, varied = split(settings)
    assert fixed == ["sgd=torch", "lr_drops=32000,48000"]
    assert varied == {
        "lr": ["lr=0.05", "lr=0.1"],
        "warmup_lr": ["warmup_lr=none", "warmup_lr=0.01"],
    }
    assert split(["lr_drops=32000,48000;24000"])[1] == {
        "lr_drops": ["lr_drops=32000,48000", "lr_drops=24000"]
    }


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["lr=0.1,0.10"], "twice"),
        (["lr=0.1,fast"], "a number"),
        (["lr=0.1,"], "a number"),
        (["lr=0.1,0.2", "lr=0.3"], "lr is set twice"),
        (["lr=0.3", "lr=0.1,0.2"], "lr is set twice"),
    ],
)
def test_values_that_make_no_sweep_are_refused(settings: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        asked_for(["resnet20"], settings, None, CIFAR_TRAINING_IMAGES)


def test_a_sweep_is_every_row_under_every_combination() -> None:
    experiments, (sweep,) = asked_for(
        ["plain20", "resnet20"], ["lr=0.05,0.1", "momentum=0.8,0.9"], 640, CIFAR_TRAINING_IMAGES
    )
    assert sweep.name == "lr x momentum"
    assert [cell.change for cell in sweep.cells][:4] == [
        "lr=0.05, momentum=0.8",
        "lr=0.05, momentum=0.9",
        "lr=0.1, momentum=0.8",
        "lr=0.1, momentum=0.9",
    ]
    assert len(experiments) == 8 and {experiment.iterations for experiment in experiments} == {640}
    facts = sweep.facts("d1")
    assert [fact["unchanged"] for fact in facts] == [False, False, False, True] * 2
    assert len({fact["sweep"] for fact in facts}) == 1


def test_without_several_values_there_is_no_sweep() -> None:
    experiments, sweeps = asked_for(["figure1"], ["lr=0.05"], None, CIFAR_TRAINING_IMAGES)
    assert [experiment.name for experiment in experiments] == [
        "plain20",
        "plain56",
    ] and sweeps == []


def test_the_ledger_turns_one_switch_at_a_time() -> None:
    sweep = ledger([], None, CIFAR_TRAINING_IMAGES)
    changed = [cell for cell in sweep.cells if cell.change]
    assert len(changed) == len(LEDGER_SWITCHES)
    for cell, switch in zip(changed, LEDGER_SWITCHES, strict=True):
        paper = EXPERIMENTS[switch.experiment]
        field = switch.setting.partition("=")[0]
        differing = {
            f.name
            for f in fields(paper)
            if getattr(cell.experiment, f.name) != getattr(paper, f.name)
        }
        assert field in differing and differing <= {field, "lr_drops", "eval_every"}
    assert [cell.experiment for cell in sweep.cells if not cell.change] == [
        EXPERIMENTS["resnet20"],
        EXPERIMENTS["resnet110"],
    ]


def test_the_ledger_takes_budgets_in_proportion() -> None:
    changes = {cell.change for cell in ledger(["precision=bf16"], 640, 1_437).cells}
    assert {
        "iterations=782",
        "holdout=144",
    } <= changes  # 640 x 78,200 / 64,000, and a tenth of digits
    with pytest.raises(InputError, match="turns shortcut itself"):
        asked_for(["ledger"], ["shortcut=B"], None, CIFAR_TRAINING_IMAGES)
    with pytest.raises(InputError, match="one field at a time"):
        asked_for(["ledger"], ["lr=0.1,0.2"], None, CIFAR_TRAINING_IMAGES)
