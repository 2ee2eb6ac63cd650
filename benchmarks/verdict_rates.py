"""How often verdicts are wrong, and how often they find what is there: simulated studies.

The tests are those of reports (`analysis.stats`), on thousands of studies at once whose truth is
known. Deviations are in units of one run's, or 0.16 points where a margin is in points: the one
deviation that the paper states. `bench verdicts` writes the tables of `docs/verdicts.md`.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from math import inf, sqrt
from pathlib import Path

import numpy as np

from analysis.paper.reported import PLANNED_STD
from analysis.power import POWER, detectable_ordering, power_of_cell
from analysis.stats import (
    INTERIM_SEEDS,
    LEVEL,
    Floats,
    StudentEstimate,
    of_distance,
    of_mean,
    p_ordering,
    p_within,
)
from analysis.verdicts.words import Qualifier, Verdict
from pipeline.errors import InputError

DRAWS = 20_000
SIZES = ((3, 3), (3, 5), (3, 10), (5, 5), (5, 10), (10, 10))
SPREADS = (1, 3, 100)
LOOK = LEVEL / len(INTERIM_SEEDS)
MARGINS = (0.25, 0.3, 0.35, 0.5, 0.55, 0.6, 0.65, 0.7)


@dataclass(frozen=True)
class OrderingRates:
    """Shares of studies in which the first row was found to be higher, by each test and by both."""

    permutation: float
    welch: float
    both: float


def share(p: Floats, level: Fraction = LEVEL) -> float:
    """The share of studies whose p reaches the level."""
    return float((p <= float(level) + 1e-12).mean())


def ordering_rates(
    sizes: tuple[int, int],
    spreads: tuple[float, float] = (1, 1),
    shift: float = 0.0,
    level: Fraction = LEVEL,
    draws: int = DRAWS,
    seed: int = 1,
) -> OrderingRates:
    """Of studies of two normal rows, the first higher by `shift`, how many find it higher."""
    rng = np.random.default_rng(seed)
    first = rng.normal(shift, spreads[0], (draws, sizes[0]))
    second = rng.normal(0.0, spreads[1], (draws, sizes[1]))
    tests = p_ordering(first, second)
    return OrderingRates(
        share(tests.exact, level), share(tests.welch, level), share(tests.both, level)
    )


@dataclass(frozen=True)
class CellRates:
    """Shares of studies in which a cell was within the margin, and in which it was outside."""

    reproduced: float
    contradicted: float


def cell_rates(
    n: int,
    offset: float,
    margin: float,
    level: Fraction = LEVEL,
    runs: int = 1,
    paper_std: float = PLANNED_STD,
    widened: bool = True,
    draws: int = DRAWS,
    seed: int = 2,
) -> CellRates:
    """Of studies whose true mean is `offset` from the paper's true mean, how a cell turns out.

    The paper's number is drawn too: the mean of `runs` runs. Without `widened` it is taken for the
    truth.
    """
    rng = np.random.default_rng(seed)
    ours = rng.normal(offset, PLANNED_STD, (draws, n))
    theirs = rng.normal(0.0, paper_std, (draws, runs))
    printed = theirs.mean(1)
    if not widened:
        mean = of_mean(ours)
        estimate = StudentEstimate(mean.value - printed, mean.error, mean.freedom)
    elif runs > 1:
        estimate = of_distance(ours, printed, runs, theirs.std(1, ddof=1))
    else:
        estimate = of_distance(ours, printed)
    p, p_against = p_within(estimate, (-margin, margin))
    return CellRates(share(p, level), share(p_against, level))


def looks_rate(offset: float, margin: float, draws: int = DRAWS, seed: int = 3) -> float:
    """How often any of the interim analyses calls a cell reproduced; the paper had one run."""
    rng = np.random.default_rng(seed)
    ours = rng.normal(offset, PLANNED_STD, (draws, INTERIM_SEEDS[-1]))
    printed = rng.normal(0.0, PLANNED_STD, draws)
    reached = np.zeros(draws, dtype="bool")
    for seeds in INTERIM_SEEDS:
        p, _ = p_within(of_distance(ours[:, :seeds], printed), (-margin, margin))
        reached |= p <= float(LOOK)
    return float(reached.mean())


def admissible(margin: float, runs: int = 1) -> bool:
    """Whether ten seeds find a network that equals the paper's within a margin often enough."""
    known = PLANNED_STD if runs > 1 else None
    return power_of_cell(PLANNED_STD, 10, margin, LEVEL, runs, known) >= POWER


def tables(draws: int = DRAWS) -> dict[str, str]:
    """The tables of `docs/verdicts.md` in Markdown, by name."""
    return {
        "words": _words(),
        "qualifiers": _qualifiers(),
        "orderings": _orderings(draws),
        "ordering power": _ordering_power(draws),
        "cells": _cells(draws),
        "margins": _margins(),
    }


