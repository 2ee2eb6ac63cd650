"""Verdicts on runs whose outcome is plain to see: reproduced, contradicted, undecided, not run."""

import pandas as pd
import pytest

from analysis.measured.frames import check
from analysis.studies.studies import split_studies
from analysis.verdicts.claims import CLAIMS, claims_table, judge_claims

DIGITS = {"dataset": "digits", "dataset_id": "d1", "comparable": False}
PLAIN = {
    "plain20": [9.6, 9.7, 9.8],
    "plain32": [10.0, 10.1, 10.2],
    "plain44": [11.3, 11.4, 11.5],
    "plain56": [13, 13.2, 13.4],
}
PLAIN_TRAIN = {
    "plain20": [1.2, 1.3, 1.4],
    "plain32": [1.5, 1.6, 1.7],
    "plain44": [2.8, 2.9, 3.0],
    "plain56": [5.7, 5.8, 5.9],
}
RESNET = {
    "resnet20": [8.7, 8.8, 8.9],
    "resnet32": [7.5, 7.6, 7.7],
    "resnet44": [7.1, 7.2, 7.3],
    "resnet56": [6.8, 6.9, 7.0],
    "resnet110": [6.4, 6.5, 6.6],
}


def verdict(frames, claim):
    (study,) = split_studies(check(*frames))
    (judgement,) = (judgement for judgement in judge_claims(study) if judgement.id == claim)
    return judgement


def spread(centre, n=3, by=0.1):
    return [centre + by * (i - (n - 1) / 2) for i in range(n)]


def test_the_papers_own_numbers_reproduce_it(build):
    frames = build(PLAIN | RESNET, train=PLAIN_TRAIN | {name: [0.1] * 3 for name in RESNET})
    for claim in ("C1", "C2", "C3", "C5", "C6", "C7"):
        judgement = verdict(frames, claim)
        assert judgement.verdict == "reproduced", (claim, judgement.reason)
        assert (judgement.numbers.outcome == "holds").all()


def test_numbers_that_a_verdict_rests_on(build):
    numbers = verdict(build(PLAIN, train=PLAIN_TRAIN), "C1").numbers
    assert numbers.comparison.tolist() == [
        "training error (whole set): plain56 > plain20",
        "test error: plain56 > plain20",
    ]
    assert numbers["mean"].tolist() == pytest.approx([5.8, 13.2])
    assert numbers.mean_against.tolist() == pytest.approx([1.3, 9.7])
    assert numbers.n.tolist() == numbers.n_against.tolist() == [3, 3]
    assert numbers.p.tolist() == [0.05, 0.05]


def test_one_link_the_other_way_contradicts_a_chain(build):
    judgement = verdict(build(PLAIN | {"plain44": [9.0, 9.1, 9.2]}), "C2")
    assert judgement.verdict == "contradicted"
    assert "plain44 > plain32" in judgement.reason
    assert judgement.numbers.outcome.tolist() == ["holds", "opposite", "holds"]


def test_overlapping_seeds_leave_a_chain_undecided(build):
    judgement = verdict(build(PLAIN | {"plain32": [9.65, 10.1, 10.2]}), "C2")
    assert judgement.verdict == "undecided"
    assert (
        "plain32 > plain20 (p = 0.150; could have seen a difference of 0.46, about 5 seeds would "
        "decide)" in judgement.reason
    )


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_decide_nothing(build, seeds):
    few = {name: errors[:seeds] for name, errors in PLAIN.items()}
    judgement = verdict(build(few), "C2")
    assert judgement.verdict == "undecided"
    assert f"plain20 has {seeds}" in judgement.reason
    assert "at least 3 per row" in judgement.reason


def test_one_row_with_too_few_seeds_is_enough_to_stay_undecided(build):
    many = {"plain20": spread(9.7, 7), "plain56": spread(13.2, 2)}
    judgement = verdict(
        build(many, train={"plain20": spread(1.3, 7), "plain56": spread(5.8, 2)}), "C1"
    )
    assert judgement.verdict == "undecided"
    assert "plain56 has 2" in judgement.reason


def test_missing_rows_are_named_with_what_became_of_them(build):
    runs, metrics = build({name: PLAIN[name] for name in ("plain20", "plain32", "plain44")})
    runs.loc[runs.experiment == "plain44", "status"] = ["FAILED", "DIVERGED", "RUNNING"]
    judgement = verdict((runs, metrics), "C2")
    assert judgement.verdict == "not run"
    assert judgement.reason == "No finished run of plain44 (2 failed, 1 unfinished), plain56."


def test_a_finished_run_without_a_final_error_does_not_count(build):
    runs, metrics = build(PLAIN)
    metrics.loc[(metrics.run_id == runs.run_id[0]) & (metrics.iteration == 64_000), "value"] = (
        float("nan")
    )
    judgement = verdict((runs, metrics), "C2")
    assert judgement.verdict == "undecided"
    assert "plain20 has 2" in judgement.reason


def test_running_training_error_stands_in_for_the_clean_one(build):
    numbers = verdict(build(PLAIN, train=PLAIN_TRAIN, clean=False), "C1").numbers
    assert numbers.comparison[0] == "training error (running, last 22 %): plain56 > plain20"
    # Points at 56,000 (one point above the end) and 64,000.
    assert numbers["mean"][0] == pytest.approx(5.8 + 0.5)


def test_both_sides_use_the_same_training_error(build):
    runs, metrics = build(PLAIN, train=PLAIN_TRAIN)
    lacking = (metrics.run_id == runs.run_id[0]) & (metrics.metric == "train_clean/top1_err")
    assert (
        verdict((runs, metrics[~lacking]), "C1")
        .numbers.comparison[0]
        .startswith("training error (running")
    )


