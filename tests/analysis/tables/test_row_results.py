"""The few numbers that are said of each row: those that the paper prints, each once."""

from collections.abc import Callable

from analysis.measured.frames import check
from analysis.studies.studies import split_studies
from analysis.tables.row_results import row_results
from pipeline.recipe.metrics import TEST_ERR, protocol_err
from tests.analysis.measured_runs import Frames
from tests.analysis.report.test_imagenet_report import invented, papers_numbers, study_of

DIGITS = {"dataset": "digits", "dataset_id": "d161", "comparable": False}


def test_of_photographs_each_printed_error_is_said_once() -> None:
    results = row_results(study_of(invented()))
    said = {(one.experiment, one.metric): one.paper for one in results}
    printed = papers_numbers()
    assert said == {
        (name, metric): value
        for name, errors in printed.items()
        for metric, value in errors.items()
    }
    assert len(results) == len(said) and {one.verdict for one in results} == {"reproduced"}
    first = next(one for one in results if one.experiment == "resnet34-a")
    assert (first.metric, first.table) == (protocol_err("ten_crop", 1), "Table 2")
    assert (first.printed, first.n) == ("25.03", 5)


def test_of_small_images_it_is_the_final_error_and_where_the_paper_has_it(
    build: Callable[..., Frames],
) -> None:
    errors = {"plain20": [9.6, 9.7, 9.8], "resnet110": [6.5, 6.6, 6.7], "plain110": [70.0, 71.0]}
    (study,) = split_studies(check(*build(errors)))
    said = {one.experiment: one for one in row_results(study)}
    assert said.keys() == errors.keys() and {one.metric for one in said.values()} == {TEST_ERR}
    assert (said["plain20"].table, said["resnet110"].table) == ("Figure 6", "Table 6")
    assert said["resnet110"].printed == "6.43 (6.61±0.16)" and said["resnet110"].paper == 6.61
    assert said["plain110"].printed == "> 60" and said["plain110"].paper != said["plain110"].paper


def test_elsewhere_there_is_no_verdict_and_a_reason(build: Callable[..., Frames]) -> None:
    (study,) = split_studies(check(*build({"resnet20": [9.0, 9.1, 9.2]}, **DIGITS)))
    (result,) = row_results(study)
    assert (result.verdict, result.printed) == ("", "") and "not comparable" in result.why
    assert result.paper != result.paper and round(result.mean, 6) == 9.1
    # The paper's data by another recipe: its number is known, and not compared.
    (study,) = split_studies(check(*build({"resnet20": [9.0]}, overrides={"precision": "bf16"})))
    (result,) = row_results(study)
    assert (result.verdict, result.printed, result.paper) == ("", "8.75", 8.75)
