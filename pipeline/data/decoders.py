"""Who decodes photographs for a worker: threads, or from three processors on processes (Sec. 3.4).

Threads share the interpreter's lock: they stop at about five processors' worth. A decoder process
holds neither torch nor Ray and is never forked: it is a fresh interpreter at the other end of a
pair of sockets, and one thread here waits for it. What it makes comes back through memory that has
no name (`memfd`): /dev/shm is not used, and nothing is left behind however a run ends. A decoder
whose worker is gone reads the end of its socket, and ends too; one that is killed is replaced and
its photographs are decoded again.

Results depend on the photographs alone, never on who decodes them. Torch-free. Why not a
DataLoader's workers: they import torch and whatever the main program imports, fill /dev/shm, and
cannot be replaced.
"""

import logging
import mmap
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from itertools import accumulate, pairwise
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, TypeVar

import numpy as np

from pipeline.memory import keep_freed_memory

THREADS_SUFFICE = 2
"""Up to so many decoders are threads: two of them hardly wait for each other, and start at once."""
LIVES = 3
"""Processes in a row that one piece of work may end before it is given up."""
MEMORY = 8 << 20
"""Bytes through which a process hands over what it made; more goes through its socket."""

Item = TypeVar("Item")
Made = TypeVar("Made")
Received = TypeVar("Received")

logger = logging.getLogger(__name__)


class StoredPhoto(NamedTuple):
    """Where the encoded bytes of a photograph lie: a part of a file."""

    file: str
    offset: int
    size: int

    def read(self) -> bytes:
        """The bytes.

        Raises:
            OSError: the file cannot be read, or is shorter than it should be.
        """
        # Opened for each image: there may be more shards than files that a process may keep open.
        # `pread` moves no position, so threads read side by side.
        file = os.open(self.file, os.O_RDONLY)
        try:
            content = os.pread(file, self.size, self.offset)
        finally:
            os.close(file)
        if len(content) < self.size:
            raise OSError(f"{self.file}: is shorter than it was")
        return content


class DecoderError(RuntimeError):
    """Decoder processes were ended from outside too often; one line."""


class _EndedError(Exception):
    """A process has ended without an answer; says how."""


class Decoders:
    """`count` decoders, in threads or in as many processes.

    Work is begun in the order of submission. `processes` decides what they are; left out, their
    number does, and the operating system: without Linux's `memfd` they are threads.
    """

    def __init__(self, count: int, processes: bool | None = None) -> None:
        if processes is None:
            processes = count > THREADS_SUFFICE and hasattr(os, "memfd_create")
        self.count, self.in_processes = count, processes
        self._threads = ThreadPoolExecutor(count, "decode")
        self._own = threading.local()
        self._lock, self._closed = threading.Lock(), False
        self._started: set[_DecoderProcess] = set()

    def submit(
        self,
        view: Callable[[Item], Made],
        items: Sequence[Item],
        receive: Callable[[Iterable[Made]], Received],
    ) -> "Future[Received]":
        """Have `receive` called, in a thread, with what `view` makes of each item.

        In processes `view`, items and results are pickled, and arrays that `receive` is given are
        overwritten once it returns: it copies what it wants to keep. Whatever `view` raises is
        raised by the future.
        """

        def work() -> Received:
            # Threads make one at a time, so that it is received while it is in the cache.
            return receive(self._made(view, items) if self.in_processes else map(view, items))

        return self._threads.submit(work)

    def close(self) -> None:
        """End them without waiting for what they do; what is not begun is dropped."""
        with self._lock:
            self._closed = True
            started = list(self._started)
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in started:
            process.end()

    def _made(self, view: Callable[[Item], Made], items: Sequence[Item]) -> list[Made]:
        """What this thread's process makes of the items."""
        ended = ""
        for _ in range(LIVES):
            process = self._process()
            try:
                made: list[Made] = process.ask(view, items)
                return made
            except _EndedError as error:
                ended = str(error)
                self._forget(process)
                if self._closed:
                    break
                logger.warning("a decoder process ended (%s); another takes its place", ended)
        raise DecoderError(
            f"{LIVES} decoder processes in a row ended on the same photographs ({ended}); is there "
            f"memory for {self.count} of them?"
        )

    def _process(self) -> "_DecoderProcess":
        """This thread's process, started if there is none."""
        process: _DecoderProcess | None = getattr(self._own, "process", None)
        if process is None:
            process = self._own.process = _DecoderProcess()
            with self._lock:
                self._started.add(process)
                closed = self._closed
            if closed:
                process.end()
        return process

    def _forget(self, process: "_DecoderProcess") -> None:
        process.end()
        self._own.process = None
        with self._lock:
            self._started.discard(process)