def test_without_any_training_error_claim_1_is_not_settled(build):
    judgement = verdict(build(PLAIN), "C1")
    assert judgement.verdict == "undecided"
    assert "plain56 has a run without training error" in judgement.reason


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([90, 90, 90], "reproduced"),
        ([12, 13, 14], "contradicted"),
        ([55, 90, 62], "undecided"),
        ([90], "undecided"),
    ],
)
def test_claim_4_plain_110_stays_above_60(build, errors, expected):
    assert (
        verdict(build({"plain110": errors}, train={"plain110": errors}), "C4").verdict == expected
    )


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        (spread(6.5, 5), "reproduced"),
        (spread(9.0, 5), "contradicted"),
        (spread(7.1, 5), "undecided"),
        ([6.61], "undecided"),
    ],
)
def test_claim_7_mean_of_resnet_110(build, errors, expected):
    judgement = verdict(build({"resnet110": errors}), "C7")
    assert judgement.verdict == expected
    assert judgement.numbers.best[0] == min(errors)


@pytest.mark.parametrize(
    ("starts", "final", "expected"),
    [
        (
            [1_500, 2_000, None],
            6.6,
            "reproduced",
        ),  # two epochs are 781 iterations; one run never converged
        ([1_500, 2_000, 1_800], 9.9, "contradicted"),
        ([100, 150, 775], 6.6, "contradicted"),
        ([100, 150, 800], 6.6, "undecided"),
    ],
)
def test_claim_8_slow_start_without_warm_up(build, starts, final, expected):
    runs, metrics = build({"resnet110": spread(6.5), "resnet110-nowarmup": spread(final)})
    slow = (runs.experiment == "resnet110-nowarmup").to_numpy()
    runs["converging_from"] = pd.array([25] * len(runs), dtype="Int64")
    runs.loc[slow, "converging_from"] = pd.array(starts, dtype="Int64")
    judgement = verdict((runs, metrics), "C8")
    assert judgement.verdict == expected, judgement.reason


@pytest.mark.parametrize("rule", [1, None])
def test_claim_8_is_undecided_by_what_an_earlier_rule_recorded(build, rule):
    runs, metrics = build({"resnet110": spread(6.5, 5), "resnet110-nowarmup": spread(6.6, 5)})
    # Late enough by any rule, and early enough: neither says anything. Exports of then lack it.
    for start in (2_000, 25):
        earlier = runs.assign(converging_from=start, converging_rule=rule)
        for recorded in (earlier, earlier.drop(columns="converging_rule")):
            judgement = verdict((recorded, metrics), "C8")
            assert judgement.verdict == "undecided"
            assert "5 of 5 runs recorded by an earlier rule" in judgement.reason


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([375, 400, 450], "reproduced"),
        ([2000, 2100, 2050], "contradicted"),
        ([400, 400, None], "undecided"),
    ],
)
def test_claim_9_end_of_warm_up(build, ends, expected):
    runs, metrics = build({"resnet110": RESNET["resnet110"]})
    assert verdict((runs.assign(warmup_end=ends), metrics), "C9").verdict == expected


@pytest.mark.parametrize(
    ("train", "expected"),
    [([0.02, 0.03, 0.04], "reproduced"), ([2, 2.1, 2.2], "contradicted"), ([0.02], "undecided")],
)
def test_claim_10_resnet_1202_fits_its_training_set(build, train, expected):
    frames = build({"resnet1202": [7.9] * len(train)}, train={"resnet1202": train})
    assert verdict(frames, "C10").verdict == expected


@pytest.mark.parametrize(
    ("deeper", "train", "expected"),
    [
        (spread(7.9), 0.05, "reproduced"),
        (spread(6.1), 0.05, "contradicted"),
        (spread(7.9), 4.0, "contradicted"),  # it does not fit: degradation, not overfitting
    ],
)
def test_claim_11_resnet_1202_overfits(build, deeper, train, expected):
    frames = build(
        {"resnet110": RESNET["resnet110"], "resnet1202": deeper},
        train={"resnet110": [0.05, 0.06, 0.07], "resnet1202": spread(train, by=0.01)},
    )
    assert verdict(frames, "C11").verdict == expected


def test_on_another_dataset_orderings_are_judged_and_numbers_are_not(build):
    frames = build(
        PLAIN | RESNET, train=PLAIN_TRAIN | {name: [0.1] * 3 for name in RESNET}, **DIGITS
    )
    (study,) = split_studies(check(*frames))
    verdicts = {judgement.id: judgement for judgement in judge_claims(study)}
    assert {name for name, judgement in verdicts.items() if judgement.verdict == "reproduced"} == {
        "C1",
        "C2",
        "C3",
        "C5",
        "C6",
    }
    for name in ("C4", "C7", "C8", "C9", "C10"):
        assert verdicts[name].verdict == "not run"
        assert "about CIFAR-10 with the paper's recipe" in verdicts[name].reason
        assert "dataset is digits" in verdicts[name].reason


def test_another_recipe_is_not_judged_by_the_papers_numbers(build):
    judgement = verdict(build({"resnet110": spread(6.5)}, overrides={"precision": "bf16"}), "C7")
    assert judgement.verdict == "not run"
    assert "precision=bf16" in judgement.reason


def test_summary_has_every_claim(build):
    (study,) = split_studies(check(*build({"plain20": [9.7]})))
    table = claims_table(judge_claims(study))
    assert table.id.tolist() == list(CLAIMS)
    assert (table.verdict == "not run").sum() == len(CLAIMS)
    assert table.statement.str.endswith(".").all()
