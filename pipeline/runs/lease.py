"""Who may write to a run's folder: one driver, and one of that driver's worker groups.

Torch-free. `lease.json` names the driver, its holder, and changes while it lives; `writer.json`
names the newest worker group. A holder whose lease has not changed for `STALE_SECONDS` of the
watcher's own clock is taken over (no two machines' clocks are compared), one whose process is seen
to be gone at once. Whoever reads another name in these files stops writing.

Storage has no locks: between a check and a write another may come. Then both write, which is
harmless: what they write is the same for one run, and each checkpoint is verified by its manifest.
"""

import atexit
import os
from collections.abc import Callable
from contextlib import suppress
from json import dumps
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep, time
from typing import Any, NotRequired
from uuid import uuid4

from typing_extensions import TypedDict

from pipeline.errors import InputError
from pipeline.runs.run import Run, read_heartbeat
from pipeline.storage import Storage
from pipeline.stored_json import read_json

BEAT_SECONDS = 3.0
STALE_SECONDS = 20.0
ALIVE_SECONDS = 60
"""A run whose holder gave no sign of life for longer counts as stopped (beats come every 3 s)."""
SETTLE_SECONDS = 0.5
"""Between writing a claim and reading it back: of two at once, the later writer has the run."""


class StoredLease(TypedDict):
    """`lease.json`, and `writer.json`, which names no process."""

    holder: str
    since: NotRequired[int]
    time_ms: NotRequired[int]
    beat: NotRequired[int]
    host: NotRequired[str]
    pid: NotRequired[int]
    machine: NotRequired[str | None]
    started: NotRequired[str | None]


class LostRunError(RuntimeError):
    """Another command, or a later worker group of this one, has the run: write nothing more."""


