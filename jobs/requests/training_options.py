"""Options of the commands that train and of `plan`, which reckons with them."""

from typing import Annotated

import typer

from jobs.requests import completion
from jobs.requests.completion import completing
from jobs.requests.options import HARDWARE, MLFLOW, MOST_WORKERS
from pipeline.recipe.experiments import MOST

CONTINUING = "Saving and continuing"
"""A heading of `--help`, as those of `jobs.requests.options`."""

RequireTrackingOption = Annotated[
    bool,
    typer.Option(
        "--require-tracking",
        help="Refuse to start while MLflow is away; else it costs a warning.",
        rich_help_panel=MLFLOW,
    ),
]
DriftOption = Annotated[
    bool,
    typer.Option(
        "--allow-drift",
        help="Continue runs begun under another commit, version or CPU; marks them.",
        rich_help_panel=CONTINUING,
    ),
]
AnyKernelsOption = Annotated[
    bool,
    typer.Option(
        "--no-deterministic",
        help="On GPUs: also kernels that may give other bytes the next time; recorded.",
        rich_help_panel=HARDWARE,
    ),
]
GpusOption = Annotated[
    float,
    typer.Option(
        metavar="N",
        help=(
            "GPUs of each worker. With a fraction several runs share one; without NVIDIA's MPS "
            "they take turns, which gains nothing (see `doctor`)."
        ),
        min=0.01,
        max=1024,
        rich_help_panel=HARDWARE,
    ),
]
RunsPerGpuOption = Annotated[
    int | None,
    typer.Option(
        "--runs-per-gpu",
        metavar="N",
        min=1,
        max=MOST_WORKERS,
        help=(
            "Runs that a worker trains at once, each with the bytes that it has alone; default: "
            "as many as fill the GPU, found by a short probe. On a CPU: 1."
        ),
        rich_help_panel=HARDWARE,
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
        rich_help_panel=HARDWARE,
    ),
]
CompileOption = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Fuse kernels with torch's compiler: for ImageNet on GPUs, not byte-exact.",
        rich_help_panel=HARDWARE,
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
        rich_help_panel=CONTINUING,
    ),
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Print dataset, number of runs, recipes and where all of it goes; start nothing.",
    ),
]
CheckpointOption = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        help="Between checkpoints; 0: each iteration.",
        min=0,
        max=1e9,
        rich_help_panel=CONTINUING,
    ),
]
SweepOption = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Change a field of the experiments; repeatable. FIELD=A,B,C sweeps it (lists such as "
        "lr_drops: with ;).",
        autocompletion=completing(completion.fields),
    ),
]
IterationsOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Train this long instead, the schedule in proportion.",
        max=MOST["iterations"],
    ),
]