def _words() -> str:
    return _table(
        ["verdict", "what it says"], [[f"*{name.value}*", name.meaning] for name in Verdict]
    )


def _qualifiers() -> str:
    return _table(
        ["beside it", "what it says"], [[f"*{name.value}*", name.meaning] for name in Qualifier]
    )


def _orderings(draws: int) -> str:
    rows = []
    for sizes in SIZES:
        # Random splits of ten against ten take long, and change slowly.
        few = draws if sum(sizes) < 15 else max(1, draws // 4)
        cells = []
        for ratio in SPREADS:
            # The worse way round: the smaller row may scatter more, or less.
            both_ways = [
                ordering_rates(sizes, spreads, draws=few) for spreads in ((ratio, 1), (1, ratio))
            ]
            alone = max(rates.permutation for rates in both_ways)
            both = max(rates.both for rates in both_ways)
            cells.append(f"{_percent(both)} ({_percent(alone)})")
        rows.append([f"{sizes[0]} and {sizes[1]}", *cells])
    heads = ["seeds", *(f"spread {ratio} to 1" for ratio in SPREADS)]
    return _table(heads, rows)


def _ordering_power(draws: int) -> str:
    rows = []
    for n in (3, 4, 5, 10):
        # A row whose deviation is exactly 1, whatever its mean.
        row = np.linspace(-1, 1, n)
        row = (row / row.std(ddof=1)).tolist()
        cells = []
        for level in (LEVEL, LOOK):
            shift = detectable_ordering(row, row, level)
            if shift == inf:
                cells += ["never", "–"]
                continue
            few = draws if n < 8 else max(1, draws // 4)
            power = ordering_rates((n, n), shift=shift, level=level, draws=few, seed=4).both
            cells += [f"{shift:.2f} ({shift * PLANNED_STD:.2f})", _percent(power)]
        rows.append([f"{n} and {n}", *cells])
    heads = ["seeds", "seen at 5 %", "simulated power", "seen at 2.5 %", "simulated power"]
    return _table(heads, rows)


def _cells(draws: int) -> str:
    rows = []
    for runs, margin in ((1, 0.55), (5, 0.3)):
        for n in (3, 5, 10):
            rates = partial(cell_rates, n, margin=margin, runs=runs, draws=draws)
            edge, equal, far = (rates(offset) for offset in (margin, 0.0, 2 * margin))
            printed = rates(margin, widened=False)
            wider = rates(margin, paper_std=2 * PLANNED_STD)
            rows.append(
                [
                    f"{runs}, ±{margin:g}",
                    str(n),
                    _percent(edge.reproduced),
                    _percent(edge.contradicted),
                    _percent(wider.reproduced),
                    _percent(printed.reproduced),
                    _percent(equal.reproduced),
                    _percent(far.contradicted),
                ]
            )
    heads = ["paper's runs, margin", "seeds", "falsely reproduced", "falsely contradicted"]
    heads += ["reproduced, if the paper's runs scatter twice as much"]
    heads += ["reproduced, if its number were taken for the truth"]
    heads += ["power, an equal network", "power against one two margins away"]
    return _table(heads, rows)


def _margins() -> str:
    rows = []
    for margin in MARGINS:
        cells = []
        for runs in (1, 5):
            known = PLANNED_STD if runs > 1 else None
            for n, level in ((5, LEVEL), (10, LEVEL), (10, LOOK)):
                cells.append(_percent(power_of_cell(PLANNED_STD, n, margin, level, runs, known)))
        rows.append([f"±{margin:g}", *cells])
    heads = ["margin"]
    for words in ("one run", "five runs"):
        heads += [f"{words}: 5 seeds", f"{words}: 10 seeds", f"{words}: 10 seeds, with looks"]
    return _table(heads, rows)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def with_tables(text: str, made: dict[str, str]) -> str:
    """A document with the tables between its marks `<!-- table: NAME -->` and `<!-- end -->`.

    Raises:
        InputError: a mark is missing.
    """
    for name, table in made.items():
        start, end = f"<!-- table: {name} -->\n", "<!-- end -->"
        before, found, rest = text.partition(start)
        _, ended, after = rest.partition(end)
        if not found or not ended:
            raise InputError(f"no place for the table {name}: expected {start.strip()} and {end}")
        text = f"{before}{start}\n{table}\n{end}{after}"
    return text


def bench(document: Path | None, draws: int) -> None:
    """Print the tables, or put them into a document."""
    made = tables(draws)
    if document is None:
        for name, table in made.items():
            print(f"{name}\n\n{table}")
        return
    try:
        document.write_text(with_tables(document.read_text(), made))
    except OSError as error:
        raise InputError(f"--document {document}: {error.strerror or error}") from error
    print(f"{document}: {len(made)} tables, of {draws:,} studies each")


def standard_error(rate: float, draws: int) -> float:
    """Of a share that was simulated: binomial."""
    return sqrt(rate * (1 - rate) / draws)
