"""How fast a run trains: seconds spent in SGD steps, evaluation and saving left out."""

from collections.abc import Callable
from time import perf_counter

import torch


class Clock:
    """Seconds spent in SGD steps, evaluation and saving left out."""

    def __init__(
        self, images: int, iteration: int, now: Callable[[], float] = perf_counter
    ) -> None:
        self._images, self._iteration, self._now = images, iteration, now
        self._started, self._spent = now(), 0.0

    def pause(self, device: torch.device) -> float:
        """Stop counting; returns the seconds since it last started. Waits for the device, as the
        reader must anyway.
        """
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        passed = self._now() - self._started
        self._spent += passed
        return passed

    def resume(self, point: int | None = None) -> None:
        """Count again; a new rate begins where `point` (an iteration) is given."""
        if point is not None:
            self._spent, self._iteration = 0.0, point
        self._started = self._now()

    @property
    def spent(self) -> float:
        """Seconds since the last point, while it is paused."""
        return self._spent

    def rate(self, iteration: int, running: bool = False) -> float:
        """Images a second since the last point; `running` while it has not been paused."""
        spent = self._spent + (self._now() - self._started if running else 0.0)
        return (iteration - self._iteration) * self._images / spent if spent > 0 else 0.0
