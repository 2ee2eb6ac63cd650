"""`resnet-repro bench`: speed as ratios against named references, and the rates of verdicts."""

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.requests.completion import completing
from jobs.requests.completion import experiments as experiment_names
from jobs.requests.options import (
    DashboardOption,
    DatasetOption,
    Device,
    ExperimentArgument,
    SetOption,
    StorageOption,
    manifest_named,
    writable,
)
from pipeline.errors import InputError
from pipeline.storage import Storage

RoundsOption = Annotated[int, typer.Option(min=1, help="Interleaved rounds; medians are reported.")]
RunIterationsOption = Annotated[int, typer.Option(min=20, help="Iterations of each run.")]
PrecisionOption = Annotated[str, typer.Option(help="fp32 or bf16.")]

ONE_EXPERIMENT: Any = typer.Option(
    metavar="EXPERIMENT",
    help="One of CIFAR-10's.",
    autocompletion=completing(experiment_names),
)

app = typer.Typer(
    no_args_is_help=True,
    help="Measure speed against named references, and the error rates of verdicts.",
)


@app.command("loop")
def bench_loop(
    data: DatasetOption = "digits",
    storage_uri: StorageOption = "results",
    experiment: Annotated[str, ONE_EXPERIMENT] = "resnet20",
    precision: Annotated[
        str, typer.Option(help="fp32 or bf16; default: both where the CPU has bf16.")
    ] = "",
    rounds: RoundsOption = 7,
    steps: Annotated[int, typer.Option(min=1, help="Steps a round.")] = 12,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of our step; default: all CPUs.")
    ] = None,
) -> None:
    """Our step against itself on one batch and the loop people use, in one run and in many.

    Example: `resnet-repro bench loop --data digits --rounds 3`
    """
    # Benchmarks are imported by their commands: several load torch, which `--help` need not.
    from benchmarks.loop import bench

    storage = writable(storage_uri)
    manifest = manifest_named(storage, data)
    bench(experiment, storage, manifest["id"], precision, rounds, steps, threads)


@app.command("data")
def bench_data(
    data: DatasetOption = "imagenet",
    storage_uri: StorageOption = "results",
    rounds: RoundsOption = 5,
    batches: Annotated[int, typer.Option(min=2, help="Batches of 64 a round.")] = 14,
) -> None:
    """Photographs decoded and augmented a second, against PIL and torchvision in a DataLoader.

    Example: `resnet-repro bench data --data imagenet --rounds 3`
    """
    from benchmarks.photographs.data_rate import bench

    storage = writable(storage_uri)
    manifest = photographs_named(storage, data, "bench data")
    bench(storage, manifest["id"], rounds, batches)


@app.command("ray")
def bench_ray(
    data: DatasetOption = "digits",
    storage_uri: StorageOption = "results",
    iterations: RunIterationsOption = 120,
    rounds: RoundsOption = 3,
    precision: PrecisionOption = "bf16",
) -> None:
    """A Ray Train run's rate against the same loop run bare; and runs at once against threads.

    Example: `resnet-repro bench ray --data digits --iterations 400 --rounds 2`
    """
    from benchmarks.ray_train import bench

    storage = writable(storage_uri)
    bench(storage, manifest_named(storage, data), iterations, rounds, precision)


@app.command("tracking")
def bench_tracking(
    data: DatasetOption = "digits",
    storage_uri: StorageOption = "results",
    iterations: RunIterationsOption = 400,
    rounds: RoundsOption = 3,
    precision: PrecisionOption = "bf16",
) -> None:
    """What following a run for MLflow costs its training.

    Example: `resnet-repro bench tracking --data digits --rounds 2`
    """
    from benchmarks.tracking_cost import bench

    storage = writable(storage_uri)
    bench(storage, manifest_named(storage, data), iterations, rounds, precision)


