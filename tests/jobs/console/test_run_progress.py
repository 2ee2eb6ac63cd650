"""What is shown of runs: by no clock but this machine's, and whatever becomes of the terminal."""

from threading import Event
from time import time

import pytest

from jobs.console import run_progress
from jobs.console.run_progress import _heartbeats, _read_all, follow
from jobs.console.termination import TerminatedError
from jobs.requests.run_facts import run_facts
from pipeline.runs.run import start_run, write_heartbeat
from pipeline.storage import Storage
from tests.pipeline.training.small_runs import small_run

DAY = 24 * 3600.0


@pytest.mark.parametrize("jump", [-DAY, 0.0, DAY])
def test_a_worker_with_another_clock_is_seen_to_run(storage: Storage, jump: float) -> None:
    run, now = small_run(), int(1000 * (time() + jump))
    start_run(storage, run, 1)
    write_heartbeat(storage, run, 9, 50.0, now)
    before = _heartbeats(storage, [run])
    # An earlier attempt's heartbeat is no sign of this one.
    assert [each.state for each in _read_all(storage, [run], before)] == ["waiting"]
    write_heartbeat(storage, run, 12, 100.0, now + 2000)
    (progress,) = _read_all(storage, [run], before)
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

    monkeypatch.setattr(run_progress, "POLL_SECONDS", 0.05)
    for name in ("_show_table", "_print_lines"):
        monkeypatch.setattr(run_progress, name, show)
    with pytest.raises(TerminatedError, match="SIGHUP"):
        follow("a run", storage, [small_run()], 1, asked.wait, interrupted.set, ask)
    assert asked.is_set() and not interrupted.is_set()
    assert "SIGHUP: saving" in capsys.readouterr().err
