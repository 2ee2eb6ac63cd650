"""What a budget buys: rows and seeds that cover most of the paper's cells, figures and claims."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from analysis.stats import MIN_SEEDS
from analysis.verdicts.claims import claim_experiments
from pipeline.recipe.experiments import EXPERIMENTS


@dataclass(frozen=True)
class Choice:
    """Rows with `seeds` seeds each, what they cost, and how much of the paper they cover."""

    rows: tuple[str, ...]
    seeds: int
    cost: float
    covered: tuple[str, ...]
    """Cells by their rows, figures and claims by their names."""


def coverage(rows: Iterable[str], seeds: int) -> tuple[str, ...]:
    """What of the paper these rows show: cells of tables, whole figures, and claims.

    A figure needs all of its rows; a claim also as many seeds as a verdict does.
    """
    chosen = set(rows)
    cells = [
        f"{where} {name}"
        for name in chosen
        for where in EXPERIMENTS[name].artifacts
        if where.startswith("table")
    ]
    figures = {
        where
        for experiment in EXPERIMENTS.values()
        for where in experiment.artifacts
        if where.startswith("figure")
    }
    whole = [figure for figure in figures if _rows_of(figure) <= chosen]
    # With fewer seeds than a verdict needs, a claim is shown and not judged.
    claims = [
        name
        for name, needed in _claims().items()
        if needed and {*needed} <= chosen and seeds >= MIN_SEEDS
    ]
    return tuple(sorted([*cells, *whole, *claims]))


def choose(cost: Mapping[str, Sequence[float]], budget: float) -> Choice:
    """The rows and seeds that cover most within a budget; `cost` has each seed's, 0 if it is done.

    For each number of seeds, what adds most for its cost is taken again and again: a row, or all
    that a claim or figure still lacks. Of choices that cover as much the one with more seeds is
    returned.
    """
    # From many seeds to few: max() keeps the first of those that cover as much.
    most = max(map(len, cost.values()))
    choices = [_with_seeds(cost, seeds, budget) for seeds in range(most, 0, -1)]
    return max(choices, key=lambda choice: len(choice.covered))


def _with_seeds(cost: Mapping[str, Sequence[float]], seeds: int, budget: float) -> Choice:
    def price(rows: Iterable[str]) -> float:
        return sum(sum(cost[name][:seeds]) for name in rows)

    # Greedy, as the exact choice is a knapsack with overlapping contents. A single row may cover
    # nothing by itself, so what a claim or a figure needs is offered as a bundle too.
    chosen: set[str] = set()
    bundles = [{name} for name in cost]
    bundles += [{*needed} for needed in _claims().values()]
    bundles += [
        _rows_of(where)
        for where in {where for name in cost for where in EXPERIMENTS[name].artifacts}
    ]
    # Only of rows that the grid has: a claim that needs another one cannot be bought here.
    bundles = [bundle for bundle in bundles if bundle and bundle <= cost.keys()]
    while True:
        room = budget - price(chosen)
        fitting = [
            bundle for bundle in bundles if bundle - chosen and price(bundle - chosen) <= room
        ]
        worth = _worth(chosen, seeds, price)
        best = max(fitting, key=worth, default=None)
        # Done: nothing that fits covers any more.
        if best is None or worth(best) <= 0:
            rows = tuple(name for name in cost if name in chosen)
            return Choice(rows, seeds, price(rows), coverage(rows, seeds))
        chosen |= best


def _worth(
    chosen: set[str], seeds: int, price: Callable[[Iterable[str]], float]
) -> Callable[[set[str]], float]:
    """How much more is covered for each unit of cost with a bundle of rows."""
    before = len(coverage(chosen, seeds))
    return lambda bundle: (
        (len(coverage(chosen | bundle, seeds)) - before) / max(price(bundle - chosen), 1e-9)
    )


def _claims() -> dict[str, tuple[str, ...]]:
    """The rows that each claim of either half of the paper needs."""
    return {**claim_experiments("cifar"), **claim_experiments("imagenet")}


def _rows_of(where: str) -> set[str]:
    return {name for name, experiment in EXPERIMENTS.items() if where in experiment.artifacts}