@app.command("report")
def bench_report(
    runs: Annotated[int, typer.Option(min=1, help="Invented runs.")] = 200,
    points: Annotated[int, typer.Option(min=1, help="Points of each curve.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; medians are reported.")] = 3,
) -> None:
    """How long the whole report takes, and that it is the same bytes each time.

    Example: `resnet-repro bench report --runs 50 --rounds 1`
    """
    from benchmarks.report_time import bench

    bench(runs, points, rounds)


@app.command("verdicts")
def bench_verdicts(
    document: Annotated[
        Path | None, typer.Option(help="A document whose tables are replaced; default: print.")
    ] = None,
    draws: Annotated[int, typer.Option(min=100, help="Simulated studies of each kind.")] = 20_000,
) -> None:
    """How often verdicts are wrong, and what they find: the tables of docs/verdicts.md, simulated.

    Example: `resnet-repro bench verdicts --draws 2000`
    """
    from benchmarks.verdict_rates import bench

    bench(document, draws)


@app.command("profile")
def bench_profile(
    experiment: ExperimentArgument,
    data: DatasetOption = "digits",
    storage_uri: StorageOption = "results",
    precision: Annotated[
        str, typer.Option(help="fp32 or bf16; default: bf16 where the CPU has it.")
    ] = "",
    steps: Annotated[int, typer.Option(min=1, help="Steps timed, and as many profiled.")] = 8,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the step; default: all CPUs.")
    ] = None,
) -> None:
    """Where a step's time goes on the CPU: shares by kind of operation, and images a second.

    Example: `resnet-repro bench profile resnet20 --data digits --precision fp32`
    """
    from benchmarks.profile import profile

    storage = writable(storage_uri)
    profile(experiment, storage, manifest_named(storage, data)["id"], precision, steps, threads)


@app.command("submit")
def bench_submit(dashboard: DashboardOption = None, rounds: RoundsOption = 5) -> None:
    """From giving a command to its first SGD step, against a bare Ray job.

    On a cluster of this machine (`ray start --head`).

    Example: `resnet-repro bench submit --rounds 3`
    """
    from benchmarks.submit_time import bench

    bench(dashboard, rounds)


@app.command("startup")
def bench_startup(
    device: Annotated[str, typer.Option(help="auto, cpu or gpu, as of `train`.")] = "auto",
    rounds: RoundsOption = 3,
) -> None:
    """Where the seconds of a `train` go before its first iteration and after its last.

    Example: `resnet-repro bench startup --device cpu --rounds 3`
    """
    from benchmarks.startup import bench

    bench(device, rounds)


@app.command("gpu")
def bench_gpu(
    data: DatasetOption = "digits",
    storage_uri: StorageOption = "results",
    experiments: Annotated[
        str, typer.Option(metavar="EXPERIMENT,...", help="Of CIFAR, with commas between.")
    ] = "resnet20,resnet56,resnet110",
    precision: Annotated[
        str, typer.Option(help="fp32, tf32 and bf16, with commas; default: all that there are.")
    ] = "",
    rounds: RoundsOption = 3,
    steps: Annotated[int, typer.Option(min=2, help="Iterations a round.")] = 200,
    out: Annotated[Path, typer.Option(help="Where the figures are kept, as JSON.")] = Path(
        "bench-gpu.json"
    ),
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Compare bytes before anything is timed.")
    ] = True,
    device: Annotated[str, typer.Option(help="cuda, or cpu to try the command.")] = "cuda",
) -> None:
    """One GPU: our exact iteration alone and in packs, against a stock network and the usual loop.

    Example: `resnet-repro bench gpu --data cifar10 --rounds 3`
    """
    from benchmarks.measure import GPU_PRECISIONS, PRECISIONS, checked_precision
    from benchmarks.one_gpu.cifar import bench
    from pipeline.data.stored import read_dataset

    storage = writable(storage_uri)
    dataset = read_dataset(storage, manifest_named(storage, data)["id"])
    known = PRECISIONS if device == "cpu" else GPU_PRECISIONS
    named = precision.split(",") if precision else known
    chosen = tuple(checked_precision(name, known) for name in named)
    bench(dataset, experiments.split(","), chosen, rounds, steps, out, device, check)


