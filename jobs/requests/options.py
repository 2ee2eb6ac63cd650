"""Options that several commands share, and what their values come to.

Declared once, so that an option means, says and completes the same wherever it is taken. Each
command that takes one has a parameter of that type; defaults are the commands' own.
"""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.console.console import progress
from jobs.requests import completion
from jobs.requests.completion import completing
from jobs.requests.storage_failures import failures_in_one_line
from pipeline.errors import InputError, first_line, redacted
from pipeline.recipe.layers import Padding
from pipeline.runs.provenance import commit_trouble
from pipeline.storage import Storage

HARDWARE = "Workers and hardware"
MLFLOW = "MLflow"
"""Headings of `--help`, under which options stand that most commands are given without."""


class Device(StrEnum):
    """Where workers compute: `auto` is the GPU where the cluster has one."""

    AUTO = "auto"
    CPU = "cpu"
    GPU = "gpu"


ExperimentArgument = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT",
        help="One of `resnet-repro experiments`.",
        autocompletion=completing(completion.experiments),
    ),
]
NamesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="GRID|EXPERIMENT",
        help="Of those that `resnet-repro grids` and `resnet-repro experiments` list.",
        autocompletion=completing(completion.grids, completion.experiments),
    ),
]
AsOption = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="EXPERIMENT",
        help="The experiment whose network a weights file is for.",
        autocompletion=completing(completion.experiments),
    ),
]
PaddingOption = Annotated[
    Padding | None,
    typer.Option(
        help="Where a weights file made elsewhere has option A's zero channels; default: on both "
        "sides if its classifier is called linear, as in pytorch_resnet_cifar10."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print a list of objects, for scripts.")]
MOST_WORKERS = 65_536
"""Workers of a run, threads of a worker, and what else no cluster has more of."""
StorageOption = Annotated[
    str,
    typer.Option(
        "--storage",
        metavar="FOLDER|URI",
        help="Where datasets, runs and reports are: a folder that every node sees, or s3://...",
    ),
]


def dataset_option(default: str = "") -> Any:
    """`--data`, with what it is in words where it is not named."""
    return typer.Option(
        "--data",
        metavar="DATASET",
        help=f"A dataset's name or id, or a path to its files{default}.",
        autocompletion=completion.datasets,
    )


DataOption = Annotated[
    str | None, dataset_option("; default: the paper's for it, cifar10 or imagenet")
]
GridDataOption = Annotated[
    str | None,
    dataset_option("; default: the paper's for the experiments, cifar10 or imagenet; demo: digits"),
]
DatasetOption = Annotated[str, dataset_option()]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Change a field of the experiment; repeatable.",
        autocompletion=completing(completion.fields),
    ),
]
MOST_SEEDS = 1000
"""Of an experiment. A verdict needs ten at the most, and each is a folder and a run to plan."""
SeedOption = Annotated[
    int,
    typer.Option(
        "--seed",
        metavar="N",
        help="Decides initialisation, order and augmentation.",
        min=0,
        max=2**63 - 1,
    ),
]
SeedsOption = Annotated[
    int,
    typer.Option(
        "--seeds", metavar="K", help="Seeds 0..K-1 of each experiment.", min=1, max=MOST_SEEDS
    ),
]
TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
TrackingOption = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        help="MLflow server or sqlite:///FILE; default: MLFLOW_TRACKING_URI, or in the storage.",
        rich_help_panel=MLFLOW,
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="A Ray cluster's address; default: RAY_ADDRESS, or this machine.",
        rich_help_panel=HARDWARE,
    ),
]
DashboardOption = Annotated[
    str | None,
    typer.Option(
        "--dashboard",
        metavar="URI",
        help=(
            "The cluster's dashboard; default: RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or "
            "http://127.0.0.1:8265. RAY_AUTH_MODE and RAY_AUTH_TOKEN are honoured."
        ),
    ),
]
WorkersOption = Annotated[
    str,
    typer.Option(
        metavar="N|MIN:MAX",
        help=(
            "Workers of each run, a power of two: of CIFAR at most 2, of ImageNet 8. MIN:MAX takes "
            "as many as there is room for."
        ),
        rich_help_panel=HARDWARE,
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="CPU threads of each worker; default: the best total rate.",
        min=1,
        max=MOST_WORKERS,
        rich_help_panel=HARDWARE,
    ),
]
DeviceOption = Annotated[
    Device,
    typer.Option(help="Where workers compute; auto: on GPUs if any.", rich_help_panel=HARDWARE),
]


