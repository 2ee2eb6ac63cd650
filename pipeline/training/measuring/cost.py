"""What a run costs: how long it holds its devices, and the energy that they use meanwhile.

An attempt is charged from the end of its set-up to its own end, evaluation and saving included.
Runs that train on a device at once share it evenly: of each span of time, and of the energy used in
it, a run is charged 1/(runs that train then).

What an attempt has cost is written into its entry of the history whenever the run is saved, and
once more into `result.json`. So a run's cost is the sum over its attempts. A run that is killed
loses what came after its last checkpoint, in its cost as in its training.

Nothing that is computed depends on it, and no reading waits for a device. Like rates, a cost is no
part of what has to be equal between two runs of the same experiment and seed.
"""

from collections.abc import Callable
from threading import Lock
from time import perf_counter
from typing import Self

import torch

from pipeline.runs.execution import Execution
from pipeline.runs.history import DEVICE_SECONDS, JOULES, History
from pipeline.training.measuring.energy_counter import energy_counter, no_counter


class DeviceMeter:
    """One device's time and energy, shared evenly by the runs that train on it at each moment.

    `energy` returns the joules of the device's counter or None, `now` returns seconds. Threads of a
    process may share a meter; what another process does on the device is not known to it.
    """

    def __init__(
        self,
        energy: Callable[[], float | None] = no_counter,
        now: Callable[[], float] = perf_counter,
    ) -> None:
        self._energy, self._now = energy, now
        self._lock, self._runs = Lock(), 0
        # A run's share of everything since the meter was made, had the run been there all along:
        # what one is charged is the difference between two readings.
        self._seconds, self._joules = 0.0, 0.0
        self._counted = True
        self._last_time, self._last_energy = now(), energy()

    @classmethod
    def of(cls, device: torch.device) -> "DeviceMeter":
        """The meter of a device, with its energy where a card counts it."""
        return cls(energy_counter(device))

    def read(self, change: int = 0) -> tuple[float, float | None]:
        """A run's share of seconds and joules so far; then `change` runs more train (or fewer).

        The joules are None once a reading of the counter has failed.
        """
        with self._lock:
            time, energy = self._now(), self._energy()
            if self._runs:
                self._seconds += (time - self._last_time) / self._runs
                used = None
                if energy is not None and self._last_energy is not None:
                    used = energy - self._last_energy
                # A counter that has gone back began anew: what it had counted is not known.
                if used is None or used < 0:
                    self._counted = False
                else:
                    self._joules += used / self._runs
            self._last_time, self._last_energy = time, energy
            self._runs += change
            return self._seconds, self._joules if self._counted else None


class Cost:
    """What one attempt costs, from when this context is entered; then others have the device.

    Joules are known of an attempt with one worker on a GPU that its process has to itself, and all
    that the card uses is counted. Of several workers each would have to read its own card, and all
    to exchange what they read. Where Ray shares a GPU between processes, nobody knows which of them
    used what.
    """

    def __init__(self, meter: DeviceMeter, execution: Execution, world_size: int) -> None:
        # A fraction of a GPU is what Ray reserves of it. All ranks hold theirs equally long.
        each = execution.gpus if execution.use_gpu else 1.0
        self._devices, self._alone = world_size * each, world_size == 1 and each == 1
        self._meter = meter
        self._started: tuple[float, float | None] = (0.0, None)

    def __enter__(self) -> Self:
        self._started = self._meter.read(change=1)
        return self

    def __exit__(self, *_: object) -> None:
        self._meter.read(change=-1)

    def record(self, history: History) -> None:
        """Write what this attempt has cost so far into its entry of the history."""
        (seconds, joules), (seconds_before, joules_before) = self._meter.read(), self._started
        attempt = history.attempts[-1]
        attempt[DEVICE_SECONDS] = round(self._devices * (seconds - seconds_before), 3)
        if self._alone and joules is not None and joules_before is not None:
            attempt[JOULES] = round(joules - joules_before, 3)
        else:
            # Part of an attempt's energy would pass for all of it.
            attempt.pop(JOULES, None)
