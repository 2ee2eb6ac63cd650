"""Who may write to a run's folder: one driver holds it, and one of that driver's worker groups
writes (torch-free).

`lease.json` names the driver and changes while it lives; `writer.json` names the newest worker
group. A holder whose lease has not changed for `STALE_SECONDS` of the watcher's own clock is taken
over (no two machines' clocks are compared), one whose process is seen to be gone at once. Whoever
finds another name in these files stops writing. Storage has no locks: between a look and a write
another may come, and then both write what is the same for one run, verified by its manifest.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from json import dumps, loads
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep, time
from typing import Any
from uuid import uuid4

from pipeline.errors import InputError
from pipeline.runs.run import Run, read_heartbeat
from pipeline.storage import Storage

BEAT_SECONDS = 3.0
STALE_SECONDS = 20.0
ALIVE_SECONDS = 60
"""A run whose holder has given no sign of life for longer counts as stopped; the holder's comes
every three seconds.
"""
SETTLE_SECONDS = 0.5
"""Between writing a claim and reading it back: of two that claim at once, the later writer has the
run.
"""


class LostRunError(RuntimeError):
    """Another command, or a later worker group of this one, has taken the run over: nothing more
    may be written.
    """


class Lease:
    """A driver's hold on a run: taken on entering the context, kept by a thread, given back on
    leaving it.

    Raises (on entering):
        InputError: another driver holds the run (says which, where and since when).
    """

    def __init__(
        self, storage: Storage, run: Run, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self._storage, self._run, self._say = storage, run, say
        self._path = f"{run.folder}/lease.json"
        self.holder = uuid4().hex
        self._mine: dict[str, Any] = {
            "holder": self.holder,
            "since": int(time()),
            "beat": 0,
            **_this_process(),
        }
        self._end = Event()
        self._thread = Thread(target=self._keep, daemon=True)

    def __enter__(self) -> "Lease":
        self._wait_until_free()
        self._write()
        sleep(SETTLE_SECONDS)
        there = _read(self._storage, self._path)
        if there is None or there.get("holder") != self.holder:
            raise self._held(there or {})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(timeout=BEAT_SECONDS)
        with suppress(OSError):
            if self.held():
                self._storage.delete(self._path)

    def held(self) -> bool:
        """Whether storage still names this holder."""
        there = _read(self._storage, self._path)
        return there is not None and there.get("holder") == self.holder

    def _wait_until_free(self) -> None:
        seen = _read(self._storage, self._path)
        if seen is None or _is_gone(seen):
            return
        self._say(
            f"{self._run} was held by {_whom(seen)}; waiting up to {STALE_SECONDS:.0f} s to see "
            "whether it still is"
        )
        started = monotonic()
        while monotonic() - started < STALE_SECONDS:
            sleep(1.0)
            there = _read(self._storage, self._path)
            if there is None:
                return
            if there != seen:
                raise self._held(there)

    def _held(self, there: dict[str, Any]) -> InputError:
        return InputError(
            f"{self._run}: is being trained by {_whom(there)}; wait for it, or stop it and give "
            "this command again "
            f"({self._storage.path(self._path)} is released within {STALE_SECONDS:.0f} s)"
        )

    def _write(self) -> None:
        self._storage.write(self._path, dumps(self._mine).encode())

    def _keep(self) -> None:
        while not self._end.wait(BEAT_SECONDS):
            with suppress(OSError):
                there = _read(self._storage, self._path)
                if there is None:  # storage is away: the next beat may reach it
                    continue
                if there.get("holder") != self.holder:
                    return
                self._mine |= {"beat": self._mine["beat"] + 1, "time_ms": int(1000 * time())}
                self._write()


class WriterClaim:
    """A worker group's right to write, claimed by its rank 0 and looked at before anything counts
    as saved.
    """

    def __init__(self, storage: Storage, run: Run, holder: str) -> None:
        self._storage, self._run, self._holder = storage, run, holder
        self._name = uuid4().hex

    def claim(self) -> None:
        """Become the run's writer; an older worker group's writes are refused from now on.

        Raises:
            LostRunError: the driver of this worker group does not hold the run any more.
        """
        if self._holder:
            self._check("lease.json", self._holder)
            about = {"holder": self._name, "lease": self._holder}
            self._storage.write(f"{self._run.folder}/writer.json", dumps(about).encode())

    def check(self) -> None:
        """Refuse to go on where another has taken over.

        Raises:
            LostRunError: says so.
            OSError: storage cannot be read, or has lost the run's files.
        """
        if self._holder:
            self._check("lease.json", self._holder)
            self._check("writer.json", self._name)

    def _check(self, name: str, mine: str) -> None:
        path = f"{self._run.folder}/{name}"
        there = _read(self._storage, path)
        if there is None:
            raise FileNotFoundError(f"{self._storage.path(path)} is gone")
        if there.get("holder") != mine:
            raise LostRunError(
                f"{self._run}: {_whom(there)} has taken the run over; nothing more is written here"
            )


def is_alive(storage: Storage, run: Run) -> bool:
    """Whether a run is being trained, as far as its folder can tell at one look (of a holder
    elsewhere, by its clock).
    """
    lease = _read(storage, f"{run.folder}/lease.json")
    if lease is None or _is_gone(lease):
        return False
    if lease.get("machine") == _machine() is not None:
        return True
    beat = read_heartbeat(storage, run)
    signs = [
        1000 * int(lease.get("since", 0)),
        int(lease.get("time_ms", 0)),
        beat["time_ms"] if beat else 0,
    ]
    return int(1000 * time()) - max(signs) <= 1000 * ALIVE_SECONDS


def held_since(storage: Storage, run: Run) -> int | None:
    """When the holder of a run took it (Unix, seconds); None where nobody has."""
    lease = _read(storage, f"{run.folder}/lease.json")
    return int(lease.get("since", 0)) if lease is not None else None


def _read(storage: Storage, path: str) -> dict[str, Any] | None:
    """A lease, None where there is none; one that cannot be parsed is nobody's."""
    content = storage.read_if_there(path)
    try:
        there = loads(content) if content else None
    except ValueError:
        return None
    return there if isinstance(there, dict) else None


def _whom(there: dict[str, Any]) -> str:
    if "pid" not in there:
        return "another worker group"
    since = max(0, int(time()) - int(there.get("since", 0)))
    return f"process {there['pid']} on {there.get('host')}, started {since // 60} min {since % 60} s ago"


def _this_process() -> dict[str, Any]:
    return {
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "machine": _machine(),
        "started": _started(os.getpid()),
    }


def _is_gone(there: dict[str, Any]) -> bool:
    """Whether the holder ran on this very machine and its process has ended; False where that
    cannot be seen.
    """
    machine = _machine()
    if machine is None or there.get("machine") != machine or not isinstance(there.get("pid"), int):
        return False
    return _started(there["pid"]) != there.get("started")


def _machine() -> str | None:
    """This boot of this machine and its space of process numbers, None where Linux does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When a process started, in ticks since the boot; None where there is none of that number, or
    only its zombie.
    """
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else rest[18]