# What the values come to; each raises an InputError that names its option.


def workers_of(text: str) -> tuple[int, int]:
    """The fewest and the most workers that `--workers` asks for.

    Raises:
        InputError: not a number of workers, nor a range of them.
    """
    numbers = text.split(":")
    fewest = most = 0
    # Short ones: Python refuses to read a number of thousands of digits.
    if all(number.isdecimal() and len(number) <= 9 for number in numbers) and len(numbers) <= 2:
        fewest, most = int(numbers[0]), int(numbers[-1])
    if not 0 < fewest <= most <= MOST_WORKERS:
        raise InputError(f"--workers {text}: expected a number such as 2, or a range such as 2:8")
    return fewest, most


def warn_of_unknown_commit() -> None:
    """Say on standard error why results will not name their commit, where they will not."""
    if trouble := commit_trouble():
        print(f"warning: results will not say their commit: {trouble}", file=sys.stderr)


def writable(storage_uri: str) -> Storage:
    """The storage at a URI, tried by writing to it."""
    storage = Storage(storage_uri)
    storage.check_writable()
    return storage


def existing(storage_uri: str) -> Storage:
    """The storage at a URI, for commands that only read it.

    Raises:
        InputError: there is none, as where its name is misspelt.
    """
    storage = Storage(storage_uri)
    with failures_in_one_line(storage.uri):
        there = storage.exists("")
    if not there:
        raise InputError(
            f"--storage {storage.uri}: does not exist; `resnet-repro train`, `grid` and `data "
            "prepare` make one"
        )
    return storage


def tracking_of(tracking: str | None, storage: Storage) -> str:
    """The tracking store that is named, here or by MLflow's own variable; else the storage's own.

    Raises:
        InputError: it is no store, or none is named and the storage cannot hold one.
    """
    from jobs.tracking.store import configure_mlflow, default_tracking, tracking_uri

    configure_mlflow()
    if tracking is not None:
        return tracking_uri(tracking)
    return tracking_in_environment() or default_tracking(storage)


def tracking_in_environment() -> str | None:
    """The tracking store that MLflow's own variable names, said in a line; None without it.

    Raises:
        InputError: it names no store that we know.
    """
    from jobs.tracking.store import tracking_uri

    named = os.environ.get(TRACKING_VARIABLE)
    if not named:
        return None
    try:
        store = tracking_uri(named, TRACKING_VARIABLE)
    except InputError as error:
        raise InputError(f"{error}; name another by --tracking, or unset it") from error
    says = f"note: MLflow at {redacted(store)}, by {TRACKING_VARIABLE}; --tracking names another"
    print(says, file=sys.stderr)
    return store


def check_tracking(tracking: str, storage: Storage) -> None:
    """Open a tracking store.

    Raises:
        InputError: it cannot be opened now.
    """
    from analysis.measured.mlflow_export import DeletedExperimentError
    from jobs.tracking.server_check import tracking_trouble
    from jobs.tracking.store import open_store

    # Opening makes our experiment if need be, so it also shows whether we may write.
    try:
        open_store(tracking, storage)
    except DeletedExperimentError:  # it says itself what to do
        raise
    except Exception as error:  # whatever a server, a network or a database does
        # What the server itself says is shorter, and more to the point, than MLflow's client is.
        why = tracking_trouble(tracking).partition(":")[0] or first_line(error)
        raise InputError(
            f"--tracking {tracking}: MLflow cannot be used now ({why}); start it"
        ) from error


def manifest_named(storage: Storage, data: str) -> dict[str, Any]:
    """The manifest of the dataset that `data` names, prepared if need be, with progress shown."""
    from pipeline.data.preparation import is_path, resolve_dataset, source_notes

    # Named datasets that are there come back at once; others are fetched or read.
    with progress("preparing data") as report:
        manifest = resolve_dataset(storage, data, report)
    for note in source_notes(manifest, Path(data).expanduser()) if is_path(data) else ():
        print(f"note: {note}", file=sys.stderr)
    return manifest
