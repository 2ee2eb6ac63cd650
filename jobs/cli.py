"""The command line, `resnet-repro`: parses, resolves names to rows and datasets, and hands over. It holds no science.

What a user got wrong ends in one line on standard error and exit code 2; an interruption in exit code 130.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from typer.exceptions import TyperException

from jobs import data_commands, grids, screen
from jobs.bench import commands as bench_commands
from jobs.launch import Execution, check_workers
from jobs.options import (
    AddressOption,
    CheckpointOption,
    DataOption,
    Device,
    DeviceOption,
    IterationsOption,
    SetOption,
    StorageOption,
    ThreadsOption,
    TrackingOption,
    WorkersOption,
    manifest_named,
    writable,
)
from pipeline.checkpoint import check_ours
from pipeline.errors import InputError
from pipeline.experiments import EXPERIMENTS, Experiment
from pipeline.layers import layout
from pipeline.overrides import experiment_named
from pipeline.runs import Run, read_result
from pipeline.storage import Storage

HELP = """Train the networks of *Deep Residual Learning for Image Recognition* on Ray, and compare with the paper.

Begin with `resnet-repro experiments`, then `resnet-repro grid demo`. A command that was interrupted continues when it is
given again.
"""

app = typer.Typer(no_args_is_help=True, add_completion=True, rich_markup_mode="markdown", help=HELP)
app.add_typer(data_commands.app, name="data")
app.add_typer(bench_commands.app, name="bench")


@app.command()
def experiments(as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects.")] = False) -> None:
    """Show every configuration of the paper."""
    rows = [_facts(row) for row in EXPERIMENTS.values()]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table(title="The paper's configurations", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("name", "shortcut", "block"):
        table.add_column(name, no_wrap=True)
    for name in ("params", "mult-adds", "iterations"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("in the paper")
    for row in rows:
        counts = [f"{row[key] / 1e6:,.2f}M" for key in ("params", "multiply_adds")]
        names = (row["name"], row["shortcut"], row["block"])
        where = ", ".join(row["artifacts"]).replace("_", " ")
        table.add_row(*names, *counts, f"{row['iterations']:,}", where)
    screen.console.print(table)


def _facts(row: Experiment) -> dict[str, Any]:
    plan = layout(row)
    return {
        "name": row.name,
        "family": row.family,
        "depth": row.depth,
        "block": row.block,
        "shortcut": row.shortcut,
        "params": plan.params,
        "multiply_adds": plan.multiply_adds,
        "iterations": row.iterations,
        "artifacts": list(row.artifacts),
    }


@app.command()
def train(
    experiment: Annotated[str, typer.Argument(help="A row of `resnet-repro experiments`.")],
    data: DataOption = "digits",
    seed: Annotated[int, typer.Option(min=0, help="Decides initialisation, order and augmentation.")] = 0,
    workers: WorkersOption = 1,
    threads: ThreadsOption = None,
    device: DeviceOption = Device.AUTO,
    iterations: IterationsOption = None,
    settings: SetOption = [],  # noqa: B006  (Typer reads it, nobody writes it)
    storage: StorageOption = "results",
    tracking: TrackingOption = None,
    address: AddressOption = None,
    checkpoint_seconds: CheckpointOption = 30.0,
) -> None:
    """Train one run; given again, it continues, or says that it is finished.

    Example: `resnet-repro train resnet20 --data digits --iterations 800 --workers 2`
    """
    from jobs.drive import drive

    row = experiment_named(experiment, settings, iterations)
    grids.check_trainable(row)
    place = writable(storage)
    execution = Execution(place.uri, _tracking(tracking, place), workers=workers, checkpoint_seconds=checkpoint_seconds)
    run = _runs(place, [row], data, [seed], workers)[0]
    result = read_result(place, run)
    if result is None:
        from jobs.cluster import check_fits, connected

        with connected(address):
            execution = _with_resources(execution, device, threads, runs=1)
            check_fits(workers, execution.threads, execution.gpus if execution.use_gpu else 0)
            print(f"training {run} in {place.path(run.folder)}", flush=True)
            outcome = screen.follow(str(run), place, [run], 1, lambda: drive(run, execution, {}))
        if outcome["status"] == "failed":
            raise SystemExit(_failed(f"{run} failed: {outcome['reason']}; give the same command again to continue"))
        result = read_result(place, run)
    assert result is not None
    print(_ended(place, run, result))
    if result["status"] != "finished":
        raise SystemExit(1)


@app.command()
def grid(
    names: Annotated[list[str], typer.Argument(help="demo, figure1, figure6, table6, paper, or rows.")],
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0..K-1 of each row.")] = 1,
    data: DataOption = "digits",
    workers: WorkersOption = 1,
    threads: ThreadsOption = None,
    device: DeviceOption = Device.AUTO,
    iterations: IterationsOption = None,
    settings: SetOption = [],  # noqa: B006  (Typer reads it, nobody writes it)
    storage: StorageOption = "results",
    tracking: TrackingOption = None,
    address: AddressOption = None,
    checkpoint_seconds: CheckpointOption = 30.0,
) -> None:
    """Train a grid of rows x seeds, then write its report; given again, it continues with what is not finished.

    Example: `resnet-repro grid table6 --data cifar10 --seeds 5`
    """
    from jobs.cluster import check_fits, connected, largest_resources
    from jobs.grid import run_grid, slots, unfinished
    from jobs.publisher import open_store

    if names == ["demo"] and iterations is None:
        iterations, settings = grids.DEMO_ITERATIONS, [*grids.demo_settings(), *settings]
        print(f"demo: {iterations} iterations, {', '.join(settings)}", flush=True)
    rows = [experiment_named(name, settings, iterations) for name in grids.rows_asked_for(names)]
    for row in rows:
        grids.check_trainable(row)
    place = writable(storage)
    execution = Execution(place.uri, _tracking(tracking, place), workers=workers, checkpoint_seconds=checkpoint_seconds)
    runs = _runs(place, rows, data, range(seeds), workers)
    left, failed = unfinished(place, runs), []
    print(f"{len(runs)} runs, {len(runs) - len(left)} finished before, in {place.uri}", flush=True)
    if left:
        with connected(address):
            execution = _with_resources(execution, device, threads, runs=len(left))
            check_fits(workers, execution.threads, execution.gpus if execution.use_gpu else 0)
            at_once = min(len(left), slots(largest_resources(), execution, _head_memory()))
            _try_tracking(lambda: open_store(execution.tracking, place), execution.tracking)
            tags = {f"grid.{name}": "yes" for name in names}
            outcomes = screen.follow(
                " ".join(names), place, runs, at_once, lambda: run_grid(left, execution, at_once, tags)
            )
        failed = [outcome for outcome in outcomes if outcome.status != "finished"]
    for outcome in failed:
        print(f"{outcome.run} {outcome.status}: {outcome.reason}", file=sys.stderr)
    if len(failed) < len(runs):
        _write_report(execution.tracking, place, runs=runs)
    if failed:
        raise SystemExit(_failed(f"{len(failed)} of {len(runs)} runs did not finish; give the same command again"))


@app.command()
def report(
    storage: StorageOption = "results",
    tracking: TrackingOption = None,
    source: Annotated[Path | None, typer.Option("--from", help="Exported parquet instead of MLflow.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the report; default: STORAGE/report.")] = None,
) -> None:
    """Regenerate the paper's tables, figures and claims from what was measured."""
    if source is not None:
        from analysis.frames import load
        from analysis.report import write_report

        print(f"report: {write_report(*load(source), out or Path('report'))}")
        return
    place = Storage(storage)
    _write_report(_tracking(tracking, place), place, out)


