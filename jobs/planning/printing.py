"""A plan as a person reads it, and as a script does."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from jobs.console.console import console
from jobs.console.durations import duration
from jobs.console.tables import FittingTable
from jobs.planning.budget import Choice, choose
from jobs.planning.estimate import Estimate, Plan
from pipeline.recipe.experiments import Experiment
from pipeline.runs.run import Run


@dataclass(frozen=True)
class BudgetChoice:
    """What a budget buys: of money, or of unit-hours where there is no price."""

    budget: float
    choice: Choice


def chosen(made: Plan, asked: Iterable[Run], budget: float) -> BudgetChoice:
    """What the budget buys: of a row, seeds that are done cost nothing."""
    # Without a price an hour of a unit is the currency.
    price = 1.0 if made.cluster.price is None else made.cluster.price
    left = {each.run: each.hours * price for each in made.runs}
    cost = dict[str, list[float]]()
    for run in sorted(asked, key=lambda run: run.seed):
        cost.setdefault(run.experiment.name, []).append(left.get(run, 0.0))
    return BudgetChoice(budget, choose(cost, budget))


def show(made: Plan, bought: BudgetChoice | None) -> None:
    """Print a table of the rows, and what they come to."""
    unit, cluster = made.cluster.kind, made.cluster
    low, high = made.interval
    console.print(_table(made))
    # The whole cluster is paid for while the grid lasts, also what no worker fits into.
    of_all = f" of {cluster.paid:g}" if cluster.paid != cluster.units else ""
    lines = [
        ("cluster", f"{cluster.units:g} {unit}{of_all}"),
        ("wall time", f"{_time(made.seconds)} ({_time(low)} to {_time(high)})"),
        (
            f"{unit}-hours",
            f"{made.hours:,.1f} of training in {cluster.paid * made.seconds / 3600:,.1f}",
        ),
    ]
    # The interval is the wall time's: money follows from it.
    if made.cost is not None:
        between = f"{made.cost * low / made.seconds:,.2f} to {made.cost * high / made.seconds:,.2f}"
        lines.append(("cost", f"{made.cost:,.2f} ({between})"))
    lines += [
        ("critical path", f"{_time(made.runs[0].seconds)}: {made.runs[0].run}"),
        ("lower bound", f"{_time(made.bound)}; {made.gap or 'met'}"),
        ("order", _order(made)),
    ]
    if made.how:
        lines.insert(1, ("with", made.how))
    if len(made.by_pack) > 1:
        ways = ", ".join(f"{count}: {_time(took)}" for count, took in made.by_pack.items())
        lines.insert(3, ("runs a GPU", ways))
    if bought is not None:
        lines.append(("budget", _bought(bought, made)))
    for what, says in lines:
        print(f"{what:<13} {says}")


def facts(made: Plan, bought: BudgetChoice | None) -> dict[str, Any]:
    """All of it for a script; seconds, unit-hours, and money where there is a price."""
    low, high = made.interval
    # A plan without runs has no cluster to be placed on.
    starts = made.placement.starts if made.runs else ()
    choice = bought.choice if bought else None
    known = {str(each.run): each.rate for each in made.runs}
    return {
        "left": len(made.runs),
        "units": made.cluster.units,
        "kind": made.cluster.kind,
        "seconds": made.seconds,
        "low": low,
        "high": high,
        "hours": made.hours,
        "cost": made.cost,
        "lower_bound": made.bound,
        "gap": made.gap,
        "how": made.how,
        "by_runs_per_gpu": {str(count): took for count, took in made.by_pack.items()},
        "order": [
            {
                "run": trial.name,
                "start": start,
                "seconds": trial.seconds,
                "units": trial.units,
                "known_by": known[trial.name].source,
                "limited_by": known[trial.name].limit,
            }
            for start, trial in starts
        ],
        "choice": choice
        and {
            "rows": choice.rows,
            "seeds": choice.seeds,
            "cost": choice.cost,
            "covered": choice.covered,
        },
    }


def _table(made: Plan) -> FittingTable:
    """A line a row: runs left, time of each, unit-hours and their price, and how that is known."""
    price, unit = made.cluster.price, made.cluster.kind
    names = ["row", "left", "each", f"{unit}s", f"{unit}-hours", "known by"]
    if price is not None:
        names.insert(-1, "cost")
    limited = any(each.rate.limit for each in made.runs)
    if limited:
        names.append("limited by")
    table = FittingTable(*names, left=["row"], wrapping=["known by", "limited by"])
    by_experiment = dict[Experiment, list[Estimate]]()
    for each in made.runs:
        by_experiment.setdefault(each.run.experiment, []).append(each)
    # Seeds of a row differ only in what is left of them: the longest stands for all.
    for experiment, estimates in by_experiment.items():
        longest, hours = estimates[0], sum(each.hours for each in estimates)
        cells = [
            experiment.name,
            str(len(estimates)),
            _time(longest.seconds),
            f"{longest.units:g}",
            f"{hours:,.2f}",
        ]
        if price is not None:
            cells.append(f"{hours * price:,.2f}")
        cells.append(longest.rate.source)
        if limited:
            cells.append(longest.rate.limit)
        table.add_row(*cells)
    return table


def _order(made: Plan) -> str:
    """Rows by their first start, with how many of each."""
    counts = Counter(each.run.experiment.name for each in made.runs)
    return "longest first: " + ", ".join(f"{name} x{count}" for name, count in counts.items())


def _bought(bought: BudgetChoice, made: Plan) -> str:
    unit = "" if made.cluster.price is not None else f" {made.cluster.kind}-hours"
    choice = bought.choice
    if not choice.rows:
        return f"{bought.budget:,.2f}{unit} buys no row that is left"
    covered = f"{len(choice.covered)} cells, figures and claims"
    return f"{choice.cost:,.2f}{unit} for {covered}: {' '.join(choice.rows)} --seeds {choice.seeds}"


def _time(seconds: float) -> str:
    """A duration, in days from two days on."""
    return f"{seconds / 86400:,.1f} days" if seconds >= 48 * 3600 else duration(seconds)
