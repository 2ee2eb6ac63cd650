"""`resnet-repro status` and `clean`: what a storage holds, and what of it nobody needs any more."""

import json
from time import time
from typing import Annotated

import typer

from jobs.console.console import console
from jobs.requests.options import JsonOption, StorageOption
from jobs.requests.run_facts import run_facts, run_line
from pipeline.errors import InputError
from pipeline.recipe.overrides import title
from pipeline.recipe.schedule import milestone
from pipeline.runs.checkpoint import folder, iterations, newest_iteration
from pipeline.runs.lease import is_alive
from pipeline.runs.run import Run, read_result, stored_runs
from pipeline.storage import Storage


def status(storage_uri: StorageOption = "results", as_json: JsonOption = False) -> None:
    """Show what is running, finished, stopped or diverged, by the runs' own folders.

    Example: `resnet-repro status --storage results/demo --json`
    """
    now = int(1000 * time())
    storage = Storage(storage_uri)
    runs = stored_runs(storage)
    # One moment for all, so that ages can be compared.
    facts = [run_facts(storage, run, now) for run in runs]
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    print(f"{len(runs)} runs in {storage.uri}")
    shown = ""
    for run, fact in zip(runs, facts, strict=True):
        # Runs are sorted by experiment and dataset: a heading where either changes.
        group = f"{title(run.experiment)} on {run.dataset_key}"
        if group != shown:
            console.print(f"\n{group}", style="bold", highlight=False, markup=False)
            shown = group
        print(run_line(fact))
    if any(fact["state"] == "stopped" for fact in facts):
        print("stopped runs continue when their command is given again")


def clean(
    storage_uri: StorageOption = "results",
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
) -> None:
    """List what nobody needs any more, and delete it when told so.

    Deleted are the checkpoints of ended runs but for those at lr drops and at the end, and what Ray
    and verifications that found a difference left behind. Results, histories and final weights
    stay, and a run that has not ended loses nothing.
    Example: `resnet-repro clean --storage results/demo`
    """
    storage = Storage(storage_uri)
    runs = stored_runs(storage)
    # Only of runs that have ended: one that has not may resume from any checkpoint it has.
    spare = [
        path
        for run in runs
        if read_result(storage, run) is not None
        for path in _spare_checkpoints(storage, run)
    ]
    # Ray's folders belong to commands, not to runs: as long as any run lives, they may be in use.
    if not _any_alive(storage):
        spare += [f"ray/{name}" for name in storage.names("ray")]
    spare += [
        f"verify/{name}"
        for name in storage.names("verify")
        if not _any_alive(Storage(storage.uri_of(f"verify/{name}")))
    ]
    if not spare:
        print(f"nothing to clean in {storage.uri}")
        return
    for path in spare:
        print(f"{storage.path(path)}  ({storage.size(path) / 1e6:,.1f} MB)")
    # The list is printed first, so that what is agreed to is what is deleted.
    if not yes and not _agreed(f"delete these {len(spare)} folders?"):
        print("nothing was deleted")
        return
    for path in spare:
        storage.delete(path)
    print(f"deleted {len(spare)} folders")


def _any_alive(storage: Storage) -> bool:
    """Whether a run in it is being trained."""
    return any(
        read_result(storage, run) is None and is_alive(storage, run) for run in stored_runs(storage)
    )


def _spare_checkpoints(storage: Storage, run: Run) -> list[str]:
    """The checkpoints of a run that has ended which are neither at an lr drop nor the newest.

    The newest stays of a diverged run too: it holds all that the run has measured.
    """
    newest = newest_iteration(storage, run)
    return [
        folder(run, iteration)
        for iteration in sorted(iterations(storage, run))
        if iteration != newest and not milestone(run.experiment, iteration)
    ]


def _agreed(question: str) -> bool:
    if not console.is_terminal:
        raise InputError("clean asks before it deletes; off a terminal, say --yes")
    return typer.confirm(question)
