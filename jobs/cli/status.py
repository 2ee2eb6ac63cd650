"""`resnet-repro status` and `clean`: what a storage holds, and what of it nobody needs any more."""

import json
import sys
from time import time
from typing import Annotated

import typer

from jobs.console.console import console
from jobs.requests.leftovers import leftovers
from jobs.requests.options import JsonOption, StorageOption, existing
from jobs.requests.run_facts import run_facts, run_line
from jobs.requests.storage_failures import failures_in_one_line
from jobs.tracking.imported_bundles import bundle_names
from pipeline.errors import InputError, first_line
from pipeline.recipe.overrides import title
from pipeline.recipe.schedule import milestone
from pipeline.runs.checkpoint import folder, iterations, newest_iteration
from pipeline.runs.lease import living
from pipeline.runs.run import Run, read_result, stored_runs
from pipeline.storage import Storage


def status(storage_uri: StorageOption = "results", as_json: JsonOption = False) -> None:
    """Show what is running, finished, stopped or diverged, by the runs' own folders.

    Example: `resnet-repro status --storage results/demo --json`
    """
    now = int(1000 * time())
    storage = existing(storage_uri)
    damaged: list[str] = []
    runs, facts = [], []
    with failures_in_one_line(storage.uri):
        stored = stored_runs(storage, damaged.append)
        alive = living(storage, stored, certain=False)
        for run in stored:
            # One that cannot be read does not hide the others.
            try:
                # One moment for all, so that ages can be compared.
                facts.append(run_facts(storage, run, now, run in alive))
                runs.append(run)
            except (InputError, PermissionError) as error:
                damaged.append(f"{run}: {first_line(error)}")
    _name_damaged(damaged)
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    print(f"{len(runs)} runs in {storage.uri}")
    if not stored:
        # Such as results/demo, where `make demo` trains, to whoever asks about results.
        with failures_in_one_line(storage.uri):
            below = [name for name in storage.folders("") if storage.exists(f"{name}/runs")]
        for name in below:
            print(f"--storage {storage.uri_of(name)} has runs")
    if bundles := len(bundle_names(storage)):
        count = "1 bundle" if bundles == 1 else f"{bundles} bundles"
        print(f"{count} of `results import`: reports are about the runs in there too")
    shown = ""
    for run, fact in zip(runs, facts, strict=True):
        # Runs are sorted by experiment and dataset: a heading where either changes.
        group = f"{title(run.experiment)} on {run.dataset_key}"
        if group != shown:
            console.print(f"\n{group}", style="bold", highlight=False, markup=False, soft_wrap=True)
            shown = group
        print(run_line(fact))
    if any(fact["state"] == "stopped" for fact in facts):
        print("stopped runs continue when their command is given again")


def _name_damaged(damaged: list[str]) -> None:
    """Say on standard error which runs cannot be read, a line each."""
    for what in damaged:
        print(f"damaged: {what}", file=sys.stderr, flush=True)


def clean(
    storage_uri: StorageOption = "results",
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
) -> None:
    """List what nobody needs any more, and delete it when told so.

    Deleted are the checkpoints of ended runs but for those at lr drops and at the end, and what
    Ray, verifications that found a difference and commands that were killed left behind. Results,
    histories and final weights stay, and a run that has not ended loses nothing.
    Example: `resnet-repro clean --storage results/demo`
    """
    storage = existing(storage_uri)
    with failures_in_one_line(storage.uri):
        spare = _spare(storage)
    if not spare:
        print(f"nothing to clean in {storage.uri}")
        return
    for path in spare:
        size = storage.file_size(path)
        size = storage.size(path) if size is None else size
        print(f"{storage.path(path)}  ({size / 1e6:,.1f} MB)")
    # The list is printed first, so that what is agreed to is what is deleted.
    if not yes and not _agreed(f"delete these {len(spare)} folders and files?"):
        print("nothing was deleted")
        return
    with failures_in_one_line(storage.uri):
        for path in spare:
            storage.delete(path)
    print(f"deleted {len(spare)} folders and files")


def _spare(storage: Storage) -> list[str]:
    """What nobody needs any more; runs that are damaged are named, and keep all that they have."""
    damaged: list[str] = []
    spare: list[str] = []
    for run in stored_runs(storage, damaged.append):
        # Only of runs that have ended: one that has not may resume from any checkpoint it has.
        try:
            ended = read_result(storage, run) is not None
            spare += _spare_checkpoints(storage, run) if ended else []
        except InputError as error:
            damaged.append(f"{run}: {error}")
    _name_damaged(damaged)
    # Ray's folders belong to commands, not to runs: as long as any run lives, they may be in use.
    if not _any_alive(storage):
        spare += [f"ray/{name}" for name in storage.folders("ray")]
    spare += [
        f"verify/{name}"
        for name in storage.folders("verify")
        if not _any_alive(Storage(storage.uri_of(f"verify/{name}")))
    ]
    return spare + leftovers(storage)


def _any_alive(storage: Storage) -> bool:
    """Whether a run in it is being trained."""
    left = [run for run in stored_runs(storage) if not _has_ended(storage, run)]
    return bool(living(storage, left))


def _has_ended(storage: Storage, run: Run) -> bool:
    try:
        return read_result(storage, run) is not None
    except InputError:  # damaged: it may be going on
        return False


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
