"""The log of runs without a terminal: a story of few lines, none of them twice, no rate of 0."""

import re
from dataclasses import replace

import pytest

from jobs.console.measured_rates import MeasuredRates
from jobs.console.progress_log import ProgressLog, stamped
from jobs.console.run_progress import RunProgress
from jobs.console.watch import Watch, rate_text
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.runs.run import Run
from pipeline.storage import Storage

ROWS = ("plain20", "resnet20", "plain56", "resnet56")
DEMO = {name: replace(EXPERIMENTS[name], iterations=240, lr_drops=(120, 180)) for name in ROWS}


def demo_runs() -> list[Run]:
    return [
        Run(DEMO[name], "d" * 16, "digits-dddddddd", seed) for seed in range(3) for name in ROWS
    ]


class Replay:
    """A watch of runs that train by a clock that is wound by hand, `at_once` at a time."""

    def __init__(self, storage: Storage, runs: list[Run], slowness: float = 1.0) -> None:
        self.hour, self.lines, self.slowness = 0.0, list[str](), slowness
        self.watch = Watch("demo", storage, runs, 2, "this machine")
        self.watch.rates = MeasuredRates(self.now)
        self.log = ProgressLog(self.watch, self.lines.append, self.now)
        self.left = dict.fromkeys(runs, 0.0)

    def now(self) -> float:
        return self.hour

    def seconds(self, run: Run) -> float:
        return self.slowness * (76.0 if run.experiment.depth == 56 else 20.0)

    def play(self) -> list[str]:
        """Every line until all runs have ended; a run's worker takes ten seconds to start."""
        begun: dict[Run, float] = {}
        while self.watch.ended < len(self.watch.progress):
            waiting = [each.run for each in self.watch.progress if each.run not in begun]
            going = [e.run for e in self.watch.progress if e.run in begun and not e.ended]
            for run in waiting[: 2 - len(going)]:
                begun[run] = self.hour + 10 * self.slowness
            self.watch.progress = [self.seen(each, begun) for each in self.watch.progress]
            self.watch.rates.see(self.watch.progress)
            self.log.tell()
            self.hour += 2
        return self.lines

    def seen(self, each: RunProgress, begun: dict[Run, float]) -> RunProgress:
        passed = (self.hour - begun.get(each.run, self.hour)) / self.seconds(each.run)
        if each.ended or passed <= 0:
            return each
        if passed >= 1:
            return replace(each, state="finished", iteration=240, test_err=2.5, train_err=0.5)
        # Errors are known from a checkpoint every thirty seconds.
        known = 40.0 - 10 * passed if passed * self.seconds(each.run) > 30 else None
        rate = 240 * 128 / self.seconds(each.run)
        return RunProgress(each.run, "running", int(240 * passed), rate, known, known)


@pytest.mark.parametrize("slowness", [0.5, 1.0, 3.0])
def test_the_demos_log_is_a_story_of_few_lines(storage: Storage, slowness: float) -> None:
    lines = Replay(storage, demo_runs(), slowness).play()
    # Before and after them the command has some ten lines of its own.
    assert len(lines) <= 45 and len(set(lines)) == len(lines), "\n".join(lines)
    for name in ROWS:
        for seed in range(3):
            about = [line for line in lines if line.startswith(f"{name} seed {seed}: ")]
            assert f"{name} seed {seed}: finished, train 0.50 %, test 2.50 %; " in about[-1]
    counts = [int(found[1]) for line in lines if (found := re.search(r"; (\d+) of 12 runs", line))]
    assert counts == list(range(1, 13))
    assert not [line for line in lines if re.search(r"\b0 images/s|waiting", line)]
    so_far = [line for line in lines if line.startswith("test errors so far: ")]
    assert [line.count("%") for line in so_far] in ([2, 3, 4], [2, 4])


def test_a_run_on_its_way_has_iteration_errors_rate_and_time_left(storage: Storage) -> None:
    lines = Replay(storage, demo_runs()).play()
    (line, *_) = [line for line in lines if line.startswith("plain56 seed 0: iteration")]
    assert re.fullmatch(
        r"plain56 seed 0: iteration \d+ of 240, train \d\d\.\d\d %, test \d\d\.\d\d %, "
        r"404 images/s, about 0m \d\ds left",
        line,
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  words", stamped("words"))


def test_a_day_of_one_run_has_a_line_every_quarter_of_an_hour_at_most(storage: Storage) -> None:
    replay = Replay(storage, demo_runs()[:1], slowness=4320.0)  # of twenty seconds
    lines = replay.play()
    assert 60 < len(lines) < 110 and len(set(lines)) == len(lines)


def test_before_a_rate_is_known_the_time_left_is_unknown_and_workers_start(
    storage: Storage,
) -> None:
    replay = Replay(storage, demo_runs())
    replay.hour = 30.0
    replay.log.tell()
    assert replay.lines == ["demo: 0 of 12 finished, starting Ray's workers"]
    first = replay.watch.progress[0]
    replay.watch.progress[0] = replace(first, state="running", iteration=1)
    replay.watch.rates.see(replay.watch.progress)
    assert replay.watch.summary() == "0 of 12 finished, 1 running, time left unknown"
    assert replay.watch.how_far(replay.watch.progress[0]) == "iteration 1 of 240"
    assert "how long that takes is unknown" in replay.watch.what_is_left()


def test_a_rate_below_one_is_not_shown_as_0() -> None:
    assert [rate_text(rate) for rate in (0.0, 0.04, 3.21, 12.6, 38_700.0)] == [
        "",
        "0.04",
        "3.2",
        "13",
        "38,700",
    ]