class _DecoderProcess:
    """One decoder process, as the thread that waits for it sees it."""

    def __init__(self) -> None:
        memory = os.memfd_create("decoder")
        here, there = socket.socketpair()
        try:
            os.ftruncate(memory, MEMORY)
            self.memory = mmap.mmap(memory, MEMORY)
            # The same modules as here, wherever this process found them.
            program = (
                f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; "
                f"serve({there.fileno()}, {memory})"
            )
            self.process = subprocess.Popen(
                [sys.executable, "-c", program],
                pass_fds=(there.fileno(), memory),
                stdin=subprocess.DEVNULL,
            )
        finally:
            # With its end closed here, each side reads the end of file once the other is gone.
            there.close()
            os.close(memory)
        self.connection = Connection(here.detach())

    def ask(self, view: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """What `view` makes of each item; arrays lie in this process's memory until it is asked
        again.

        Raises:
            _EndedError: it is not there any more.
        """
        try:
            self.connection.send((view, items))
            answer, borders = self.connection.recv()
        except (EOFError, OSError):
            self.end()
            code = self.process.returncode
            raise _EndedError(f"signal {-code}" if code < 0 else f"exit code {code}") from None
        whole = memoryview(self.memory)
        buffers = [whole[a:b] for a, b in pairwise(borders)]
        made = pickle.loads(answer, buffers=buffers)
        if isinstance(made, BaseException):
            raise made
        return list(made)

    def end(self) -> None:
        """End it, and wait until it is gone."""
        self.process.kill()
        self.process.wait()


def serve(connection: int, memory: int) -> None:
    """What a decoder process does until its worker is gone; both are file descriptors."""
    # These reach every process of a terminal or of a batch job: the worker decides what becomes of
    # its decoders, and may still have to save.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    keep_freed_memory()
    worker, shared = Connection(connection), mmap.mmap(memory, 0)
    while True:
        try:
            view, items = worker.recv()
            worker.send(_answer(view, items, shared))
        except (EOFError, ConnectionError):
            return


def _answer(
    view: Callable[[Any], Any], items: Sequence[Any], shared: mmap.mmap
) -> tuple[bytes, list[int]]:
    """Pickled results, or what was raised; and the borders of the arrays that lie in `shared`."""
    try:
        made: Any = [view(item) for item in items]
    except Exception as error:
        made = error
    arrays: list[pickle.PickleBuffer] = []
    content = _pickled(made, arrays.append)
    borders = [0, *accumulate(array.raw().nbytes for array in arrays)]
    if borders[-1] > len(shared):
        return _pickled(made, None), [0]
    for array, (start, end) in zip(arrays, pairwise(borders), strict=True):
        shared[start:end] = array.raw()
    return content, borders


def _pickled(made: Any, aside: Callable[[pickle.PickleBuffer], Any] | None) -> bytes:
    """Pickled, the bytes of arrays handed to `aside` instead where there is one."""
    sink = BytesIO()
    _CompactPickler(sink, protocol=5, buffer_callback=aside).dump(made)
    return sink.getvalue()


class _CompactPickler(pickle.Pickler):
    """Lays mirrored arrays out anew: only bytes in a row can be handed over aside."""

    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, np.ndarray) and not thing.flags.c_contiguous:
            return np.ascontiguousarray(thing).__reduce_ex__(5)
        return NotImplemented
