"""What the benchmarks share: precisions, rounds, medians with their spread, tables (torch-free)."""

from collections.abc import Sequence
from statistics import median
from typing import TypeVar

from jobs.console.tables import FittingTable
from jobs.execution.processors import usable_cpus
from pipeline.data.datasets import Dataset
from pipeline.errors import InputError
from pipeline.recipe.experiments import Precision
from pipeline.runs.provenance import hardware, native_bf16, versions

Item = TypeVar("Item")

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
"""Of a CPU, and"""
GPU_PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "bf16")
"""of a GPU."""


def checked_precision(precision: str, known: tuple[Precision, ...] = PRECISIONS) -> Precision:
    """The precision of that name, among those that are known.

    Raises:
        InputError: there is none.
    """
    for name in known:
        if name == precision:
            return name
    raise InputError(f"--precision {precision}: {' or '.join(known)} is needed")


def precisions(precision: str) -> tuple[Precision, ...]:
    """The precision of that name; both where none is named, if this CPU has bf16.

    Raises:
        InputError: there is none, or it is bf16 on a CPU without it.
    """
    if not precision:
        return PRECISIONS if native_bf16() else ("fp32",)
    chosen = checked_precision(precision)
    # A CPU without it emulates bf16 in fp32, many times slower.
    if chosen == "bf16" and not native_bf16():
        raise InputError(
            "--precision bf16: this CPU has no bf16 of its own; its speed would mean nothing"
        )
    return (chosen,)


def taken_on(*packages: str) -> str:
    """How each account of a measurement begins: the CPU, and the versions that matter to it."""
    made = versions()
    named = "".join(f", {name} {made.get(name.lower())}" for name in packages)
    return f"Taken on {hardware()}, {usable_cpus()} CPUs{named}"


def rotated(items: list[Item], number: int) -> list[Item]:
    """The items in the order of round `number`: each round begins with the next of them.

    Whoever always came second would be measured on a warmer, or a more throttled, machine.
    """
    first = number % len(items)
    return items[first:] + items[:first]


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """The ratio of two contestants in each round: what slows a round down slows both."""
    return [a / b for a, b in zip(above, below, strict=True)]


def pixels_of(dataset: Dataset) -> str:
    """A dataset of small images in words, with their size."""
    return f"{dataset.spec.name} {dataset.spec.side}x{dataset.spec.side}"


def spread(values: Sequence[float], form: str) -> tuple[str, str]:
    """Median, and smallest to largest, as text."""
    return format(median(values), form), f"{min(values):{form}} to {max(values):{form}}"


def table(title: str, *columns: str) -> FittingTable:
    """An empty table whose first column is text and the others numbers."""
    return FittingTable(*columns, title=title, left=columns[:1])
