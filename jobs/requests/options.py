"""Options that several commands share, and what their values come to.

Declared once, so that an option means, says and completes the same wherever it is taken. Each
command that takes one has a parameter of that type; defaults are the commands' own.
"""

import os
import sys
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from analysis.paper.ledger import LEDGER
from jobs.console.console import progress
from jobs.grids.grids import grids
from pipeline.data.catalogue.table import DATASETS
from pipeline.errors import InputError, first_line, redacted
from pipeline.recipe.experiments import EXPERIMENTS, MOST
from pipeline.recipe.layers import Padding
from pipeline.recipe.overrides import settable
from pipeline.runs.provenance import commit_trouble
from pipeline.storage import Storage


class Device(StrEnum):
    """Where workers compute: `auto` is the GPU where the cluster has one."""

    AUTO = "auto"
    CPU = "cpu"
    GPU = "gpu"


def completing(*sources: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """What a shell completes a word to: the names of the sources that begin with it."""

    # Read when a shell asks, not at import: grids and experiments are long lists.
    def complete(incomplete: str) -> list[str]:
        return [name for names in sources for name in names() if name.startswith(incomplete)]

    return complete


def _rows() -> Iterable[str]:
    return EXPERIMENTS


def _grids() -> Iterable[str]:
    return [*grids(), LEDGER]


ExperimentArgument = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT",
        help="A row of `resnet-repro experiments`.",
        autocompletion=completing(_rows),
    ),
]
NamesArgument = Annotated[
    list[str],
    typer.Argument(
        help="Grids (`resnet-repro grids` lists them) or rows of `resnet-repro experiments`.",
        autocompletion=completing(_grids, _rows),
    ),
]
AsOption = Annotated[
    str | None,
    typer.Option(
        "--as",
        help="The row whose network a weights file is for.",
        autocompletion=completing(_rows),
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
    str, typer.Option("--storage", help="Folder or URI that every node can write (s3://...).")
]
DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        help="A dataset's name or id, or a path to its files.",
        autocompletion=completing(lambda: DATASETS),
    ),
]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set",
        help=(
            "Change a field of the row: FIELD=VALUE, repeatable; on `grid` FIELD=A,B,C sweeps it "
            "(lists such as lr_drops: with ;)."
        ),
        autocompletion=completing(lambda: [f"{field}=" for field in settable()]),
    ),
]
IterationsOption = Annotated[
    int | None,
    typer.Option(
        help="Train this long instead, the schedule in proportion.", max=MOST["iterations"]
    ),
]
MOST_SEEDS = 1000
"""Of a row. A verdict needs ten at the most, and each is a folder and a run to plan."""
SeedOption = Annotated[
    int,
    typer.Option(
        "--seed", help="Decides initialisation, order and augmentation.", min=0, max=2**63 - 1
    ),
]
SeedsOption = Annotated[
    int, typer.Option("--seeds", help="Seeds 0..K-1 of each row.", min=1, max=MOST_SEEDS)
]
TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
TrackingOption = Annotated[
    str | None,
    typer.Option(
        help="MLflow server or sqlite:///FILE; default: MLFLOW_TRACKING_URI, or in the storage."
    ),
]
RequireTrackingOption = Annotated[
    bool,
    typer.Option(
        "--require-tracking", help="Refuse to start while MLflow is away; else it costs a warning."
    ),
]
AddressOption = Annotated[
    str | None, typer.Option(help="A Ray cluster's address; default: RAY_ADDRESS, or this machine.")
]
DashboardOption = Annotated[
    str | None,
    typer.Option(
        "--dashboard",
        help=(
            "The cluster's dashboard; default: RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or "
            "http://127.0.0.1:8265. RAY_AUTH_MODE and RAY_AUTH_TOKEN are honoured."
        ),
    ),
]
WorkersOption = Annotated[
    str,
    typer.Option(
        help=(
            "Ray Train workers of each run, a power of two; MIN:MAX takes as many as there is room "
            "for."
        )
    ),
]
DriftOption = Annotated[
    bool,
    typer.Option(
        "--allow-drift",
        help="Continue runs begun under another commit, version or CPU; marks them.",
    ),
]
AnyKernelsOption = Annotated[
    bool,
    typer.Option(
        "--no-deterministic",
        help="On GPUs: also kernels that may give other bytes the next time; recorded.",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        help="CPU threads of each worker; default: the best total rate.", min=1, max=MOST_WORKERS
    ),
]
DeviceOption = Annotated[Device, typer.Option(help="Where workers compute.")]
GpusOption = Annotated[
    float,
    typer.Option(
        help=(
            "GPUs of each worker. With a fraction several runs share one; without NVIDIA's MPS "
            "they take turns, which gains nothing (see `doctor`)."
        ),
        min=0.01,
        max=1024,
    ),
]
RunsPerGpuOption = Annotated[
    int | None,
    typer.Option(
        "--runs-per-gpu",
        min=1,
        max=MOST_WORKERS,
        help=(
            "Runs that a worker trains at once, each with the bytes that it has alone; default: "
            "as many as fill the GPU, found by a short probe. On a CPU: 1."
        ),
    ),
]
OnePassOption = Annotated[
    bool,
    typer.Option(
        "--one-pass",
        help=(
            "All batch-norm groups of a worker in one pass: for GPUs, not byte-exact across "
            "numbers of workers."
        ),
    ),
]
CompileOption = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Fuse kernels with torch's compiler: for ImageNet on GPUs, not byte-exact.",
    ),
]
StopAfterOption = Annotated[
    float | None,
    typer.Option(
        "--stop-after",
        min=0.1,
        max=10_000_000,
        metavar="MINUTES",
        help="Save and end after so long, with exit code 75; given again, it continues.",
    ),
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Print the resolved rows and where everything would go; start nothing."
    ),
]
CheckpointOption = Annotated[
    float, typer.Option(help="Seconds between checkpoints; 0: each iteration.", min=0, max=1e9)
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
