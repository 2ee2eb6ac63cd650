"""One holder per run: a second one is refused, a stale or dead one is taken over."""

import subprocess
import sys
from collections.abc import Iterator
from json import dumps, loads
from time import sleep, time

import pytest

from pipeline.errors import InputError
from pipeline.runs import lease
from pipeline.runs.checkpoint import Checkpoint, iterations, save_checkpoint
from pipeline.runs.lease import Lease, LostRunError, WriterClaim, is_alive, living
from pipeline.storage import Storage
from tests.pipeline.training.small_runs import small_run

RUN = small_run()
PATH = f"{RUN.folder}/lease.json"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, seconds in (("BEAT_SECONDS", 0.2), ("STALE_SECONDS", 2.5), ("SETTLE_SECONDS", 0.05)):
        monkeypatch.setattr(lease, name, seconds)
    yield


def elsewhere(storage: Storage) -> None:
    """As if the holder were on a machine that cannot be looked at."""
    storage.write(
        PATH, dumps(loads(storage.read(PATH)) | {"machine": "another", "host": "node7"}).encode()
    )


def test_a_run_is_held_while_the_context_lasts_and_free_afterwards(storage: Storage) -> None:
    with Lease(storage, RUN) as held:
        assert held.held()
    assert not storage.exists(PATH)
    with Lease(storage, RUN) as again:
        assert again.held() and again.holder != held.holder


def test_a_second_command_is_told_who_holds_the_run(storage: Storage) -> None:
    with Lease(storage, RUN) as first:
        with pytest.raises(
            InputError, match=r"is being trained by process \d+ on .*, started 0 min"
        ):
            Lease(storage, RUN).__enter__()
        assert first.held()


def test_a_holder_whose_process_is_gone_is_taken_over_at_once(storage: Storage) -> None:
    hold = (
        "import os; from pipeline.runs.lease import Lease; from pipeline.storage import Storage;"
        "from tests.pipeline.runs.test_lease import RUN; import sys;"
        "Lease(Storage(sys.argv[1]), RUN).__enter__(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", hold, storage.uri], check=False, timeout=120)
    assert storage.exists(PATH)
    said: list[str] = []
    with Lease(storage, RUN, said.append) as taken:
        assert taken.held() and not said


def test_a_command_that_ends_gives_back_what_its_threads_still_hold(storage: Storage) -> None:
    hold = (
        "from pipeline.runs.lease import Lease; from pipeline.storage import Storage;"
        "from tests.pipeline.runs.test_lease import PATH, RUN; import sys, threading, time\n"
        "storage = Storage(sys.argv[1])\n"
        "def drive():\n"
        "    with Lease(storage, RUN): time.sleep(600)\n"
        "threading.Thread(target=drive, daemon=True).start()\n"
        "while not storage.exists(PATH): time.sleep(0.05)\n"
        "time.sleep(1); sys.exit(7 if storage.exists(PATH) else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", hold, storage.uri], check=False, timeout=120)
    assert ended.returncode == 7 and not storage.exists(PATH)


def test_a_holder_elsewhere_that_shows_no_sign_of_life_is_taken_over(storage: Storage) -> None:
    dead = Lease(storage, RUN)
    dead._write()
    elsewhere(storage)
    said: list[str] = []
    with Lease(storage, RUN, said.append) as taken:
        assert taken.held() and not dead.held()
    assert "held by process" in said[0] and "node7" in said[0]


def test_what_is_no_lease_is_nobodys(storage: Storage) -> None:
    storage.write(PATH, b"half a li")
    with Lease(storage, RUN) as taken:
        assert taken.held()


def test_an_older_holder_and_an_older_worker_group_may_not_write(storage: Storage) -> None:
    with Lease(storage, RUN) as held:
        old, new = WriterClaim(storage, RUN, held.holder), WriterClaim(storage, RUN, held.holder)
        old.claim()
        old.check()
        new.claim()
        new.check()
        with pytest.raises(LostRunError, match="another worker group"):
            old.check()
        with pytest.raises(LostRunError):
            save_checkpoint(storage, RUN, Checkpoint(5, {"weights": b"x"}), old.check)
        assert iterations(storage, RUN) == []
        storage.delete(PATH)
        with Lease(storage, RUN), pytest.raises(LostRunError, match="process"):
            new.check()


def test_storage_that_lost_the_run_is_an_error_of_storage(storage: Storage) -> None:
    with Lease(storage, RUN) as held:
        writer = WriterClaim(storage, RUN, held.holder)
        writer.claim()
        storage.delete(RUN.folder)
        with pytest.raises(FileNotFoundError):
            writer.check()


def test_a_writer_without_a_lease_is_alone(storage: Storage) -> None:
    WriterClaim(storage, RUN, "").claim()
    WriterClaim(storage, RUN, "").check()
    assert storage.names(RUN.folder) == []


DAY = 24 * 3600.0


@pytest.mark.parametrize("jump", [-DAY, DAY])
def test_a_clock_that_jumps_changes_nothing_of_who_holds_a_run(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    monkeypatch.setattr(lease, "WATCH_SECONDS", 1.0)
    with Lease(storage, RUN) as held:
        monkeypatch.setattr(lease, "time", lambda: time() + jump)
        assert is_alive(storage, RUN) and living(storage, [RUN]) == {RUN}
        with pytest.raises(InputError, match="is being trained by"):
            Lease(storage, RUN).__enter__()
        sleep(0.6)
        assert held.held()
    assert not storage.exists(PATH) and not living(storage, [RUN])


class ElsewhereLease(Lease):
    """A holder on a machine that cannot be looked at, whose clock is another."""

    def __init__(self, storage: Storage, ahead: float) -> None:
        super().__init__(storage, RUN)
        self._lease |= {"machine": "another", "since": int(time() + ahead)}
        self._ahead_ms = int(1000 * ahead)

    def _write(self) -> None:
        self._lease["time_ms"] = int(1000 * time()) + self._ahead_ms
        super()._write()


@pytest.mark.parametrize("ahead", [-DAY, 0.0, DAY])
def test_a_holder_elsewhere_is_seen_to_live_whatever_its_clock_says(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    monkeypatch.setattr(lease, "WATCH_SECONDS", 1.0)
    with ElsewhereLease(storage, ahead):
        assert living(storage, [RUN]) == {RUN}
    dead = ElsewhereLease(storage, ahead)
    dead._write()
    # Of one that gave its last sign just now nobody can tell.
    assert living(storage, [RUN]) == (set() if ahead else {RUN})
    assert is_alive(storage, RUN) == (not ahead)
