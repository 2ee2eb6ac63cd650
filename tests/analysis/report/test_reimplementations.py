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
    assert "GPU hours" not in html
    assert "8.27" in html and "akamaster/pytorch_resnet_cifar10 at d5489e8" in html


def test_gpu_hours_of_ours_stand_beside_them_by_kind_of_gpu(build):
    runs, metrics = build({"resnet20": [8.7, 8.8, 8.9, 8.6], "resnet56": [7.0]})
    devices = ["NVIDIA H100", "NVIDIA H100", "NVIDIA A100", "cpu", "cpu"]
    seconds = [1800.0, 3600.0, 7200.0, 360_000.0, 360_000.0]
    html = page((runs.assign(device=devices, device_seconds=seconds), metrics))
    assert "2 (NVIDIA A100), 0.75 (NVIDIA H100)</td>" in html
    assert "the median of our runs on that kind of GPU" in html
    # A processor's hours are none of a GPU's.
    on_cpus = page((runs.assign(device="cpu", device_seconds=seconds), metrics))
    assert on_cpus == page((runs, metrics)) and "GPU hours" not in on_cpus
