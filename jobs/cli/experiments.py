"""`resnet-repro experiments` and `grids`: what can be asked for by name, as a table or as JSON.

One experiment is shown whole: its layers, its recipe, the paper's errors, and the runs of it.
"""

import json
from dataclasses import asdict
from time import time
from typing import Annotated, Any

import typer

from analysis.paper.ledger import LEDGER, LEDGER_SWITCHES
from jobs.console.console import console
from jobs.console.tables import FittingTable
from jobs.grids.grids import ABOUT, grids
from jobs.requests.completion import completing
from jobs.requests.completion import experiments as names
from jobs.requests.options import JsonOption, StorageOption
from jobs.requests.storage_failures import failures_in_one_line
from pipeline.errors import InputError
from pipeline.recipe.experiments import EXPERIMENTS, Experiment
from pipeline.recipe.layers import layout
from pipeline.recipe.overrides import (
    papers_experiment,
    recipe_of,
    settable,
    title,
    value_text,
)
from pipeline.storage import Storage


def experiments(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="EXPERIMENT",
            show_default=False,
            help="Show this one whole; default: a table of all.",
            autocompletion=completing(names),
        ),
    ] = None,
    storage_uri: StorageOption = "results",
    as_json: JsonOption = False,
) -> None:
    """Show the paper's networks and recipes; of one its layers, recipe, errors and your runs.

    Examples:

    * `resnet-repro experiments`

    * `resnet-repro experiments resnet56 --storage results/demo`
    """
    if name is not None:
        return _show_one(papers_experiment(name), storage_uri, as_json)
    from analysis.tables.paper_errors import TEN_CROPS, TEST_ERROR

    # JSON has exact counts; the table rounds them as the paper does.
    rows = [_facts(experiment) for experiment in EXPERIMENTS.values()]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    # Text to the left, and what is compared between rows to the right.
    texts, numbers = ("name", "dataset"), ("params", "mult-adds", "iterations", "paper (%)")
    table = FittingTable(*texts, *numbers, title="The paper's experiments", left=texts)
    for row in rows:
        counts = [f"{row[key] / 1e6:,.2f}M" for key in ("params", "multiply_adds")]
        error = row["paper_errors"][0] if row["paper_errors"] else None
        cells = (row["name"], row["dataset"], *counts, f"{row['iterations']:,}")
        table.add_row(*cells, _short(error))
    console.print(table)
    print(f"paper (%): of cifar10 the {TEST_ERROR}, of imagenet the {TEN_CROPS}")
    print("`resnet-repro experiments NAME` shows layers, recipe, errors and your runs")


def _short(error: dict[str, Any] | None) -> str:
    """An error of the paper in a cell: of several runs their mean."""
    if error is None:
        return ""
    return str(error["printed"]) if error["number"] is None else f"{error['number']:.2f}"


def _show_one(experiment: Experiment, storage_uri: str, as_json: bool) -> None:
    """One experiment: what it is, what the paper says of it, and what the storage has."""
    from jobs.requests.run_facts import run_facts, run_line
    from pipeline.runs.lease import living
    from pipeline.runs.run import stored_runs

    storage, facts, found = Storage(storage_uri), _facts(experiment), []
    with failures_in_one_line(storage.uri):
        runs = [run for run in stored_runs(storage) if run.experiment.name == experiment.name]
        alive = living(storage, runs, certain=False)
        for run in runs:
            try:
                found.append((run, run_facts(storage, run, int(1000 * time()), run in alive)))
            except InputError:  # damaged: `status` says so
                continue
    if as_json:
        whole = facts | {"layers": _layers(experiment), "recipe": asdict(experiment)}
        print(json.dumps([whole | {"runs": [fact for _, fact in found]}], indent=1))
        return
    where = ", ".join(experiment.artifacts).replace("_", " ")
    print(f"{experiment.name}: {experiment.depth} layers, for {experiment.dataset} ({where})")
    columns = ("stage", "output", "blocks")
    table = FittingTable(*columns, left=columns)
    for layer in _layers(experiment):
        table.add_row(*layer.values())
    console.print(table)
    print(f"{facts['params']:,} parameters, {facts['multiply_adds']:,} multiply-adds an image")
    print("\nrecipe (what `--set` changes)")
    recipe, known = recipe_of(asdict(experiment)), settable()
    for field in (field for field in recipe if field in known):
        print(f"  {field:<19} {value_text(recipe[field])}")
    print("\nthe paper")
    for error in facts["paper_errors"]:
        print(f"  {error['printed']} % {error['of']} ({error['where']})")
    if not facts["paper_errors"]:
        print("  prints no error of it")
    print(f"\nyour runs in {storage.uri}")
    group = ""
    for run, fact in found:
        # Runs are sorted by recipe and dataset: a heading where either changes.
        if (heading := f"  {title(run.experiment)} on {run.dataset_key}") != group:
            print(group := heading)
        print(run_line(fact))
    if not found:
        print(f"  none; `resnet-repro train {experiment.name}` trains one")


def _layers(experiment: Experiment) -> list[dict[str, str]]:
    """The network's stages, as Table 1 has them: name, size of the output, blocks."""
    from analysis.tables.table_1 import stage_text

    plan = layout(experiment)
    stem, last = plan.stem, plan.classifier
    kernel = f"{stem.kernel}×{stem.kernel}, {stem.channels_out}"
    rows = [("conv1", stem.size_out, kernel + (f", stride {stem.stride}" * (stem.stride > 1)))]
    for number, stage in enumerate(plan.stages):
        pooled = "3×3 max pool, stride 2; " if plan.max_pool and not number else ""
        blocks = pooled + stage_text(plan, number)
        rows.append((f"conv{number + 2}_x", stage[-1].convs[-1].size_out, blocks))
    rows.append(("", 1, f"average pool, {last.channels_out}-d fc, softmax"))
    return [
        {"stage": name, "output": f"{side}×{side}", "blocks": blocks} for name, side, blocks in rows
    ]


def list_grids(as_json: JsonOption = False) -> None:
    """Show the grids that can be asked for by name, with their experiments.

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
    wrapping = ["shows", "experiments"]
    table = FittingTable("name", *wrapping, title="Grids", left=["name"], wrapping=wrapping)
    for name, rows in all_grids.items():
        shown = " ".join(rows) if len(rows) < 12 else f"{len(rows)} experiments"
        table.add_row(name, ABOUT[name], shown)
    console.print(table)


def _facts(experiment: Experiment) -> dict[str, Any]:
    # Tables load pandas, which `--help` need not wait for.
    from analysis.tables.paper_errors import paper_errors

    plan, errors = layout(experiment), [asdict(error) for error in paper_errors(experiment.name)]
    # JSON knows no NaN, which is a number that the paper does not give.
    for error in errors:
        error["number"] = error["number"] if error["number"] == error["number"] else None
    return {
        "name": experiment.name,
        "family": experiment.family,
        "dataset": experiment.dataset,
        "depth": experiment.depth,
        "block": experiment.block,
        "shortcut": experiment.shortcut,
        "params": plan.params,
        "multiply_adds": plan.multiply_adds,
        "iterations": experiment.iterations,
        "artifacts": list(experiment.artifacts),
        "paper_errors": errors,
    }
