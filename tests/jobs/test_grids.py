"""Named grids hold the paper's rows, and the grid's arithmetic on a cluster is right."""

import pytest

from analysis.claims import claim_experiments
from jobs.grid import slots, threads_per_worker
from jobs.grids import grids, rows_asked_for
from jobs.launch import Execution
from pipeline.errors import InputError
from pipeline.experiments import EXPERIMENTS


def test_figure_and_table_grids_are_the_papers_rows() -> None:
    named = grids()
    assert named["figure1"] == ("plain20", "plain56")
    assert len(named["figure6"]) == 11
    assert named["table6"] == ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "resnet1202")


@pytest.mark.parametrize("claim", sorted(claim_experiments()))
def test_every_claims_rows_are_in_the_paper_grid(claim: str) -> None:
    assert set(claim_experiments()[claim]) <= set(grids()["paper"])


def test_the_paper_grid_is_every_cifar_row_of_the_paper() -> None:
    assert set(grids()["paper"]) == {name for name, row in EXPERIMENTS.items() if row.family == "cifar"}


def test_grids_and_rows_mix_and_count_once() -> None:
    assert rows_asked_for(["resnet56", "figure1", "plain56"]) == ["plain20", "plain56", "resnet56"]
    with pytest.raises(InputError, match="did you mean"):
        rows_asked_for(["figure66"])


@pytest.mark.parametrize(
    ("cpus", "runs", "workers", "threads"), [(2, 12, 1, 1), (2, 1, 1, 2), (16, 4, 1, 4), (16, 3, 2, 2), (1, 5, 2, 1)]
)
def test_threads_fill_the_cpus_only_when_runs_are_few(cpus: float, runs: int, workers: int, threads: int) -> None:
    assert threads_per_worker(cpus, runs, workers) == threads


def test_slots_follow_from_cpus_gpus_and_the_heads_memory() -> None:
    cpu = Execution("s", "t", workers=2, threads=2)
    assert slots({"CPU": 16}, cpu, head_memory=64e9) == 4
    assert slots({"CPU": 160}, cpu, head_memory=4e9) == 5
    gpu = Execution("s", "t", workers=1, use_gpu=True, gpus=0.25)
    assert slots({"CPU": 16, "GPU": 2}, gpu, head_memory=64e9) == 8
