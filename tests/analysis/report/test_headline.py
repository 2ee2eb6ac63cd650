"""The result in one sentence: which networks it names, and that its numbers are the table's."""

import pytest

from analysis.measured.frames import check
from analysis.report.headline import headline
from analysis.studies.studies import split_studies
from analysis.tables.study_tables import study_tables
from tests.analysis.report.test_imagenet_report import invented


def sentence(frames) -> str:
    (study,) = split_studies(check(*frames))
    return headline(study, study_tables(study))


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        (
            {"plain20": 9.7, "resnet20": 8.8, "plain56": 13.3, "resnet56": 7.0, "plain110": 75.0},
            "Test error of 56 layers: plain 13.3 %, residual 7.0 %; of 20 layers: 9.7 % and 8.8 %.",
        ),
        (
            {"plain20": 9.7, "resnet20": 8.8},
            "Test error of 20 layers: plain 9.7 %, residual 8.8 %.",
        ),
        (
            {"plain32": 10.1, "resnet32": 7.5, "plain44": 11.4, "resnet44": 7.2},
            "Test error of 44 layers: plain 11.4 %, residual 7.2 %; "
            "of 32 layers: 10.1 % and 7.5 %.",
        ),
        (
            {"resnet20": 8.8, "resnet110": 6.6, "plain56": 13.3},
            "Test error of residual networks: 8.8 % with 20 layers, 6.6 % with 110 layers. "
            "Test error of plain networks: 13.3 % with 56 layers.",
        ),
    ],
)
def test_the_paper_s_first_pair_is_named_or_what_there_is(build, errors, said):
    single = build({name: [error] for name, error in errors.items()})
    assert sentence(single) == f"{said} Single runs."
    assert sentence(build({name: [error, error] for name, error in errors.items()})) == said


def test_photographs_are_named_by_ten_crops():
    assert sentence(invented()).startswith("Test error of 34 layers: plain ")


def test_there_is_no_sentence_of_rows_that_no_table_shows(build):
    assert sentence(build({"plain56-gaussian": [9.7]})) == ""