@app.command("gpu-imagenet")
def bench_gpu_imagenet(
    data: DatasetOption = "imagenet",
    storage_uri: StorageOption = "results",
    experiments: Annotated[
        str, typer.Option(metavar="EXPERIMENT,...", help="Of ImageNet, with commas between.")
    ] = "resnet50,resnet18",
    rounds: RoundsOption = 3,
    steps: Annotated[int, typer.Option(min=2, help="Iterations a round.")] = 40,
    batch: Annotated[int, typer.Option(min=32, help="Images of an iteration.")] = 256,
    crop: Annotated[int, typer.Option(min=32, help="Side of the photographs, in pixels.")] = 224,
    out: Annotated[Path, typer.Option(help="Where the figures are kept, as JSON.")] = Path(
        "bench-gpu-imagenet.json"
    ),
    compiled: Annotated[
        bool, typer.Option("--compiled/--no-compiled", help="Measure compiled kernels too.")
    ] = True,
    device: Annotated[str, typer.Option(help="cuda, or cpu to try the command.")] = "cuda",
) -> None:
    """One GPU: our iteration on ImageNet's rows against torchvision's step, and what feeds it.

    Example: `resnet-repro bench gpu-imagenet --data imagenet --rounds 3`
    """
    from benchmarks.one_gpu.contestants import device_named
    from benchmarks.one_gpu.imagenet import ImagenetBench, bench

    # Whether there is a GPU is known before a dataset is looked for.
    chosen = device_named(device, "bench gpu-imagenet")
    storage = writable(storage_uri)
    manifest = photographs_named(storage, data, "bench gpu-imagenet")
    names = experiments.split(",")
    asked = ImagenetBench(names, batch, crop, rounds, steps, compiled, chosen)
    bench(asked, storage, manifest["id"], out)


def photographs_named(storage: Storage, data: str, command: str) -> dict[str, Any]:
    """The manifest of a stored dataset of photographs.

    Raises:
        InputError: there is none of that name, or it is of small images.
    """
    from pipeline.data.photo_shards import holds_photographs
    from pipeline.data.stored import require_stored

    manifest = require_stored(storage, data)
    # Small images are not encoded: there is nothing to decode.
    if not holds_photographs(manifest):
        raise InputError(
            f"--data {data}: is of small images; `{command}` wants photographs, such as imagenet"
        )
    return manifest


@app.command("packs")
def bench_packs(
    data: DatasetOption = "digits",
    storage_uri: StorageOption = "results",
    experiment: Annotated[str, ONE_EXPERIMENT] = "resnet20",
    settings: SetOption = ["precision=bf16"],  # noqa: B006  (Typer reads it, nobody writes it)
    runs: Annotated[str, typer.Option(help="How many train at once, with commas between.")] = "1,8",
    until: Annotated[int, typer.Option(min=2, help="This many of its first iterations.")] = 8000,
    out: Annotated[Path, typer.Option(help="Where the figures are kept, as JSON.")] = Path(
        "bench-packs.json"
    ),
    device: Annotated[Device, typer.Option(help="gpu, or cpu to try the command.")] = Device.GPU,
) -> None:
    """Packs through `grid`'s own way, evaluations included, against the loop people write.

    Example: `resnet-repro bench packs --data cifar10 --runs 1,8 --until 8000`
    """
    from benchmarks.one_gpu.cifar import DEPTHS
    from benchmarks.one_gpu.packs import bench
    from pipeline.data.stored import read_dataset
    from pipeline.recipe.overrides import experiment_named

    counts = [int(count) for count in runs.split(",") if count.isdecimal() and int(count)]
    if experiment not in DEPTHS:
        raise InputError(f"--experiment {experiment}: expected one of {', '.join(DEPTHS)}")
    if len(counts) != runs.count(",") + 1:
        raise InputError(f"--runs {runs}: expected numbers such as 1,8")
    row = experiment_named(experiment, settings, None)
    storage = writable(storage_uri)
    dataset = read_dataset(storage, manifest_named(storage, data)["id"])
    bench(row, dataset, counts, until, device, out)
