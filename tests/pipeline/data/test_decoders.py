"""Decoders in processes: the same bytes as from threads, whoever is killed, and nothing left."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest

from pipeline.data import decoders
from pipeline.data.decoders import DecoderError, Decoders, StoredPhoto
from pipeline.data.photo_decoding import ProtocolViews, TrainingViews, UndecodableError, ViewsOfEach
from pipeline.data.sampling import raw_words
from pipeline.recipe.experiments import EXPERIMENTS
from tests.pipeline.data.photographs import photograph

ROW = replace(EXPERIMENTS["resnet18"], crop=32, scale=(32, 50), test_side=40, test_sides=(32, 48))
MODES = ("RGB", "L", "CMYK", "RGB", "L", "RGB")

# A view that any process knows is `eval`: its items say what happens there.
PID = "__import__('os').getpid()"
DIE = f"__import__('os').kill({PID}, 9)"


@pytest.fixture
def stored(tmp_path: Path) -> list[StoredPhoto]:
    """Photographs in one file, as in a shard."""
    contents = [photograph(n, (60 + n, 90 - n), mode) for n, mode in enumerate(MODES)]
    contents[-1] = photograph(9, (70, 80), form="PNG")
    file = tmp_path / "shard"
    file.write_bytes(b"".join(contents))
    ends = np.cumsum([0, *map(len, contents)]).tolist()
    return [
        StoredPhoto(str(file), start, len(content))
        for start, content in zip(ends, contents, strict=False)
    ]


def copied(made: Iterable[Any]) -> list[Any]:
    """Results flattened into arrays of our own."""

    def flat(thing: Any) -> Iterator[np.ndarray]:
        if isinstance(thing, list):
            for part in thing:
                yield from flat(part)
        else:
            yield np.array(thing)

    return list(flat(list(made)))


def made_by(pool: Decoders, view: Any, items: list[Any]) -> list[np.ndarray]:
    """Results of one task for each item, in the items' order."""
    tasks = [pool.submit(view, [item], copied) for item in items]
    return [array for task in tasks for array in task.result(60)]


def gone(pid: int, seconds: float = 20) -> bool:
    """Whether a process ends within so many seconds; one that nobody reaps has ended too."""
    deadline = monotonic() + seconds
    while monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        sleep(0.05)
    return False


def test_threads_and_processes_make_the_same_bytes(stored: list[StoredPhoto]) -> None:
    words = raw_words(3, 0, "augmentation", len(stored))
    protocols = tuple(
        ProtocolViews.of(name, ROW) for name in ("center_crop", "ten_crop", "multi_scale")
    )
    kinds = [
        (TrainingViews(ROW), list(zip(stored, words, strict=True))),
        (TrainingViews(replace(ROW, decoding="dct_scaled")), list(zip(stored, words, strict=True))),
        (ViewsOfEach(protocols), stored),
    ]
    for view, items in kinds:
        with closing(Decoders(1, processes=False)) as threads:
            expected = made_by(threads, view, items)
        for count in (1, 3):
            with closing(Decoders(count, processes=True)) as processes:
                again = made_by(processes, view, items)
            assert [a.shape for a in again] == [a.shape for a in expected]
            assert all(map(np.array_equal, again, expected))


def test_what_does_not_fit_the_memory_goes_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "MEMORY", 4096)
    many = "__import__('numpy').arange(6000)"
    with closing(Decoders(1, processes=True)) as pool:
        small, large = made_by(pool, eval, ["__import__('numpy').arange(6)", many])
    assert np.array_equal(small, np.arange(6)) and np.array_equal(large, np.arange(6000))


def test_few_decoders_are_threads_and_many_are_processes() -> None:
    kinds = []
    for count in (1, 2, 3, 16):
        with closing(Decoders(count)) as pool:
            kinds.append(pool.in_processes)
    assert kinds == [False, False, True, True]


def test_decoder_processes_hold_neither_torch_nor_ray_nor_anything_named(
    stored: list[StoredPhoto],
) -> None:
    before = set(os.listdir("/dev/shm"))
    loaded = "[name in __import__('sys').modules for name in ('torch', 'ray', 'PIL')]"
    with closing(Decoders(1, processes=True)) as pool:
        made_by(pool, ProtocolViews.of("center_crop", ROW), stored[:1])
        assert made_by(pool, eval, [loaded]) == [False, False, True]
        (pid,) = made_by(pool, eval, [PID])
        assert "memfd:decoder" in Path(f"/proc/{pid}/maps").read_text()
        assert set(os.listdir("/dev/shm")) == before
    assert gone(int(pid))


def test_a_killed_decoder_is_replaced_and_its_photographs_are_decoded_again(
    stored: list[StoredPhoto], caplog: pytest.LogCaptureFixture
) -> None:
    view, words = TrainingViews(ROW), raw_words(3, 0, "augmentation", len(stored))
    items = list(zip(stored, words, strict=True))
    with closing(Decoders(2, processes=True)) as pool, caplog.at_level(logging.WARNING):
        first = made_by(pool, view, items)
        for pid in {int(pid) for pid in made_by(pool, eval, [PID] * 8)}:
            os.kill(pid, signal.SIGKILL)
        again = made_by(pool, view, items * 3)
    assert all(map(np.array_equal, again, first * 3))
    assert "a decoder process ended (signal 9); another takes its place" in caplog.text


def test_photographs_that_end_every_decoder_are_one_line() -> None:
    with closing(Decoders(2, processes=True)) as pool:
        with pytest.raises(DecoderError, match=r"^3 decoder processes in a row .*signal 9") as said:
            made_by(pool, eval, [DIE])
        assert "\n" not in str(said.value)
        assert made_by(pool, eval, ["1 + 1"]) == [2]


def test_what_a_decoder_raises_is_raised_here(stored: list[StoredPhoto]) -> None:
    view = ProtocolViews.of("center_crop", ROW)
    with closing(Decoders(1, processes=True)) as pool:
        with pytest.raises(UndecodableError, match="none of JPEG, PNG, WEBP"):
            made_by(pool, view, [stored[0]._replace(offset=3)])
        with pytest.raises(OSError, match="shorter than it was"):
            made_by(pool, view, [stored[0]._replace(offset=10_000_000)])
        assert len(made_by(pool, view, stored[:1])) == 1


def test_closing_ends_processes_that_are_at_work() -> None:
    pool = Decoders(1, processes=True)
    (pid,) = made_by(pool, eval, [PID])
    busy = pool.submit(eval, ["__import__('time').sleep(600)"], copied)
    sleep(0.2)
    pool.close()
    assert gone(int(pid), 5)
    with pytest.raises(DecoderError):
        busy.result(10)


def test_a_killed_worker_leaves_no_process_and_no_memory_behind(tmp_path: Path) -> None:
    program = f"""
from pipeline.data.decoders import Decoders
pool = Decoders(3, processes=True)
tasks = [pool.submit(eval, [{PID!r}, "__import__('time').sleep(0.2)"], list) for _ in range(60)]
print(*{{task.result()[0] for task in tasks[:12]}}, flush=True)
tasks[-1].result()
"""
    before = set(os.listdir("/dev/shm"))
    worker = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert worker.stdout is not None
    pids = list(map(int, worker.stdout.readline().split()))
    worker.kill()
    worker.wait()
    assert len(pids) == 3 and all(gone(pid) for pid in pids)
    assert set(os.listdir("/dev/shm")) == before
