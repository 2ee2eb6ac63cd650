"""The table of runs on a terminal: whole at 80 and 120 columns, a curve for each run."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from jobs.console import progress_table
from jobs.console.progress_table import sparkline, table
from jobs.console.run_progress import RunProgress
from jobs.console.watch import Watch
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.runs.run import Run
from pipeline.storage import Storage

CURVE = (90.0, 60.0, 45.0, 30.0, 20.0)


def drawn(watch: Watch, columns: int, monkeypatch: pytest.MonkeyPatch, height: int = 40) -> str:
    screen = Console(file=io.StringIO(), width=columns, height=height, color_system=None)
    monkeypatch.setattr(progress_table, "console", screen)
    with screen.capture() as captured:
        screen.print(table(watch))
    return captured.get()


def watched(storage: Storage, *names: str) -> Watch:
    runs = [Run(EXPERIMENTS[name], "d" * 16, "cifar10-dddddddd", 0) for name in names]
    watch = Watch("table6", storage, runs, 2, "this machine")
    watch.progress = [
        replace(watch.progress[0], state="running", iteration=12_000, images_per_second=1036.0,
                test_err=20.0, curve=CURVE),
        *watch.progress[1:],
    ]  # fmt: skip
    watch.rates.see(watch.progress)
    return watch


@pytest.mark.parametrize("columns", [80, 120])
def test_every_value_is_whole_with_the_curve_beside_it(
    storage: Storage, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = drawn(watched(storage, "resnet56", "resnet110-nowarmup"), columns, monkeypatch)
    assert max(map(len, text.splitlines())) <= columns and "…" not in text
    for value in ("12,000/64,000", "1,036", "20.00 %", "█▆▅▃▂", "waiting", "resnet110-nowarmup"):
        assert value in text, text
    # As a table, in which a run is a line.
    (line,) = [line for line in text.splitlines() if "12,000/64,000" in line]
    assert line.split()[0] == "resnet56" and re.search(r" \d+h \d\dm +$", line)


def test_a_rate_that_is_not_known_yet_makes_the_time_left_unknown(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = watched(storage, "resnet56")
    assert "starting" not in drawn(watch, 100, monkeypatch)
    fresh = Watch("table6", storage, [watch.progress[0].run], 1, "this machine")
    assert "starting" in drawn(fresh, 100, monkeypatch)
    fresh.progress[0] = replace(fresh.progress[0], state="running", iteration=1)
    text = drawn(fresh, 100, monkeypatch)
    assert "time left unknown" in text.splitlines()[0]
    assert text.splitlines()[-2].split() == ["resnet56", "0", "1/64,000", "unknown"]


def test_where_runs_are_too_many_for_the_screen_those_that_train_are_on_it(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [name for name, row in EXPERIMENTS.items() if row.family == "cifar"]
    watch = watched(storage, *names)
    watch.progress = [*watch.progress[1:], watch.progress[0]]
    text = drawn(watch, 120, monkeypatch, height=12)
    assert len(text.splitlines()) <= 12 and "12,000/64,000" in text
    assert f"({len(names) - 6} runs not shown)" in " ".join(text.split())


def test_a_curve_is_drawn_on_one_scale_and_never_too_wide() -> None:
    assert sparkline(CURVE, 90.0) == "█▆▅▃▂" and sparkline((), 90.0) == ""
    assert sparkline(CURVE, 90.0, "_.-:=+*#") == "#+=-."
    # Eighty points in eight characters: each is the mean of ten.
    assert sparkline([80.0] * 40 + [10.0] * 40, 80.0) == "████▂▂▂▂"


def test_a_run_that_has_ended_keeps_the_curve_that_was_watched(storage: Storage) -> None:
    watch = watched(storage, "resnet56")
    first = watch.progress[0]

    def ended(*_: object) -> RunProgress:
        return RunProgress(first.run, "finished", 64_000, 0.0, 7.0, 0.1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.console.watch.read_progress", ended)
        assert watch.look()[0].curve == (*CURVE, 7.0)
