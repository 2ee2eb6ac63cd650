"""What is shown of runs: by no clock but this machine's, and whatever becomes of the terminal."""

from threading import Event
from time import time

import pytest

from jobs.console import following
from jobs.console.following import follow
from jobs.console.termination import TerminatedError
from jobs.console.watch import Watch
from jobs.requests.run_facts import run_facts
from pipeline.runs.run import start_run, write_heartbeat, write_result
from pipeline.storage import Storage
from tests.pipeline.training.small_runs import small_run

DAY = 24 * 3600.0


@pytest.mark.parametrize("jump", [-DAY, 0.0, DAY])
def test_a_worker_with_another_clock_is_seen_to_run(storage: Storage, jump: float) -> None:
    run, now = small_run(), int(1000 * (time() + jump))
    start_run(storage, run, 1)
    write_heartbeat(storage, run, 9, 50.0, now)
    watch = Watch("a run", storage, [run], 1, "this machine")
    # An earlier attempt's heartbeat is no sign of this one.
    assert [each.state for each in watch.look()] == ["waiting"]
    write_heartbeat(storage, run, 12, 100.0, now + 2000)
    (progress,) = watch.look()
    assert (progress.state, progress.iteration) == ("running", 12)


def test_nothing_is_younger_than_new(storage: Storage) -> None:
    run, now = small_run(), int(1000 * time())
    start_run(storage, run, 1)
    write_heartbeat(storage, run, 9, 50.0, now + 86_400_000)
    assert run_facts(storage, run, now, alive=False)["heartbeat_age_s"] == 0


@pytest.mark.parametrize("behind", [None, SystemExit(141)])
def test_a_signal_lets_the_job_save_though_nobody_reads_any_more(
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    behind: SystemExit | None,
) -> None:
    """A terminal that is closed sends a signal, and what is shown then fails."""
    asked, interrupted, failures = Event(), Event(), [ConnectionError("busy"), ConnectionError()]

    def show(*_: object) -> None:
        try:
            raise TerminatedError("SIGHUP")
        finally:
            if behind is not None:
                raise behind from None

    def ask() -> None:
        if failures:
            raise failures.pop()
        asked.set()

    monkeypatch.setattr(following, "POLL_SECONDS", 0.05)
    for name in ("_show_table", "_print_lines"):
        monkeypatch.setattr(following, name, show)
    with pytest.raises(TerminatedError, match="SIGHUP"):
        follow("a run", storage, [small_run()], 1, asked.wait, interrupted.set, ask)
    assert asked.is_set() and not interrupted.is_set()
    assert "SIGHUP: saving" in capsys.readouterr().err


def test_a_job_that_a_signal_ended_says_what_is_left_and_how_long_it_takes(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done, going, later = runs = [small_run(seed) for seed in range(3)]
    monkeypatch.setattr(following, "POLL_SECONDS", 0.05)

    def job() -> None:
        for run in (done, going):
            start_run(storage, run, 1)
        write_result(storage, done, "finished", {"iterations": 30, "final": {}})
        # 20 + 30 iterations of 16 images at 0.1 images/s are 8,000 s; two at once take 4,800 s,
        # as long as the one that has not begun.
        write_heartbeat(storage, going, 10, 0.1, 1)
        raise TerminatedError("a signal to a worker")

    with pytest.raises(TerminatedError, match="a signal to a worker"):
        follow("seeds", storage, runs, 2, job, where="this machine")
    assert later.seed == 2 and capsys.readouterr().err == (
        "seeds: 1 of 3 runs are done; left: 2, 1 of them saved on their way; "
        "about 1 h 20 min of this machine at the rates measured\n"
    )


def test_ctrl_c_says_what_is_left_too(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted, run = Event(), small_run()

    def show(watch: Watch, _: object) -> None:
        start_run(storage, run, 1)
        write_heartbeat(storage, run, 10, 1.0, 1)
        watch.look()
        raise KeyboardInterrupt

    for name in ("_show_table", "_print_lines"):
        monkeypatch.setattr(following, name, show)
    with pytest.raises(KeyboardInterrupt):
        follow("a run", storage, [run], 1, Event().wait, interrupted.set)
    assert interrupted.is_set() and capsys.readouterr().err == (
        "a run: iteration 10 of 30 was reached; left: 20 iterations, about 6 min of this machine "
        "at the rates measured\n"
    )
