"""What a shell completes names to: experiments, grids, datasets, stored runs, commands.

Read when a shell asks, never at import. A storage is only looked into where it is a folder: nobody
waits for a bucket while typing. What cannot be read completes to nothing.
"""

import glob
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

from analysis.paper.ledger import LEDGER
from jobs.grids.grids import ABOUT
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.metrics import PROTOCOLS
from pipeline.recipe.overrides import settable


def completing(*sources: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """The names of the sources that begin with a word."""

    def complete(incomplete: str) -> list[str]:
        return [name for names in sources for name in names() if name.startswith(incomplete)]

    return complete


def experiments() -> Iterable[str]:
    """The rows of the paper."""
    return EXPERIMENTS


def grids() -> Iterable[str]:
    """The grids by name, the ledger with them."""
    return dict.fromkeys([*ABOUT, LEDGER])


def fields() -> Iterable[str]:
    """What `--set` takes, up to the value."""
    return [f"{field}=" for field in settable()]


def protocols() -> Iterable[str]:
    """How photographs are tested."""
    return [*PROTOCOLS, "all"]


def known_datasets() -> Iterable[str]:
    """The datasets that are known by name."""
    from pipeline.data.catalogue.table import DATASETS

    return DATASETS


def datasets(context: typer.Context, incomplete: str) -> list[str]:
    """Datasets that are known by name, and others that are prepared in the storage."""
    names = dict.fromkeys([*known_datasets(), *_prepared(context)])
    return [name for name in names if name.startswith(incomplete)]


def prepared_datasets(context: typer.Context, incomplete: str) -> list[str]:
    """Datasets that are prepared in the storage."""
    return [name for name in dict.fromkeys(_prepared(context)) if name.startswith(incomplete)]


def runs(context: typer.Context, incomplete: str) -> list[str]:
    """Stored runs by their experiment, and by their folder where the word begins like one."""
    place = _folder(context) / "runs"
    names = sorted(
        {folder.name.rpartition("-")[0] for folder in place.glob("*-*") if folder.is_dir()}
    )
    if incomplete.startswith("runs/"):
        names = sorted(f"runs/{run.relative_to(place)}" for run in place.glob("*/*/seed-*"))
    return [name for name in names if name.startswith(incomplete)]


def runs_or_weights(context: typer.Context, incomplete: str) -> list[str]:
    """Stored runs, or files of weights on this machine and the folders on the way to them."""
    from jobs.requests.stored_runs import WEIGHTS_SUFFIXES

    found = [Path(path) for path in sorted(glob.glob(f"{glob.escape(incomplete)}*"))]
    files = [f"{path}/" for path in found if path.is_dir()]
    files += [str(path) for path in found if path.suffix in WEIGHTS_SUFFIXES]
    return [*runs(context, incomplete), *files]


def cluster_jobs(context: typer.Context, incomplete: str) -> list[str]:
    """Jobs of the cluster whose dashboard is named, or is that of the environment."""
    from jobs.execution.submission import job_ids

    ids = job_ids(context.params.get("dashboard"))
    return [job for job in ids if job.startswith(incomplete)]


def commands(named: Iterable[str]) -> Callable[..., list[str]]:
    """One of these commands, and then what that completes its arguments and values to."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        words = [*(context.params.get("command") or ())]
        if not words:
            return [name for name in named if name.startswith(incomplete)]
        return _of_command(context, context.find_root().command, words, incomplete)

    return complete


def _of_command(
    context: typer.Context, command: Any, words: list[str], incomplete: str
) -> list[str]:
    """What a command completes a word to that comes after these, of which the first names it."""
    while hasattr(command, "commands"):
        if not words:
            return [name for name in command.commands if name.startswith(incomplete)]
        if words[0] not in command.commands:
            return []
        command, words = command.commands[words[0]], words[1:]
    inner = command.make_context("", words.copy(), parent=context, resilient_parsing=True)
    # The value of an option that was just named, or the next argument.
    option = next((each for each in command.params if words and words[-1] in each.opts), None)
    if option is None or option.is_flag:
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        option = next((each for each in arguments if each.nargs == -1), *arguments[:1])
    return [str(item.value) for item in option.shell_complete(inner, incomplete)] if option else []


def _folder(context: typer.Context) -> Path:
    """The storage that is named so far, or the default one; nowhere for a bucket."""
    named = str(context.params.get("storage_uri") or context.params.get("storage") or "results")
    return Path("/dev/null" if "://" in named else named).expanduser()


def _prepared(context: typer.Context) -> Iterator[str]:
    from pipeline.data.stored import stored_manifests
    from pipeline.errors import InputError
    from pipeline.storage import Storage

    folder = _folder(context)
    if folder.is_dir():
        with suppress(InputError, OSError):
            yield from (
                manifest["row"]["name"] for manifest in stored_manifests(Storage(str(folder)))
            )
