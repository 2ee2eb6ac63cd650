"""`resnet-repro experiments` and `grids`: what can be asked for by name, as a table or as JSON."""

import json
from typing import Any

from analysis.paper.ledger import LEDGER, LEDGER_SWITCHES
from jobs.console.console import console
from jobs.console.tables import FittingTable
from jobs.grids.grids import ABOUT, grids
from jobs.requests.options import JsonOption
from pipeline.recipe.experiments import EXPERIMENTS, Experiment
from pipeline.recipe.layers import layout


def experiments(as_json: JsonOption = False) -> None:
    """Show every configuration of the paper.

    Example: `resnet-repro experiments --json`
    """
    # JSON has exact counts; the table rounds them as the paper does.
    rows = [_facts(experiment) for experiment in EXPERIMENTS.values()]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    # Text to the left, and what is compared between rows to the right.
    texts, numbers = ("name", "shortcut", "block"), ("params", "mult-adds", "iterations")
    table = FittingTable(
        *texts,
        *numbers,
        "in the paper",
        title="The paper's configurations",
        left=texts,
        wrapping=["in the paper"],
    )
    for row in rows:
        counts = [f"{row[key] / 1e6:,.2f}M" for key in ("params", "multiply_adds")]
        names = (row["name"], row["shortcut"], row["block"])
        where = ", ".join(row["artifacts"]).replace("_", " ")
        table.add_row(*names, *counts, f"{row['iterations']:,}", where)
    console.print(table)


def list_grids(as_json: JsonOption = False) -> None:
    """Show the grids that can be asked for by name, with their rows.

    Example: `resnet-repro grids`, then `resnet-repro grid figure7 --dry-run`
    """
    # The ledger is no row of `grids()`: it is a sweep, made of switches when it is asked for.
    switched = tuple(dict.fromkeys(switch.experiment for switch in LEDGER_SWITCHES))
    all_grids = grids() | {LEDGER: switched}
    if as_json:
        facts = [
            {"name": name, "shows": ABOUT[name], "rows": list(rows)}
            for name, rows in all_grids.items()
        ]
        print(json.dumps(facts, indent=1))
        return
    table = FittingTable(
        "name", "shows", "rows", title="Grids", left=["name"], wrapping=["shows", "rows"]
    )
    for name, rows in all_grids.items():
        table.add_row(name, ABOUT[name], " ".join(rows) if len(rows) < 12 else f"{len(rows)} rows")
    console.print(table)


def _facts(experiment: Experiment) -> dict[str, Any]:
    plan = layout(experiment)
    return {
        "name": experiment.name,
        "family": experiment.family,
        "depth": experiment.depth,
        "block": experiment.block,
        "shortcut": experiment.shortcut,
        "params": plan.params,
        "multiply_adds": plan.multiply_adds,
        "iterations": experiment.iterations,
        "artifacts": list(experiment.artifacts),
    }
