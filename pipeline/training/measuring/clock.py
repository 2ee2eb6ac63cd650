"""How fast a run trains.

Each rank has a clock; nothing that is computed depends on it, and rates are no part of what has to
be equal between two runs of the same experiment and seed.
"""

from collections.abc import Callable
from time import perf_counter

import torch


class Clock:
    """Seconds spent in SGD steps, without evaluation and saving.

    `images` is the number of images an iteration trains on, `iteration` the one it starts at; `now`
    returns seconds.
    """

    def __init__(
        self, images: int, iteration: int, now: Callable[[], float] = perf_counter
    ) -> None:
        self._images, self._iteration, self._now = images, iteration, now
        self._started, self._spent = now(), 0.0
        self._before = 0, 0.0  # iterations and seconds of the rate before this one

    def pause(self, device: torch.device) -> float:
        """Stop counting and return the seconds since it last started.

        A synchronisation point: it waits for the device, as a reader of results must anyway.
        """
        # When a step returns, its kernels are only queued on a GPU: without the wait, their time
        # would count as evaluation's.
        if device.type == "cuda":
            torch.cuda.current_stream(device).synchronize()
        passed = self._now() - self._started
        self._spent += passed
        return passed

    def resume(self, point: int | None = None) -> None:
        """Count again; with `point` (an iteration) given, a new rate begins there."""
        # Points of a curve are what rates are averaged between; a pause to save is none.
        if point is not None:
            self._before = point - self._iteration, self._spent
            self._spent, self._iteration = 0.0, point
        self._started = self._now()

    @property
    def spent(self) -> float:
        """Seconds counted since the last point; complete while the clock is paused."""
        return self._spent

    def rate(self, iteration: int) -> float:
        """Images a second since the last point."""
        return self._images_per_second(iteration - self._iteration, self._spent)

    def running_rate(self, iteration: int) -> float:
        """Images a second since the point before the last one, the time until now included."""
        # Right after a point nothing is trained since it, and a rate of 0 would be said of a run
        # that trains. While it runs no device is waited for, so on a GPU it is of queued steps.
        iterations, seconds = self._before
        seconds += self._spent + self._now() - self._started
        return self._images_per_second(iterations + iteration - self._iteration, seconds)

    def _images_per_second(self, iterations: int, seconds: float) -> float:
        return iterations * self._images / seconds if seconds > 0 else 0.0
