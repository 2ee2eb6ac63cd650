"""The time left: from iterations left and rates as they were seen, steady, by hand."""

from dataclasses import replace

import pytest

from jobs.console.measured_rates import MeasuredRates
from jobs.console.run_progress import RunProgress
from pipeline.recipe.layers import layout
from tests.pipeline.training.small_runs import small_run

BATCH = 16


def running(iteration: int, rate: float = 0.0, seed: int = 0, **changes: int) -> RunProgress:
    return RunProgress(small_run(seed, **changes), "running", iteration, rate, None)


class Hour:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def test_a_heartbeat_is_believed_until_enough_was_seen() -> None:
    hour = Hour()
    rates = MeasuredRates(hour)
    rates.see([running(0)])
    assert (
        rates.run_seconds_left(running(0)) is None and rates.seconds_left([running(0)], 1) is None
    )
    rates.see([running(1, rate=32.0)])
    assert rates.run_seconds_left(running(1)) == 29 / 2
    # What was seen counts evaluations and checkpoints as well: 10 iterations took 20 seconds.
    hour.time = 20.0
    rates.see([running(10, rate=32.0)])
    assert rates.run_seconds_left(running(10)) == 20 / 0.5


def test_the_time_left_is_steady_while_rates_jump() -> None:
    hour, shown = Hour(), []
    rates = MeasuredRates(hour)
    for step in range(200):
        hour.time = 2.0 * step
        # Of any 20 seconds the last 8 pass in an evaluation, with heartbeats that say other things.
        iteration = 6 * (step // 10) + min(step % 10, 6)
        rates.see([running(iteration, rate=(1.0, 900.0)[step % 2], iterations=10_000)])
        if step > 100:
            shown.append(rates.iterations_per_second(small_run(iterations=10_000)))
    assert all(rate == pytest.approx(0.3, rel=0.06) for rate in shown)


def test_runs_that_have_not_begun_are_reckoned_by_their_row_or_their_work() -> None:
    first, same, deeper = small_run(), small_run(seed=1), small_run(depth=20)
    rates = MeasuredRates(Hour())
    progress = [running(0, rate=16.0)]
    progress += [RunProgress(run, "waiting", 0, 0.0, None) for run in (same, deeper)]
    rates.see(progress)
    work = layout(deeper.experiment).multiply_adds / layout(first.experiment).multiply_adds
    assert rates.seconds_left(progress, 1) == pytest.approx(30 + 30 + 30 * work)
    # The longest run cannot be spread; and what has ended still says how fast this machine is.
    assert rates.seconds_left(progress, 8) == pytest.approx(30 * work)
    progress[0] = replace(progress[0], state="finished", iteration=30)
    rates.see(progress)
    assert rates.seconds_left(progress, 1) == pytest.approx(30 + 30 * work)


def test_a_run_that_begins_again_further_back_is_measured_anew() -> None:
    hour = Hour()
    rates = MeasuredRates(hour)
    for time, iteration in ((0.0, 0), (20.0, 20), (40.0, 5), (60.0, 15)):
        hour.time = time
        rates.see([running(iteration, rate=1.0)])
    assert rates.iterations_per_second(small_run()) == 10 / 20


def test_the_start_of_workers_counts_for_runs_that_have_not_begun() -> None:
    hour = Hour()
    rates = MeasuredRates(hour)
    waiting = [RunProgress(small_run(seed), "waiting", 0, 0.0, None) for seed in (1, 2)]
    for time, iteration in ((12.0, 0), (32.0, 20)):  # twelve seconds to start, one an iteration
        hour.time = time
        rates.see([running(iteration, rate=1.0)])
    # Ten more, then twice twelve to start and thirty to train.
    assert rates.seconds_left([running(20), *waiting], 1) == 10 + 2 * (12 + 30)


def test_what_was_not_seen_here_is_known_by_its_checkpoint() -> None:
    rates = MeasuredRates(Hour())
    saved = RunProgress(small_run(), "waiting", 10, 0.0, None, kept_rate=0.5)
    fresh = RunProgress(small_run(seed=1), "waiting", 0, 0.0, None)
    rates.see([saved, fresh])
    assert rates.seconds_left([saved, fresh], 1) == 20 / 0.5 + 30 / 0.5
    # Rates of this machine count more than those of another.
    begun = replace(fresh, state="running", images_per_second=16.0)
    rates.see([saved, begun])
    assert rates.seconds_left([saved, begun], 1) == 20 + 30