class Lease:
    """A driver's hold on a run: taken on entry, renewed by a thread, given back on exit.

    A process that ends in order gives back what is still held, whatever its threads are at.

    Raises (on entering):
        InputError: another driver holds the run (says which, where and since when).
    """

    def __init__(
        self, storage: Storage, run: Run, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self._storage, self._run, self._say = storage, run, say
        self._path = f"{run.folder}/lease.json"
        self.holder = uuid4().hex
        self._lease: dict[str, Any] = {
            "holder": self.holder,
            "since": int(time()),
            # A number that rises: whoever watches needs no clock of ours to see that it changes.
            "beat": 0,
            **_this_process(),
        }
        self._end = Event()
        self._thread = Thread(target=self._keep, daemon=True)

    def __enter__(self) -> "Lease":
        # Claim, wait, read back: of two that claim at the same moment only the later one finds
        # itself named, so one goes on.
        self._wait_until_free()
        self._write()
        sleep(SETTLE_SECONDS)
        stored = _read(self._storage, self._path)
        if stored is None or stored.get("holder") != self.holder:
            raise self._held(stored or {})
        self._thread.start()
        # A command that is interrupted does not wait for ever for the thread that holds the run.
        atexit.register(self.__exit__)
        return self

    def __exit__(self, *_: object) -> None:
        atexit.unregister(self.__exit__)
        self._end.set()
        self._thread.join(timeout=BEAT_SECONDS)
        with suppress(OSError):
            # Only our own: a lease that another took over meanwhile is not ours to delete.
            if self.held():
                self._storage.delete(self._path)

    def held(self) -> bool:
        """Whether storage still names this holder."""
        stored = _read(self._storage, self._path)
        return stored is not None and stored.get("holder") == self.holder

    def _wait_until_free(self) -> None:
        seen = _read(self._storage, self._path)
        if seen is None or _is_gone(seen):
            return
        self._say(
            f"{self._run} was held by {_whom(seen)}; waiting up to {STALE_SECONDS:.0f} s to see "
            "whether it still is"
        )
        # Whether the lease still changes is judged by this machine's clock alone.
        started = monotonic()
        while monotonic() - started < STALE_SECONDS:
            sleep(1.0)
            stored = _read(self._storage, self._path)
            if stored is None:
                return
            if stored != seen:
                raise self._held(stored)

    def _held(self, lease: dict[str, Any]) -> InputError:
        return InputError(
            f"{self._run}: is being trained by {_whom(lease)}; wait for it, or stop it and give "
            "this command again "
            f"({self._storage.path(self._path)} is released within {STALE_SECONDS:.0f} s)"
        )

    def _write(self) -> None:
        self._storage.write(self._path, dumps(self._lease).encode())

    def _keep(self) -> None:
        while not self._end.wait(BEAT_SECONDS):
            with suppress(OSError):
                stored = _read(self._storage, self._path)
                if stored is None:  # storage is away: the next beat may reach it
                    continue
                if stored.get("holder") != self.holder:
                    return
                self._lease |= {"beat": self._lease["beat"] + 1, "time_ms": int(1000 * time())}
                self._write()


class WriterClaim:
    """A worker group's right to write: claimed by its rank 0, checked before anything is saved."""

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

    def _check(self, name: str, expected: str) -> None:
        path = f"{self._run.folder}/{name}"
        stored = _read(self._storage, path)
        if stored is None:
            raise FileNotFoundError(f"{self._storage.path(path)} is gone")
        if stored.get("holder") != expected:
            raise LostRunError(
                f"{self._run}: {_whom(stored)} has taken the run over; nothing more is written here"
            )


def is_alive(storage: Storage, run: Run) -> bool:
    """Whether a run is being trained, as far as its folder can tell at one reading."""
    lease = _read(storage, f"{run.folder}/lease.json")
    if lease is None or _is_gone(lease):
        return False
    # On this machine the process table has said already that the holder lives.
    if lease.get("machine") == _machine() is not None:
        return True
    # From another machine only its clock's word: when the holder took the run, last renewed its
    # lease, or last said how far it is.
    heartbeat = read_heartbeat(storage, run)
    signs_of_life_ms = [
        1000 * int(lease.get("since", 0)),
        int(lease.get("time_ms", 0)),
        heartbeat["time_ms"] if heartbeat else 0,
    ]
    return int(1000 * time()) - max(signs_of_life_ms) <= 1000 * ALIVE_SECONDS


def held_since(storage: Storage, run: Run) -> int | None:
    """When the holder of a run took it (Unix, seconds); None where nobody has."""
    lease = _read(storage, f"{run.folder}/lease.json")
    return int(lease.get("since", 0)) if lease is not None else None


def _read(storage: Storage, path: str) -> dict[str, Any] | None:
    """A lease, None where there is none; one that cannot be read is nobody's."""
    try:
        lease = read_json(storage, path, StoredLease)
    except InputError:
        return None
    return dict(lease) if lease is not None else None


def _whom(lease: dict[str, Any]) -> str:
    """The holder in words; `writer.json` names no process, so only a worker group is known."""
    if "pid" not in lease:
        return "another worker group"
    seconds = max(0, int(time()) - int(lease.get("since", 0)))
    started = f"started {seconds // 60} min {seconds % 60} s ago"
    return f"process {lease['pid']} on {lease.get('host')}, {started}"


def _this_process() -> dict[str, Any]:
    return {
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "machine": _machine(),
        "started": _started(os.getpid()),
    }


def _is_gone(lease: dict[str, Any]) -> bool:
    """Whether the holder's process, on this very machine, has ended; False if unknown."""
    machine = _machine()
    if machine is None or lease.get("machine") != machine or not isinstance(lease.get("pid"), int):
        return False
    # The same number may be another process by now: only its start tells.
    return _started(lease["pid"]) != lease.get("started")


def _machine() -> str | None:
    """This boot of this machine and its process namespace; None where Linux does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When a process started, in ticks since the boot; None if there is none, or its zombie."""
    try:
        # The process's name stands in brackets and may hold anything: fields are counted from
        # behind it.
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):  # a number that no process can have
        return None
    return None if state == "Z" else rest[18]
