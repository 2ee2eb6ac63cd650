"""What more seeds could decide, and what several looks cost."""

from analysis.measured.frames import check
from analysis.report.undecided import undecided
from analysis.stats import INTERIM_SEEDS, LEVEL
from analysis.studies.studies import split_studies
from analysis.tables.table_6 import table_6
from analysis.verdicts.claims import judge_claims


def asked(frames):
    """The open questions but for I4, whose signals these frames do not have."""
    return [text for text in undecided(frames) if not text.startswith("I4")]


def spread(centre, n=5):
    return [centre + (step - (n - 1) / 2) / 10 for step in range(n)]


PLAIN = {"plain20": spread(9.7), "plain56": spread(13.2)}
TRAIN = {"plain20": spread(1.3), "plain56": spread(5.8)}


def claim_1(frames):
    (study,) = split_studies(frames)
    return next(judgement for judgement in judge_claims(study) if judgement.id == "C1")


def test_a_decided_study_has_no_open_questions(build):
    assert asked(check(*build(PLAIN, train=TRAIN))) == []


def test_undecided_cells_and_claims_are_open_and_missing_rows_are_not(build):
    test = PLAIN | {"plain20": [9.2, 9.8, 10.4, 9.3, 10.3]}
    (cell,) = asked(check(*build(test, train=TRAIN)))
    assert cell.startswith("Table 6, plain-20: 90 % interval of the difference")
    assert "80 % power would need more than 100 seeds" in cell


def test_a_crashed_run_leaves_a_cell_and_its_claims_open(build):
    runs, metrics = build(PLAIN, train=TRAIN)
    runs.loc[0, "status"] = "FAILED"
    claim, cell = asked(check(runs, metrics))
    assert "plain20: 1 failed" in claim and "1 failed: finish them, or name the seeds" in cell


def test_two_looks_have_half_of_the_level_each(build):
    frames = check(*build(PLAIN, train=TRAIN, looks=True))
    (study,) = split_studies(frames)
    assert study.level_of(["plain20"]) == LEVEL / 2 and INTERIM_SEEDS == (5, 10)
    assert claim_1(frames).verdict == "reproduced"  # of five seeds each, 1/252 is the smallest p
    three = {name: values[1:4] for name, values in PLAIN.items()}
    train = {name: values[1:4] for name, values in TRAIN.items()}
    few = claim_1(check(*build(three, train=train, looks=True)))
    assert few.verdict == "undecided" and "so few seeds cannot show it" in few.reason


def test_looks_at_one_row_leave_the_level_of_others_alone(build):
    runs, metrics = build(PLAIN | {"resnet20": spread(8.8)}, train=TRAIN | {"resnet20": [1.0] * 5})
    runs["looks"] = runs.experiment == "resnet20"
    (study,) = split_studies(check(runs, metrics))
    assert study.level_of(["resnet20", "plain20"]) == LEVEL / 2
    assert study.level_of(["plain20", "plain56"]) == LEVEL
    rows = table_6(study).set_index("experiment")
    assert "95 % interval" in rows.why["resnet20"] and "90 % interval" in rows.why["plain20"]


def test_frames_of_an_older_export_have_no_looks(build):
    runs, metrics = build(PLAIN)
    assert not check(runs.drop(columns="looks"), metrics).runs.looks.any()
