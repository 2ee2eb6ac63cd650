"""What follows from parts: each rule of the words, on runs whose outcome is plain to see."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.measured.frames import check
from analysis.report.verdict_summary import claim_lines, family_sentence, summary
from analysis.studies.studies import split_studies
from analysis.verdicts import claims
from analysis.verdicts.judgement import Circumstances, Judgement, adjusted
from analysis.verdicts.parts import Gap, Higher, LowerBy, Within
from analysis.verdicts.words import Qualifier, Verdict
from benchmarks.verdict_rates import tables
from tests.analysis.verdicts.simulated_studies import STATEMENT, judged

DOCUMENT = Path(__file__).parents[3] / "docs" / "verdicts.md"
SHORTENED = Circumstances(shortened=True)


def spread(centre: float, n: int = 5, by: float = 0.1) -> list[float]:
    return [centre + by * (i - (n - 1) / 2) for i in range(n)]


def metrics(rows: dict[str, list[float]], classes: int = 10, **states: list[str]) -> pd.DataFrame:
    """Run metrics of finished runs with these errors, and of runs of other states."""
    names = [name for name, errors in rows.items() for _ in errors]
    errors = [error for row in rows.values() for error in row]
    lost = [(name, state) for name, row in states.items() for state in row]
    return pd.DataFrame(
        {
            "experiment": names + [name for name, _ in lost],
            "state": ["measured"] * len(names) + [state for _, state in lost],
            "classes": classes,
            "test": errors + [np.nan] * len(lost),
            "response": errors + [np.nan] * len(lost),
        }
    )


A_ABOVE_B = (Higher("test", "a", "b"),)


# The words.


@pytest.mark.parametrize(
    ("n", "here", "word"),
    [
        (5, Circumstances(), Verdict.REPRODUCED),
        (4, Circumstances(), Verdict.SUGGESTIVE),
        (3, Circumstances(), Verdict.SUGGESTIVE),
        (2, Circumstances(), Verdict.UNDECIDED),
        (10, SHORTENED, Verdict.SEEN_HERE),
    ],
)
def test_what_holds_is_called_by_its_seeds_and_schedule(n, here, word) -> None:
    rows = metrics({"a": spread(9.0, n), "b": spread(8.0, n)})
    assert judged(A_ABOVE_B, rows, here=here).verdict is word


@pytest.mark.parametrize(
    ("n", "here", "word"),
    [
        (5, Circumstances(), Verdict.CONTRADICTED),
        (3, Circumstances(), Verdict.SUGGESTIVE_AGAINST),
        (3, SHORTENED, Verdict.OPPOSITE_SEEN_HERE),
    ],
)
def test_what_is_the_opposite_too(n, here, word) -> None:
    rows = metrics({"a": spread(8.0, n), "b": spread(9.0, n)})
    assert judged(A_ABOVE_B, rows, here=here).verdict is word


def test_the_smallest_row_counts() -> None:
    rows = metrics({"a": spread(9.0, 10), "b": spread(8.0, 4)})
    one = judged(A_ABOVE_B, rows)
    assert (one.verdict, one.n) == (Verdict.SUGGESTIVE, 4)


def test_qualifiers_stand_beside_the_word() -> None:
    here = Circumstances(shortened=True, other_dataset=True, other_recipe=True)
    one = judged(A_ABOVE_B, metrics({"a": spread(9.0), "b": spread(8.0)}), here=here)
    assert one.words == "seen here (on this dataset, shortened schedule, other recipe)"


def test_the_document_has_the_table_of_words() -> None:
    made = tables(100)
    text = DOCUMENT.read_text()
    assert made["words"] in text and made["qualifiers"] in text and made["margins"] in text
    assert all(f"| *{word.value}* |" in text for word in (*Verdict, *Qualifier))


# Parts.


CHAIN = tuple(Higher("test", a, b) for a, b in pairwise("abcde"))


def test_support_with_parts_missing_is_said_with_its_count() -> None:
    rows = metrics({"a": spread(9.0), "b": spread(8.0), "c": spread(7.0)})
    one = judged(CHAIN, rows)
    assert one.verdict is Verdict.SUGGESTIVE and one.qualifiers == ("2 of 4 parts",)
    assert one.reason.startswith("2 of 4 parts hold")


def test_an_opposite_part_decides_beside_missing_ones() -> None:
    rows = metrics({"a": spread(9.0), "b": spread(8.0), "c": spread(9.5)})
    one = judged(CHAIN, rows)
    assert one.verdict is Verdict.CONTRADICTED and one.qualifiers == ("1 of 4 parts",)


def test_nothing_measured_is_not_run_and_has_no_qualifier() -> None:
    one = judged(CHAIN, metrics({"z": spread(9.0)}), here=SHORTENED)
    assert (one.verdict, one.qualifiers) == (Verdict.NOT_RUN, ())


def test_one_opposite_of_many_parts_is_corrected_for_their_number() -> None:
    rows = {name: spread(8.0 + i, 3) for i, name in enumerate("edcba")}
    assert judged(CHAIN, metrics(rows)).verdict is Verdict.SUGGESTIVE
    # At three seeds 1/20 is the smallest p, and four parts have four chances of it.
    one = judged(CHAIN, metrics(rows | {"a": spread(9.0, 3)}))
    assert one.verdict is Verdict.UNDECIDED and "among 4 parts" in one.reason
    assert one.p_against == pytest.approx(0.2)


# Sizes.


SIZED = (Higher("test", "a", "b"), Gap("test", "a", "b", 2.8 - 0.75, 2.8 + 0.75, paper_runs=1))


@pytest.mark.parametrize(
    ("gap", "verdict"),
    [(2.8, Verdict.REPRODUCED), (0.3, Verdict.CONTRADICTED), (2.2, Verdict.UNDECIDED)],
)
def test_a_size_in_a_statement_is_judged(gap: float, verdict: Verdict) -> None:
    rows = metrics({"a": spread(25.0 + gap, by=0.05), "b": spread(25.0, by=0.05)})
    assert judged(SIZED, rows).verdict is verdict


# Runs that fail.


def test_seven_of_ten_diverged_are_not_hidden_by_three_that_are_fine() -> None:
    rows = metrics({"a": spread(9.0), "b": spread(8.0, 3)}, b=["diverged"] * 7)
    one = judged(A_ABOVE_B, rows)
    assert one.verdict is Verdict.UNDECIDED
    assert "with 7 of b that diverged at 90.00 %" in one.reason


def test_a_worse_row_that_diverges_holds_only_if_it_does_without() -> None:
    better = {"b": spread(8.0)}
    assert judged(A_ABOVE_B, metrics({"a": spread(9.0)} | better, a=["diverged"])).verdict == (
        "reproduced"
    )
    alike = judged(A_ABOVE_B, metrics({"a": spread(8.0)} | better, a=["diverged"] * 5))
    assert alike.verdict is Verdict.UNDECIDED


def test_chance_is_that_of_the_datasets_classes() -> None:
    rows = metrics({"a": spread(9.0), "b": spread(8.0)}, classes=1000, b=["diverged"])
    assert "1 of b that diverged at 99.90 %" in judged(A_ABOVE_B, rows).reason


def test_a_bound_above_counts_finite_runs_and_one_below_is_blocked() -> None:
    above = (Within("test", "a", above=60),)
    rows = metrics({"a": spread(80.0, 3)}, a=["diverged"] * 7)
    one = judged(above, rows)
    assert (one.verdict, one.n) == (Verdict.SUGGESTIVE, 3)
    assert judged(above, metrics({"a": spread(55.0)}, a=["diverged"] * 9)).verdict != "reproduced"
    below = (Within("test", "a", below=7.0),)
    assert judged(below, metrics({"a": spread(6.5)}, a=["diverged"])).verdict is Verdict.UNDECIDED


def test_a_diverged_run_has_no_layer_responses() -> None:
    rows = metrics({"a": spread(9.0), "b": spread(8.0)}, a=["diverged"])
    one = judged((Higher("response", "a", "b"),), rows)
    assert one.verdict is Verdict.UNDECIDED and "1 of a diverged" in one.reason


@pytest.mark.parametrize("state", ["failed", "unfinished", "no final error"])
def test_crashed_and_unfinished_runs_leave_a_claim_open(state: str) -> None:
    one = judged(A_ABOVE_B, metrics({"a": spread(9.0), "b": spread(8.0)}, a=[state]))
    assert one.verdict is Verdict.UNDECIDED and "a: 1" in one.reason


def test_a_claim_with_a_part_that_could_not_be_tested_has_no_p() -> None:
    rows = metrics({"a": spread(9.0), "b": spread(8.0), "c": spread(7.0)}, c=["failed"])
    one = judged(CHAIN[:2], rows)
    assert one.verdict is Verdict.UNDECIDED and one.p != one.p and one.deciding is None


def test_naming_the_seeds_leaves_the_others_out(build) -> None:
    runs, frames = build({"plain20": spread(9.7, 6)})
    runs.loc[5, "status"] = "FAILED"
    whole = check(runs, frames)
    assert len(whole.of_seeds(range(5)).runs) == 5
    assert set(whole.of_seeds(range(5)).metrics.run_id) == set(runs.run_id[:5])


# Tests.


def test_spreads_of_a_hundred_to_one_need_welch_too() -> None:
    rows = {"a": [12.0, 8.02, 8.5], "b": [8.0, 8.01, 7.99]}
    one = judged(A_ABOVE_B, metrics(rows))
    assert one.verdict is Verdict.UNDECIDED  # all of a above all of b: 1/20 by permutation
    assert "p = 0.050 by permutation, 0.1" in one.reason
    # Under a shortened schedule the rows are described: they differ, in this order.
    assert judged(A_ABOVE_B, metrics(rows), here=SHORTENED).verdict is Verdict.SEEN_HERE


def test_no_spread_leaves_the_permutation_test_to_decide() -> None:
    one = judged(A_ABOVE_B, metrics({"a": [9.0] * 5, "b": [8.0] * 5}))
    assert one.verdict is Verdict.REPRODUCED and one.p == pytest.approx(1 / 252)
    assert judged(A_ABOVE_B, metrics({"a": [8.0] * 5, "b": [8.0] * 5})).p == 1


def test_the_same_runs_under_two_protocols_are_paired() -> None:
    errors = [20.0, 21.0, 22.0, 23.0, 24.0]
    rows = metrics({"a": errors}).assign(
        ten_crop_1=errors, multi_scale_1=[e - 0.2 - 0.01 * i for i, e in enumerate(errors)]
    )
    one = judged((LowerBy("multi_scale_1", "ten_crop_1", "a"),), rows)
    assert one.verdict is Verdict.REPRODUCED and "by a paired t-test" in one.reason


def test_an_open_ordering_says_what_it_could_have_seen() -> None:
    rows = metrics({"a": spread(8.1, by=0.16), "b": spread(8.0, by=0.16)})
    one = judged(A_ABOVE_B, rows)
    assert one.verdict is Verdict.UNDECIDED and one.deciding is not None
    assert "with 80 % power could have seen a difference of 0.45" in one.reason
    assert one.deciding.seen == pytest.approx(0.45, abs=0.005)
    assert "seeds would give 80 % power" in one.reason


# A study's claims.


def family(*p: float) -> list[Judgement]:
    return adjusted(
        [
            Judgement(STATEMENT, Verdict.UNDECIDED, "", pd.DataFrame(), p=value, p_against=value)
            for value in p
        ]
    )


def test_p_is_adjusted_for_the_study_and_decides_nothing() -> None:
    judgements = family(0.01, 0.04, float("nan"), 0.5)
    assert [one.p_adjusted for one in judgements][:2] == pytest.approx([0.03, 0.08])
    sentence = family_sentence(judgements)
    assert "3 claims were tested: if none were true, 0.15 would be expected" in sentence
    assert "2 of them hold, and 1 if p is adjusted" in sentence
    assert family_sentence([]) == "No claim was tested."


def test_a_terminal_is_told_each_claim_that_was_decided_and_which_were_not(build) -> None:
    errors = {"plain20": spread(9.7), "plain56": spread(13.2), "resnet20": spread(9.7)}
    (study,) = split_studies(check(*build(errors, train=errors)))
    lines = claim_lines(claims.judge_claims(study), width=90)
    assert lines[:2] == [
        "  C1 reproduced: A plain network of 56 layers has a higher training error and a higher",
        "    test error than one of 20 layers.",
    ]
    assert (
        lines[-1].startswith("  undecided: C6")
        and "seeds" not in lines[-1]
        and max(map(len, lines)) <= 90
    )
    assert claim_lines([], width=90) == []


def test_a_terminal_is_told_why_single_runs_decide_nothing(build) -> None:
    (study,) = split_studies(check(*build({"plain20": [9.7], "resnet20": [8.7]})))
    assert claim_lines(claims.judge_claims(study), width=90) == [
        "  undecided: C6, C12 (3 seeds a row are the fewest that can suggest a verdict)"
    ]


def test_every_judged_claim_has_p_effect_interval_seeds_and_power(build) -> None:
    errors = {"plain20": spread(9.7), "plain56": spread(13.2)}
    frames = build(errors, train={"plain20": spread(1.3), "plain56": spread(5.8)})
    (study,) = split_studies(check(*frames))
    judgements = claims.judge_claims(study)
    table = summary(judgements).set_index("claim")
    assert list(table.columns) == [
        "verdict", "p", "adjusted p", "effect (interval)", "n", "80 % power",
    ]  # fmt: skip
    row = table.loc["C1"]
    assert row.n == "5" and row["effect (interval)"] == "4.50 (4.31 to 4.69)"
    assert row["80 % power"] == "0.28"
