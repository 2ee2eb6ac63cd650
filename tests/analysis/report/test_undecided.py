"""What more seeds could decide, and what several looks cost."""

from analysis.measured.frames import check
from analysis.report.undecided import undecided
from analysis.stats import LEVEL
from analysis.studies.studies import split_studies
from analysis.verdicts.claims import judge_claims


def asked(frames):
    """The open questions but for I4, whose signals these frames do not have."""
    return [text for text in undecided(frames) if not text.startswith("I4")]


PLAIN = {"plain20": [9.6, 9.7, 9.8], "plain56": [13.1, 13.2, 13.3]}
TRAIN = {"plain20": [1.2, 1.3, 1.4], "plain56": [5.7, 5.8, 5.9]}


def test_a_decided_study_has_no_open_questions(build):
    assert asked(check(*build(PLAIN, train=TRAIN))) == []


def test_undecided_cells_and_claims_are_open_and_missing_rows_are_not(build):
    test = PLAIN | {"plain20": [9.2, 9.8, 10.4]}
    (cell,) = asked(check(*build(test, train=TRAIN)))
    assert (
        cell.startswith("Table 6, plain-20: 90 % interval of the difference")
        and "seeds would" in cell
    )


def test_several_looks_have_their_share_of_the_level(build):
    frames = check(*build(PLAIN, train=TRAIN, looks=True))
    (study,) = split_studies(frames)
    assert study.level == LEVEL / 3
    claim = next(judgement for judgement in judge_claims(study) if judgement.id == "C1")
    assert claim.verdict == "undecided"  # of three seeds each, p = 1/20 is the smallest there is
    questions = asked(frames)
    assert any("96.7 % interval" in text for text in questions) or [
        text[:2] for text in questions
    ] == ["C1"]
    five = {name: [values[0] + step / 10 for step in range(5)] for name, values in PLAIN.items()}
    train = {name: [values[0] + step / 10 for step in range(5)] for name, values in TRAIN.items()}
    (study,) = split_studies(check(*build(five, train=train, looks=True)))
    assert (
        next(judgement for judgement in judge_claims(study) if judgement.id == "C1").verdict
        == "reproduced"
    )


def test_frames_of_an_older_export_have_no_looks(build):
    runs, metrics = build(PLAIN)
    assert not check(runs.drop(columns="looks"), metrics).runs.looks.any()