@app.command()
def ui(
    storage: StorageOption = "results",
    tracking: Annotated[str | None, typer.Option(help="sqlite:///FILE; default: in the storage.")] = None,
    port: Annotated[int, typer.Option(help="Port on loopback.")] = 5000,
) -> None:
    """Browse the runs in the MLflow UI, on loopback."""
    place = Storage(storage)
    store = _tracking(tracking, place)
    if store.startswith("http"):
        raise InputError(f"--tracking {store}: is a server already; open it in a browser")
    if store.startswith("sqlite") and not Path(store.removeprefix("sqlite:///")).exists():
        raise InputError(f"{store} does not exist; `resnet-repro train` or `resnet-repro grid` makes it")
    print(f"MLflow UI: http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--host", "127.0.0.1"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    ended = subprocess.run([*command, "--port", str(port), "--workers", "1"], env=os.environ | quiet, check=False)
    raise SystemExit(ended.returncode)


@app.command()
def evaluate(
    weights: Annotated[Path, typer.Argument(help="A safetensors file, as in a run's checkpoints.")],
    experiment: Annotated[str, typer.Option("--as", help="The row whose network the weights are for.")],
    data: DataOption = "digits",
    settings: SetOption = [],  # noqa: B006  (Typer reads it, nobody writes it)
    storage: StorageOption = "results",
) -> None:
    """Test error of a weights file under a row's network and normalisation, on the CPU."""
    from jobs.data import find_dataset

    row = experiment_named(experiment, settings)
    if not weights.is_file():
        raise InputError(f"{weights}: no such file")
    place = writable(storage)
    with screen.progress("preparing data") as progress:
        dataset_id = find_dataset(place, data, progress)["id"]
    from jobs.evaluate import score_weights

    score = score_weights(row, weights, place, dataset_id)
    print(f"{score.top1_err:.2f} % of {score.count:,} test images wrong ({score.wrong:,})")


def _tracking(tracking: str | None, place: Storage) -> str:
    from jobs.publisher import check_tracking_uri, default_tracking

    if tracking is None:
        return default_tracking(place)
    check_tracking_uri(tracking)
    return tracking


def _runs(place: Storage, rows: list[Experiment], data: str, seeds: Any, workers: int) -> list[Run]:
    """The runs asked for, refused where workers or the dataset cannot carry them."""
    manifest = manifest_named(place, data)
    key = f"{manifest['row']['name']}-{manifest['id'][:8]}"
    runs = [Run(row, manifest["id"], key, seed) for row in rows for seed in seeds]
    for run in runs:
        check_workers(run, workers)
        check_ours(place, run)
        if run.experiment.holdout >= manifest["train_images"]:
            raise InputError(
                f"holdout {run.experiment.holdout} leaves nothing of {manifest['train_images']:,} training images"
            )
    return runs


def _with_resources(execution: Execution, device: Device, threads: int | None, runs: int) -> Execution:
    """Execution with the device and threads that suit the cluster."""
    from jobs.cluster import largest_resources
    from jobs.grid import threads_per_worker

    has = largest_resources()
    use_gpu = device is Device.GPU or (device is Device.AUTO and has.get("GPU", 0) >= execution.workers)
    if threads is not None and threads < 1:
        raise InputError(f"--threads {threads}: at least 1 is needed")
    best = 1 if use_gpu else threads_per_worker(has.get("CPU", 1), runs, execution.workers)
    return replace(execution, use_gpu=use_gpu, threads=threads or best)


def _head_memory() -> float:
    import ray

    heads = [node for node in ray.nodes() if node["Alive"] and "node:__internal_head__" in node["Resources"]]
    return float(heads[0]["Resources"].get("memory", 8e9)) if heads else 8e9


def _try_tracking(action: Any, tracking: str) -> None:
    try:
        action()
    except Exception as error:  # training goes on without a tracking server
        print(f"warning: MLflow at {tracking} cannot be reached ({str(error).splitlines()[0]})", file=sys.stderr)


def _write_report(tracking: str, place: Storage, out: Path | None = None, runs: list[Run] | None = None) -> None:
    """Export, report (on the studies of `runs` alone if given), keep it in MLflow, and say where everything is."""
    from analysis.export import export
    from analysis.report import write_report
    from jobs.publisher import log_report

    base = place.local or Path("results")
    out = out or base / "report"
    frames = export(tracking, base / "export")
    if runs is not None:
        keys = {run.key for run in runs}
        chosen = frames[0][frames[0].run_id.isin(keys)]
        frames = (chosen.reset_index(drop=True), frames[1][frames[1].run_id.isin(keys)].reset_index(drop=True))
    page = write_report(*frames, out)
    _try_tracking(lambda: log_report(tracking, place, out, place.uri), tracking)
    print(f"report: {page}  (open it in a browser)")
    command = f"resnet-repro ui --storage {base}" if tracking.startswith("sqlite") else tracking
    print(f"runs in the MLflow UI: {command}")


def _ended(place: Storage, run: Run, result: dict[str, Any]) -> str:
    from pipeline.metrics import TEST_ERR

    if result["status"] != "finished":
        return f"{run}: {result['status']}: {result.get('reason', '')}"
    error = result["final"][TEST_ERR]
    return (
        f"{run}: finished, {error:.2f} % test error after {result['iterations']:,} iterations; {place.path(run.folder)}"
    )


def _failed(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


def main() -> None:
    """Run the command line; every mistake of a user's ends in one line and exit code 2."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except InputError as error:
        message = str(error)
    except TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # the message is the help, already formatted
            print(error)
            sys.exit(2)
        message = error.format_message() if hasattr(error, "format_message") else str(error)
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted: give the same command again to continue", file=sys.stderr)
        sys.exit(130)
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
