"""Rates by a clock that is wound by hand: exact between points, and never 0 while a run trains."""

import torch

from pipeline.training.measuring.clock import Clock

CPU = torch.device("cpu")


def test_a_run_that_trains_has_a_rate_right_after_a_point_too() -> None:
    hour = [0.0]
    clock = Clock(100, 0, lambda: hour[0])
    hour[0] = 10.0  # twenty iterations in ten seconds, then an evaluation of fifty
    clock.pause(CPU)
    assert clock.rate(20) == 200.0
    hour[0] = 60.0
    clock.resume(20)
    assert clock.running_rate(20) == 200.0
    hour[0] = 65.0  # five more, at half the rate: 25 in 15 seconds
    assert clock.running_rate(25) == 2500 / 15
    clock.pause(CPU)
    assert clock.rate(25) == 100.0
    clock.resume(25)
    hour[0] = 70.0  # what was before the point before the last one counts no more
    assert clock.running_rate(35) == 1500 / 10


def test_a_pause_to_save_begins_no_new_rate() -> None:
    hour = [0.0]
    clock = Clock(100, 40, lambda: hour[0])
    hour[0] = 10.0
    clock.pause(CPU)
    hour[0] = 30.0
    clock.resume()
    hour[0] = 40.0
    assert clock.running_rate(60) == 100.0
