"""What benchmarks of one GPU share: contestants timed in rounds, and what is kept of them."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter, time
from typing import Any

import torch

from jobs.execution.experiment_timing import wait_for
from jobs.execution.processors import usable_cpus
from pipeline.errors import InputError
from pipeline.runs.provenance import hardware, source_commit, versions


@dataclass
class GpuContestant:
    """Something that trains `images` a step; `rates` are images a second, a round each."""

    name: str
    images: int
    step: Callable[[], object]
    share: float = 1.0
    """Of a round's steps, that it makes: slow ones and packs make fewer."""
    rates: list[float] = field(default_factory=list)

    def measure(self, steps: int, device: torch.device) -> None:
        """Time its share of so many steps, after two that warm it up."""
        steps = max(2, round(self.share * steps))
        for _ in range(2):
            self.step()
        wait_for(device)
        began = perf_counter()
        for _ in range(steps):
            self.step()
        wait_for(device)
        self.rates.append(steps * self.images / (perf_counter() - began))


class torch_defaults:
    """Kernels as torch chooses them by itself: TF32 convolutions, nothing deterministic."""

    def __enter__(self) -> None:
        self._tf32 = torch.backends.cudnn.allow_tf32
        self._deterministic = torch.are_deterministic_algorithms_enabled()
        self._cudnn = torch.backends.cudnn.deterministic
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.deterministic = False
        torch.use_deterministic_algorithms(False)

    def __exit__(self, *_: object) -> None:
        torch.backends.cudnn.allow_tf32 = self._tf32
        torch.backends.cudnn.deterministic = self._cudnn
        torch.use_deterministic_algorithms(self._deterministic)


def device_named(name: str, command: str) -> torch.device:
    """The device to measure on.

    Raises:
        InputError: it is a GPU, and none is here.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"{command}: no GPU is here; --device cpu tries the command, and `bench loop` and "
            "`bench data` measure CPUs"
        )
    return torch.device(name)


def print_rates(title: str, found: dict[str, list[float]], usual: str, against: str) -> None:
    """Medians of each contestant, and their ratios to the one that is named `usual`."""
    print(f"\n{title}: images a second, median (lowest to highest), against {against}")
    for name, rates in found.items():
        ratio = median(rates) / median(found[usual])
        spread = f"({min(rates):,.0f} to {max(rates):,.0f})"
        print(f"  {name:<42} {median(rates):>10,.0f}  {spread:<24} {ratio:6.2f}")
    print(flush=True)


def taken_on_gpu(device: torch.device) -> dict[str, Any]:
    """What a measurement was taken on, with what, and when."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "none"
    return {
        "gpu": gpu,
        "cpu": hardware(),
        "cpus": usable_cpus(),
        "versions": versions() | {"cudnn": str(torch.backends.cudnn.version())},
        "commit": source_commit(),
        "time": int(time()),
    }


def keep(kept: dict[str, Any], out: Path) -> None:
    """Write everything that is known so far, so that a run that is cut off leaves its figures."""
    out.write_text(json.dumps(kept, indent=1) + "\n")
