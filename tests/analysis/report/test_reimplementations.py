"""The page beside other work: whose numbers stand there, and that each has its origin."""

from analysis.measured.frames import check
from analysis.paper import reported
from analysis.report.reimplementations import REIMPLEMENTATIONS, reimplementation_files
from analysis.studies.studies import split_studies
from pipeline.recipe.experiments import EXPERIMENTS


def page(frames) -> str:
    return reimplementation_files(split_studies(check(*frames)))[REIMPLEMENTATIONS].decode()


def test_every_number_has_a_source_and_is_of_a_row():
    numbers, sources = reported.reimplementations(), reported.reimplementation_sources()
    assert set(numbers.source) == set(sources)
    assert set(numbers.experiment) <= set(EXPERIMENTS)
    assert all(0 < float(value) < 100 for value in numbers.value)
    assert not numbers.duplicated(["source", "experiment", "metric"]).any()


def test_ours_stand_there_where_they_are_comparable(build):
    assert "8.80 ± 0.10 (3)" in page(build({"resnet20": [8.7, 8.8, 8.9]}))
    other = {"dataset": "digits", "dataset_id": "d1", "comparable": False}
    html = page(build({"resnet20": [8.7, 8.8, 8.9]}, **other))
    assert "8.80" not in html and "none of ours stands here" in html
    assert "8.27" in html and "akamaster/pytorch_resnet_cifar10 at d5489e8" in html
