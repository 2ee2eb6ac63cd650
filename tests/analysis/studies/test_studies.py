"""Studies are kept apart, and each run's numbers are those of its own end."""

from math import isnan

import pandas as pd
import pytest

from analysis.measured.frames import check
from analysis.studies.run_metrics import measure
from analysis.studies.studies import split_studies
from pipeline.recipe.metrics import TEST_ERR, TRAIN_ERR
from tests.analysis.measured_runs import frames_of, points, run_row

SHORT = {"iterations": 800, "lr_drops": [400, 600], "eval_every": 13}


def together(*frames):
    return check(*(pd.concat(parts, ignore_index=True) for parts in zip(*frames, strict=True)))


def only(frames):
    (study,) = split_studies(check(*frames))
    return study


def test_dataset_and_recipe_make_a_study(build):
    paper = build({"plain20": [9.5]})
    bf16 = build({"plain20": [9.6]}, overrides={"precision": "bf16"})
    digits = build(
        {"plain20": [4.0]},
        overrides=SHORT,
        iterations=800,
        dataset="digits",
        dataset_id="d1",
        comparable=False,
    )
    studies = split_studies(together(digits, bf16, paper))
    assert [study.title for study in studies] == [
        "CIFAR-10, the paper's recipe",
        "CIFAR-10, in bf16",
        "digits, 800 of 64,000 iterations",
    ]
    assert [study.comparable for study in studies] == [True, False, False]
    assert len({study.slug for study in studies}) == 3
    for study in studies:
        assert set(study.metrics.run_id) == set(study.runs.run_id)
        assert len(study.runs) == 1


@pytest.mark.parametrize(
    ("overrides", "why", "phrases"),
    [
        ({}, "", []),
        (
            {"precision": "bf16"},
            "not the paper's recipe: precision=bf16",
            ["precision bf16 instead of fp32"],
        ),
        (
            SHORT,
            "not the paper's recipe: 800 of 64,000 iterations",
            [
                "iterations 800 instead of 64,000 (learning rate drops and evaluations moved in "
                "proportion)"
            ],
        ),
        (
            SHORT | {"lr_drops": [700]},
            "not the paper's recipe: iterations=800, lr_drops=700",
            [
                "iterations 800 instead of 64,000 (evaluations moved in proportion)",
                "lr drops 700 instead of 32,000/48,000",
            ],
        ),
    ],
)
def test_what_deviates_in_words(build, overrides, why, phrases):
    study = only(build({"plain20": [9.5], "resnet20": [8.7]}, overrides=overrides))
    assert study.why_not_comparable == why
    assert study.deviations() == phrases
    assert study.comparable == (not overrides)


def test_another_dataset_and_an_unverified_copy_are_told_apart(build):
    digits = only(
        build(
            {"plain20": [9.5]}, dataset="digits", comparable=False, overrides={"precision": "bf16"}
        )
    )
    assert (
        digits.why_not_comparable
        == "dataset is digits, not CIFAR-10; not the paper's recipe: precision=bf16"
    )
    copy = only(build({"plain20": [9.5]}, comparable=False))
    assert (
        copy.why_not_comparable == "dataset is cifar10, not verified against the official archive"
    )


def test_same_pixels_are_official_once_one_copy_is(build):
    runs, metrics = build({"plain20": [9.5, 9.6]})
    runs["comparable"] = [True, False]
    assert only((runs, metrics)).comparable


def test_runs_come_in_the_papers_order(build):
    study = only(
        build({"resnet110": [6.6], "plain110": [90.0], "resnet20": [8.7], "plain20": [9.7]})
    )
    assert study.runs.experiment.tolist() == ["plain20", "plain110", "resnet20", "resnet110"]


def test_final_numbers_are_those_of_the_last_iteration():
    measured = points("a", TEST_ERR, {32_000: 5.0, 63_000: 6.0, 64_000: 9.5})
    measured += points(
        "a",
        TRAIN_ERR,
        {33_000: 4.0, 48_000: 3.0, 49_000: 2.0, 50_000: 1.5, 57_000: 1.0, 64_000: 0.5},
    )
    row = measure(only(frames_of([run_row("plain20", 0, run_id="a")], measured))).iloc[0]
    assert row.state == "measured"
    assert row.test == 9.5
    assert isnan(row.train_clean)
    assert row.train_running == pytest.approx((1.5 + 1.0 + 0.5) / 3)
    assert row.train_plateau == 3.5


@pytest.mark.parametrize("last", [{}, {64_000: float("nan")}, {64_000: float("inf")}])
def test_finished_without_a_final_error_is_no_zero_and_no_earlier_value(last):
    measured = points("a", TEST_ERR, {63_000: 6.0} | last)
    row = measure(only(frames_of([run_row("plain20", 0, run_id="a")], measured))).iloc[0]
    assert row.state == "no final error"
    assert isnan(row.test)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("FAILED", "failed"),
        ("KILLED", "failed"),
        ("DIVERGED", "diverged"),
        ("RUNNING", "unfinished"),
        ("SCHEDULED", "unfinished"),
    ],
)
def test_a_run_that_did_not_finish_is_not_measured_whatever_it_logged(status, state):
    row = run_row("plain20", 0, run_id="a", status=status)
    study = only(frames_of([row], points("a", TEST_ERR, {64_000: 9.5})))
    assert measure(study).state.tolist() == [state]


def test_a_row_that_has_the_asked_value_anyway_is_in_the_study_that_asks_for_it(build):
    everywhere = build(
        {"resnet20": [9.0]}, overrides={"warmup_lr": 0.01}, dataset_id="d1", comparable=False
    )
    own = build(
        {"resnet110": [7.0]}, dataset_id="d1", comparable=False
    )  # its row warms up at 0.01 already
    (study,) = split_studies(together(everywhere, own))
    assert study.title == "cifar10, warmup lr 0.01" and set(study.runs.experiment) == {
        "resnet20",
        "resnet110",
    }
    of_the_paper = together(
        *(
            build({name: [8.0]}, overrides=changes)
            for name, changes in (("resnet20", {"warmup_lr": 0.01}), ("resnet110", {}))
        )
    )
    assert [len(study.runs) for study in split_studies(of_the_paper)] == [1, 2]
