"""A pack: several runs trained at once by one worker, a thread and, on a GPU, a stream each.

A network of CIFAR's size leaves most of a GPU idle: its kernels are shorter than their launches.
Eight of them side by side fill it. Each run is trained by the same `train` as alone, and shares
with the others nothing but the dataset and the process's settings, so it has the bytes that it has
alone. It ends alone, too: one that diverges, is refused or fails leaves the others training.

What no thread survives is a device that has failed: then all of them end, and the worker with them.
"""

import gc
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from threading import Condition, Lock
from typing import Any

import torch

from pipeline.errors import InputError, StorageLostError, first_line
from pipeline.runs.execution import Attempt, Execution
from pipeline.runs.run import FAILED, LOST, REFUSED, Run
from pipeline.storage import Storage
from pipeline.training.feeding.feeds import AnyDataset
from pipeline.training.loop import train
from pipeline.training.measuring.cost import DeviceMeter
from pipeline.training.step.process_group import own_stream, single_process

DEVICE_FAULTS = ("CUDA error", "CUDA driver error", "CUBLAS_STATUS", "cuDNN error", "CUDNN_STATUS")
"""How torch speaks of a device, or a library on it, that may have failed for the whole process."""

logger = logging.getLogger(__name__)


class DeviceFaultError(RuntimeError):
    """The device has failed under a pack; only a new process can use it again."""


class StartLine:
    """Where the runs of a pack set up one at a time, and wait for each other before they train.

    Weights are drawn from torch's one generator, and while a graph is captured nobody may wait for
    the device: so a run sets up alone, while no other sets up or trains.
    """

    def __init__(self, runs: int) -> None:
        self._expected, self._ready = runs, 0
        self._turn, self._changed = Lock(), Condition()

    @contextmanager
    def setting_up(self) -> Iterator[None]:
        """Wait for one's turn on entry, and on exit until every run has set up or left."""
        with self._turn:
            yield
        with self._changed:
            self._ready += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._ready >= self._expected)

    def leave(self) -> None:
        """A run has ended, before or after it had set up: nobody waits for it."""
        with self._changed:
            self._expected -= 1
            self._changed.notify_all()


def train_pack(
    attempts: Mapping[Run, Attempt],
    dataset: AnyDataset,
    storage: Storage,
    device: torch.device,
    execution: Execution,
) -> dict[Run, dict[str, Any]]:
    """Train runs at once, each from wherever its folder stands; what each attempt came to.

    An attempt's answer is what `train` returns, or a status with its `reason`: `refused`, `lost`,
    and `failed` for any other error, which is this run's alone. Threads of one process share its
    settings, so the runs' rows and `execution` have to ask for the same.

    Raises:
        DeviceFaultError: the device failed under all of them; what was saved is in their folders.
    """
    line, meter = StartLine(len(attempts)), DeviceMeter.of(device)

    def attempt(run: Run) -> dict[str, Any]:
        # A thread begins on the process's first device and on its default stream.
        if device.type == "cuda":
            torch.cuda.set_device(device)
        mine = replace(attempts[run], setting_up=line.setting_up)
        try:
            with own_stream(device):
                group = single_process(device)
                return answer_of(
                    lambda: train(run, dataset, storage, group, execution, mine, meter)
                )
        except Exception as error:
            logger.exception("%s failed within a pack of %d", run, len(attempts))
            # Its text alone: the error itself would keep the run's memory on the device.
            answer = {"status": FAILED, "reason": f"{type(error).__name__}: {first_line(error)}"}
        finally:
            line.leave()
        # What only cycles of references hold is freed now: the others may want the memory.
        gc.collect()
        return answer

    with ThreadPoolExecutor(len(attempts), "run") as threads:
        answers = dict(zip(attempts, threads.map(attempt, attempts), strict=True))
    for run, answer in answers.items():
        reason = answer.get("reason", "")
        named = answer["status"] == FAILED and any(words in reason for words in DEVICE_FAULTS)
        if named and not _usable(device):
            raise DeviceFaultError(f"{run}: {reason}")
    return answers


def _usable(device: torch.device) -> bool:
    """Whether a device that an error speaks of still works: lack of memory is one run's alone."""
    if device.type != "cuda":
        return False
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return False
    return True


def answer_of(action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What an attempt comes to: what it returns, or why trying again would not help."""
    try:
        return action()
    except InputError as error:
        return {"status": REFUSED, "reason": str(error)}
    except StorageLostError as error:
        return {"status": LOST, "reason": str(error)}
