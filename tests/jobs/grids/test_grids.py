"""Named grids hold the paper's rows, and the grid's arithmetic on a cluster is right."""

import pytest

from analysis.verdicts.claims import claim_experiments
from jobs.execution.cluster import Node, check_fits, cpus_that_fit, threads_per_worker
from jobs.execution.tune import max_concurrent_runs, unfinished
from jobs.grids.grids import demo_words, grids, rows_asked_for, shows_early, with_demo
from jobs.requests.requested_runs import placement_words
from pipeline.errors import InputError
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.runs.execution import Execution
from pipeline.runs.run import Run
from pipeline.storage import Storage


def test_figure_and_table_grids_are_the_papers_rows() -> None:
    named = grids()
    assert named["figure1"] == ("plain20", "plain56")
    assert len(named["figure6"]) == 11
    assert named["table6"] == (
        "resnet20",
        "resnet32",
        "resnet44",
        "resnet56",
        "resnet110",
        "resnet1202",
    )


@pytest.mark.parametrize("claim", sorted(claim_experiments()))
def test_every_claims_rows_are_in_the_paper_grid(claim: str) -> None:
    assert set(claim_experiments()[claim]) <= set(grids()["paper"])


def test_the_paper_grid_is_every_cifar_row_of_the_paper() -> None:
    own = {
        name
        for name, experiment in EXPERIMENTS.items()
        if experiment.family == "cifar" and experiment.artifacts != ("signals",)
    }
    assert set(grids()["paper"]) == own


def test_every_row_of_the_paper_is_in_a_named_grid() -> None:
    named = grids()
    assert named["footnotes"] == ("plain18-3x", "plain34-3x", "plain50", "plain101")
    assert {name for rows in named.values() for name in rows} == set(EXPERIMENTS)
    # Two grids hold what ImageNet's claims need, and nothing is in both: one asks for each.
    needed = {name for rows in claim_experiments("imagenet").values() for name in rows}
    assert needed <= {*named["imagenet"], *named["footnotes"]}
    assert not set(named["imagenet"]) & set(named["footnotes"])


def test_the_signals_grid_is_both_56_layer_networks_from_three_starts_with_and_without() -> None:
    experiments = [EXPERIMENTS[name] for name in grids()["signals"]]
    assert (
        len(
            {
                (experiment.shortcut, experiment.initialisation, experiment.norm)
                for experiment in experiments
            }
        )
        == len(experiments)
        == 12
    )
    assert {experiment.depth for experiment in experiments} == {56}


def test_grids_and_rows_mix_and_count_once() -> None:
    assert rows_asked_for(["resnet56", "figure1", "plain56"]) == ["plain20", "plain56", "resnet56"]
    with pytest.raises(InputError, match="did you mean"):
        rows_asked_for(["figure66"])


ONE_OF_2, ONE_OF_16 = [{"CPU": 2.0}], [{"CPU": 16.0}]
FOUR_OF_8 = [{"CPU": 8.0}] * 4


@pytest.mark.parametrize(
    ("nodes", "runs", "workers", "threads"),
    [
        (ONE_OF_2, 12, 1, 1),
        (ONE_OF_2, 1, 1, 2),
        (ONE_OF_16, 4, 1, 4),
        (ONE_OF_16, 3, 2, 2),
        ([{"CPU": 1.0}], 5, 2, 1),
        (FOUR_OF_8, 1, 1, 8),  # not 32: a worker is on one node
        (FOUR_OF_8, 3, 1, 8),
        (FOUR_OF_8, 5, 1, 4),  # 6 would leave the fifth run without a place
        (FOUR_OF_8, 100, 1, 1),
    ],
)
def test_threads_fill_the_cpus_only_when_runs_are_few(
    nodes: list[Node], runs: int, workers: int, threads: int
) -> None:
    assert threads_per_worker(nodes, runs, workers) == threads


def test_slots_follow_from_cpus_gpus_and_the_heads_memory() -> None:
    cpu = Execution(workers=2, threads=2)
    assert max_concurrent_runs(ONE_OF_16, cpu, head_memory=64e9) == 4
    assert max_concurrent_runs(ONE_OF_16 * 10, cpu, head_memory=4e9) == 5
    gpu = Execution(workers=1, use_gpu=True, gpus=0.25)
    assert max_concurrent_runs([{"CPU": 16, "GPU": 2}], gpu, head_memory=64e9) == 8


@pytest.mark.parametrize(
    ("nodes", "workers", "each", "says"),
    [
        (
            FOUR_OF_8,
            1,
            {"CPU": 16},
            "16 CPU each: the cluster has room for 0, a node has 8 CPU at the most",
        ),
        (FOUR_OF_8, 8, {"CPU": 5}, "room for 4"),
        (
            [{"CPU": 8.0, "GPU": 1.0}],
            2,
            {"CPU": 1, "GPU": 1},
            "room for 1, a node has 8 CPU and 1 GPU",
        ),
        ([], 1, {"CPU": 1}, "room for 0, a node has 0 CPU"),
    ],
)
def test_what_can_never_fit_is_refused(
    nodes: list[Node], workers: int, each: Node, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        check_fits(nodes, workers, each)


def test_what_fits_exactly_is_not_refused() -> None:
    check_fits(FOUR_OF_8, 8, {"CPU": 4})
    check_fits([{"CPU": 8.0, "GPU": 1.0}], 3, {"CPU": 1, "GPU": 1 / 3})


def test_a_resumed_run_shares_the_cpus_of_a_smaller_machine() -> None:
    assert cpus_that_fit(ONE_OF_2, workers=2, at_most=8) == 1
    assert cpus_that_fit(FOUR_OF_8, workers=2, at_most=32) == 8


def test_the_demo_begins_with_small_networks_and_others_with_the_costliest(
    storage: Storage,
) -> None:
    runs = [
        Run(EXPERIMENTS[name], "d" * 16, "digits-dddddddd", seed)
        for name in grids()["demo"]
        for seed in range(2)
    ]
    assert shows_early(["table6", "demo"]) and not shows_early(["table6"])
    names = [
        (run.experiment.depth, run.seed) for run in unfinished(storage, runs, quick_first=True)
    ]
    assert names == [(20, 0), (20, 0), (56, 0), (56, 0), (20, 1), (20, 1), (56, 1), (56, 1)]
    assert [run.experiment.depth for run in unfinished(storage, runs)] == [56] * 4 + [20] * 4


def test_the_demo_says_what_it_will_show_and_each_field_once() -> None:
    words = demo_words(*with_demo(["demo"], None, ["precision=fp32", "eval_every=60"]))
    assert "To be seen: " in words and "minutes on two cores" in words
    assert "(240 iterations, eval_every=60, precision=fp32)" in words
    assert max(map(len, words.splitlines())) <= 85


def test_threads_that_were_chosen_are_said_to_be() -> None:
    assert placement_words(Execution(threads=2), None) == (
        "on 2 CPU threads (chosen; --threads says it)"
    )
    assert placement_words(Execution(threads=2), 2) == "on 2 CPU threads"
    # A run keeps those that it began with.
    kept = placement_words(Execution(threads=2), None, kept=1)
    assert kept == "on 1 CPU thread, as at its first start"
    gpus = placement_words(Execution(threads=1, workers=8, use_gpu=True), 1)
    assert gpus == "with 8 workers of 1 GPU and 1 CPU thread"
