"""What a plan is computed from: exact amounts, rates, placement against its lower bound, and what a
budget covers.
"""

import random
from collections import Counter
from dataclasses import replace
from time import process_time

import pytest
from torch import Tensor

from jobs.planning import gpu_rates
from jobs.planning.budget import choose, coverage
from jobs.planning.estimate import Cluster, Plan, estimate
from jobs.planning.gpu_rates import CARDS, MeasuredRate, described, measured_rates
from jobs.planning.placement import Trial, gap, lower_bound, place
from jobs.planning.rates import Rate, rates
from jobs.planning.workload import amount, convolutions, iteration_flops
from pipeline.data.datasets import Dataset
from pipeline.errors import InputError
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.runs.run import Run
from pipeline.storage import Storage
from pipeline.training.loop import train
from pipeline.training.step.networks import ResNet
from pipeline.training.step.process_group import single_process
from tests.pipeline.training.small_runs import small_row, small_run


def test_amounts_are_what_a_run_computes(
    storage: Storage, digits_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_run(holdout=100, statistics_images=32)
    seen = Counter[bool]()
    forward = ResNet.forward

    def counted(self: ResNet, x: Tensor) -> Tensor:
        seen[self.training] += len(x)
        return forward(self, x)

    monkeypatch.setattr(ResNet, "forward", counted)
    train(run, digits_dataset, storage, single_process())
    experiment, sizes = run.experiment, (len(digits_dataset.train), len(digits_dataset.test))
    assert amount(experiment, *sizes).iterations == experiment.iterations
    assert amount(experiment, *sizes).forward == seen[False] + experiment.statistics_images
    assert (
        seen[True]
        >= experiment.iterations * experiment.global_batch_size + experiment.statistics_images
    )
    assert amount(experiment, *sizes, reached=experiment.iterations).nothing
    halfway = amount(experiment, *sizes, reached=15)
    assert halfway.iterations == 15 and 0 < halfway.forward < amount(experiment, *sizes).forward


def test_an_iterations_operations_are_the_papers_multiply_adds() -> None:
    experiment = EXPERIMENTS["resnet50"]
    assert iteration_flops(experiment) == pytest.approx(
        6 * 3.8e9 * 256, rel=0.03
    )  # Table 1: 3.8e9 multiply-adds an image
    assert (
        convolutions(EXPERIMENTS["resnet20"]) == 19 and convolutions(experiment) == 49
    )  # and a fully connected layer


def test_a_row_between_two_probed_ones_lies_between_them() -> None:
    experiments = [EXPERIMENTS[name] for name in ("resnet20", "resnet32", "resnet56", "resnet110")]
    shallow, middle, deep, deepest = experiments
    known = {
        shallow.fingerprint: Rate(1.0, 0.01, "probed"),
        deep.fingerprint: Rate(3.0, 0.03, "probed"),
    }
    found = rates(experiments, known)
    part = (iteration_flops(middle) - iteration_flops(shallow)) / (
        iteration_flops(deep) - iteration_flops(shallow)
    )
    assert found[middle.fingerprint].step == pytest.approx(1 + 2 * part)
    assert (
        found[middle.fingerprint].source == "in proportion"
        and found[deep.fingerprint].source == "probed"
    )
    assert found[deepest.fingerprint].step > 5.0
    alone = rates([shallow, deep], {shallow.fingerprint: Rate(1.0, 0.01, "probed")})
    assert alone[deep.fingerprint].step == pytest.approx(
        iteration_flops(deep) / iteration_flops(shallow)
    )
    with pytest.raises(InputError, match="too few to time a row of each kind"):
        rates([EXPERIMENTS["resnet50"]], known)


def test_rows_of_one_network_share_what_is_known() -> None:
    experiments = [small_row(lr=lr) for lr in (0.1, 0.2, 0.4)]
    found = rates(experiments, {experiments[0].fingerprint: Rate(1.0, 0.1, "probed")})
    assert [found[experiment.fingerprint].step for experiment in experiments] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("seed", range(20))
def test_a_placement_is_feasible_and_not_below_its_bound(seed: int) -> None:
    draw = random.Random(seed)
    units = draw.choice([2, 8, 16])
    trials = [
        Trial(str(n), draw.uniform(1, 100), draw.choice([0.25, 0.5, 1, 2]))
        for n in range(draw.randrange(1, 40))
    ]
    placed = place(trials, units)
    assert sorted(trial.name for _, trial in placed.starts) == sorted(
        trial.name for trial in trials
    )
    for moment, _ in placed.starts:
        used = sum(
            trial.units for start, trial in placed.starts if start <= moment < start + trial.seconds
        )
        assert used <= units + 1e-6
    bound = lower_bound(trials, units)
    assert (
        bound <= placed.makespan + 1e-9 <= 2 * bound + 1e-6
    )  # list scheduling is within twice the optimum
    assert bool(gap(trials, units, placed)) == (placed.makespan > 1.005 * bound)


def test_thousands_of_runs_are_placed_in_a_moment() -> None:
    trials = [Trial(str(n), 100.0 + n % 7, (1.0, 0.25, 0.5)[n % 3]) for n in range(12_000)]
    began = process_time()
    placed = place(trials, 8.0)
    assert process_time() - began < 3
    assert len(placed.starts) == len(trials) and placed.makespan >= lower_bound(trials, 8.0)


def test_longest_first_is_what_a_known_example_says() -> None:
    trials = [
        Trial(name, seconds) for name, seconds in (("a", 3), ("b", 3), ("c", 2), ("d", 2), ("e", 2))
    ]
    placed = place(trials, 2)
    assert (
        placed.makespan == 7 and lower_bound(trials, 2) == 6
    )  # the classic case in which longest first loses
    assert (
        placed.last is not None and placed.last.name == "e" and "14% idle" in gap(trials, 2, placed)
    )
    with pytest.raises(ValueError, match="more than the 2"):
        place([Trial("wide", 1, 4)], 2)


def test_a_plan_adds_up() -> None:
    experiment = small_row()
    runs = [Run(experiment, "d", "digits-d", seed) for seed in range(4)]
    amounts = {run: amount(experiment, 1437, 360) for run in runs}
    rate = Rate(0.1, 0.001, "probed")
    found = [estimate(run, left, rate, 5.0, workers=1, units=1) for run, left in amounts.items()]
    each = 5.0 + 0.1 * amounts[runs[0]].iterations + 0.001 * amounts[runs[0]].forward
    assert [one.seconds for one in found] == pytest.approx([each] * 4)
    made = Plan(Cluster(2, "CPU", price=36.0), found, fixed=10.0)
    assert made.seconds == pytest.approx(10 + 2 * each) == pytest.approx(made.bound)
    assert made.gap == "" and made.hours == pytest.approx(4 * each / 3600)
    assert made.cost == pytest.approx(made.seconds * 2 * 36 / 3600)
    assert made.interval == pytest.approx((made.seconds / 1.2, made.seconds * 1.2))


def test_a_described_gpu_is_slower_shared_and_faster_with_more_workers() -> None:
    experiment = EXPERIMENTS["resnet50"]
    alone = described(experiment, "A100", 1, 1)
    assert described(experiment, "A100", 8, 1).step < described(experiment, "A100", 4, 1).step / 1.8
    bf16 = replace(experiment, precision="bf16")
    # What NVIDIA publishes for an A100, and for eight.
    for workers, images in ((1, 2470), (8, 16621)):
        step = described(bf16, "A100", workers, 1).step
        assert experiment.global_batch_size / step == pytest.approx(images, rel=0.05)
    assert described(experiment, "A100", 1, 2).step == pytest.approx(2 * alone.step)
    assert alone.source == "published"


@pytest.mark.parametrize(
    "line", measured_rates(), ids=lambda line: f"{line.card}-{line.experiment}"
)
def test_what_was_measured_of_a_card_is_what_a_plan_goes_by(line: MeasuredRate) -> None:
    experiment = replace(EXPERIMENTS[line.experiment], precision=line.precision)
    one_pass = line.way == "one pass"
    rate = described(experiment, line.card, 1, line.runs_at_once, one_pass)
    if experiment.family == "imagenet" and line.images_per_second > gpu_rates.VIEWS_PER_SECOND:
        assert rate.limit == "decoding"
        assert experiment.global_batch_size / rate.step == pytest.approx(16 * 0.9 * 273)
        return
    total = line.runs_at_once * experiment.global_batch_size / rate.step
    assert rate.source == "measured on this card"
    assert total == pytest.approx(line.images_per_second)
    if experiment.family == "imagenet":
        return
    # And the model, which speaks of everything else, is near to it.
    modelled = gpu_rates._modelled_step(experiment, CARDS[line.card], line.runs_at_once)
    near = 0.04
    assert modelled == pytest.approx(rate.step, rel=near)


def test_what_was_not_measured_is_modelled_and_says_so() -> None:
    resnet32 = replace(EXPERIMENTS["resnet32"], precision="bf16")
    steps = [
        described(replace(EXPERIMENTS[name], precision="bf16"), "H100", 1, 1).step
        for name in ("resnet20", "resnet32", "resnet56")
    ]
    assert steps == sorted(steps) and described(resnet32, "H100", 1, 1).source == "modelled"
    assert described(resnet32, "A100", 1, 1).source == "published"
    # tf32 is not faster than fp32 for all that is known, and a plain network is as its twin.
    tf32 = replace(EXPERIMENTS["resnet20"], precision="tf32")
    assert described(tf32, "H100", 1, 1).step == pytest.approx(128 / 23451, rel=0.03)
    plain = replace(EXPERIMENTS["plain20"], precision="bf16")
    assert described(plain, "H200", 1, 4).source == "measured on this card"
    # More at once is more in all, and less for each.
    totals = [n / described(resnet32, "H100", 1, n).step for n in (1, 2, 4, 8, 16)]
    assert totals == sorted(totals) and totals[-1] < 2.7 * totals[0]


def test_photographs_go_by_a_measured_network_of_the_same_blocks_and_name_their_limit() -> None:
    def at(name: str, workers: int, one_pass: bool = False) -> Rate:
        row = replace(EXPERIMENTS[name], precision="bf16")
        return described(row, "H100", workers, 1, one_pass)

    # ResNet-50's exact step was measured at 1,272 images/s; ResNet-152 has 2.93 times its work.
    assert at("resnet50", 1).limit == "network"
    assert at("resnet152", 1).source == "modelled"
    assert at("resnet152", 1).step == pytest.approx(2.93 * 256 / 1272, rel=0.01)
    # Eight workers have one group each, of which the exact step is one pass: 2,795 images/s alone.
    wide = at("resnet50", 8)
    assert wide.step == pytest.approx(256 / 2795 / 8 / 0.944**3)
    assert (wide.source, wide.limit) == ("modelled", "network, exchange 16%")
    # ResNet-18 in one pass would want 8,468 views a second, and 16 processors make 3,931.
    assert at("resnet18", 1, one_pass=True).limit == "decoding"
    assert described(EXPERIMENTS["resnet50"], "A100", 1, 1).source == "published"


def test_a_budget_buys_whole_claims_first() -> None:
    cost = {
        name: [1.0, 1.0, 1.0]
        for name in ("plain20", "plain56", "resnet20", "resnet110", "resnet1202")
    }
    cost["resnet1202"] = [50.0, 50.0, 50.0]
    enough = choose(cost, 1000)
    assert set(enough.rows) == set(cost) and enough.seeds == 3 and enough.cost == pytest.approx(162)
    some = choose(cost, 12)
    assert "resnet1202" not in some.rows and some.seeds == 3 and some.cost <= 12
    assert {"C1", "figure_1"} <= set(some.covered)
    assert choose(cost, 0.5).rows == ()
    done = cost | {"plain20": [0.0, 0.0, 0.0], "plain56": [0.0, 0.0, 1.0]}
    assert (
        "C1" in choose(done, 1.0).covered and choose(done, 1.0).seeds == 3
    )  # the claim lacks one seed of one row
    assert "C1" in coverage(["plain20", "plain56"], 3) and "C1" not in coverage(["plain20"], 3)
    assert coverage(["plain20", "plain56"], 2) == ("figure_1",)  # too few for a verdict
