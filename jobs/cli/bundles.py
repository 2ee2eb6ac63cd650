"""`resnet-repro results` and `runs`: what was measured, or runs to go on with, in one file.

Results are for reading, everybody's; runs are for going on with them in another storage.
"""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.requests.completion import runs_or_weights
from jobs.requests.options import (
    TRACKING_VARIABLE,
    StorageOption,
    TrackingOption,
    existing,
    tracking_of,
    writable,
)
from jobs.requests.storage_failures import failures_in_one_line
from pipeline.errors import InputError
from pipeline.recipe.other_libraries import WeightsLayout, layout_trouble
from pipeline.runs.run import read_result
from pipeline.storage import Storage, regular_file, whole_file

# Frames load pandas, which commands that have none to read need not wait for.
if TYPE_CHECKING:
    from analysis.measured.frames import Frames

WeightsOption = Annotated[
    bool, typer.Option("--weights", help="With the final weights of each run that has ended.")
]


def _file(metavar: str, example: str) -> Any:
    """The argument of a file that a command writes."""
    return typer.Argument(metavar=metavar, help=f"The file to write, such as {example}.")


def _files(metavar: str, made_by: str) -> Any:
    """The argument of files that another command has written."""
    return typer.Argument(metavar=metavar, help=f"Files of `{made_by}`.")


app = typer.Typer(
    no_args_is_help=True, help="Pack results into one file, and take in those of others."
)

runs = typer.Typer(
    no_args_is_help=True, help="Carry runs, finished or not, from one storage to another."
)


@app.command("export")
def export_results(
    out: Annotated[Path, _file("BUNDLE", "results.zip")],
    storage_uri: StorageOption = "results",
    tracking: TrackingOption = None,
    weights: WeightsOption = False,
) -> None:
    """Pack every run's measurements and provenance, with checksums; never over another file.

    Example: `resnet-repro results export mine.zip --storage results/demo --weights`
    """
    from analysis.measured.bundle import pack
    from analysis.measured.mlflow_export import export
    from jobs.tracking.server_check import check_database

    storage = Storage(storage_uri)
    # MLflow and not the folders: a bundle is what was published, as reports are.
    # Of the storage nothing but its runs is read, and nothing is written to it.
    store = tracking_of(tracking, storage)
    check_database(store)
    with TemporaryDirectory() as folder:
        frames = export(store, Path(folder))
    content = pack(frames, _folders(storage, frames) if weights else {})
    if out.exists() and _content(out) != content:
        raise InputError(f"{out}: is there already, with other content; name another file")
    try:
        with whole_file(out) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror or error})") from error
    print(f"{out}: {len(frames.runs)} runs, {len(content) / 1e6:.1f} MB")


@app.command("import")
def import_results(
    bundles: Annotated[list[Path], _files("BUNDLE", "results export")],
    storage_uri: StorageOption = "results",
    tracking: TrackingOption = None,
) -> None:
    """Check bundles and keep them in the storage: its reports are about their runs too from now on.

    A folder of exported measurements, as `report --from` takes it, is made a bundle.
    Example: `resnet-repro results import theirs.zip --storage results/demo`, then `resnet-repro
        report --storage results/demo`
    """
    from analysis.measured.bundle import merged, unpack
    from jobs.tracking.imported_bundles import IMPORTS, imported_bundles, keep_bundle

    storage = writable(storage_uri)
    # All are read before any is checked: a path that is wrong ends the command at once.
    contents = {path: _content(path) for path in bundles}
    # All of them are checked, together with what the storage has already, before any is kept: one
    # that cannot be merged would make every later report of this storage fail.
    taken = [(str(path), unpack(content, str(path))[0]) for path, content in contents.items()]
    taken = [*imported_bundles(storage), *taken]
    merged([*_own(storage, tracking), *taken])
    with failures_in_one_line(storage.uri):
        for content in contents.values():
            keep_bundle(storage, content)
    # A run may be in two bundles, of two people who exchanged theirs.
    count = len({run_id for _, frames in taken for run_id in frames.runs.run_id})
    print(
        f"{count} runs imported in {storage.path(IMPORTS)}; `resnet-repro report` is about them too"
    )


def _own(storage: Storage, tracking: str | None) -> "list[tuple[str, Frames]]":
    """What the storage's own tracking store has, if there is one."""
    from analysis.measured.mlflow_export import NoRunsError, export

    # A storage in a bucket has no database of its own to look into.
    if not (tracking or os.environ.get(TRACKING_VARIABLE) or storage.local):
        return []
    store = tracking_of(tracking, storage)
    try:
        # The export is only compared with, and not kept: the next report makes its own.
        with TemporaryDirectory() as folder:
            return [(store, export(store, Path(folder)))]
    except NoRunsError:
        return []


def _content(path: Path) -> bytes:
    """A bundle's bytes; those of a folder are the same whenever its measurements are."""
    from analysis.measured.bundle import MOST_BYTES, pack
    from analysis.measured.frames import load

    if path.is_dir():
        return pack(load(path), {})
    try:
        return regular_file(path, MOST_BYTES)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def _folders(storage: Storage, frames: "Frames") -> dict[str, bytes]:
    """The folders of weights of the finished runs that the storage has, file by file.

    A run that cannot be exported, as its dataset is gone, is left out with a note.
    """
    from analysis.measured.frames import FINISHED
    from jobs.requests.exports import FinishedRuns
    from pipeline.training.exported_weights import folder_files

    published = set(frames.runs.loc[frames.runs.status == FINISHED, "run_id"])
    finished = FinishedRuns(storage)
    files: dict[str, bytes] = {}
    for run in finished.with_weights([run for run in finished.runs if run.key in published]):
        try:
            exported = finished.exported(run)
        except InputError as error:
            print(f"note: weights left out: {error}", file=sys.stderr)
            continue
        files |= {f"{exported.name}/{n}": file for n, file in folder_files(exported).items()}
    return files


@app.command("weights")
def export_weights(
    named: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN|FOLDER|BUNDLE",
            help="Runs by their folder or experiment, folders made by this command, or bundles; "
            "default: all finished runs of the storage.",
            autocompletion=runs_or_weights,
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where a folder for each is made.")] = Path("weights"),
    layout: Annotated[
        WeightsLayout,
        typer.Option(
            help="Of the folders: ours, a .pth file in torchvision's names, or Hugging Face's for "
            "transformers. The last two for ImageNet's networks with option B."
        ),
    ] = "resnet-repro",
    storage_uri: StorageOption = "results",
) -> None:
    """Write final weights as folders to publish: a card, and a file that says all of itself.

    Such a folder is what `evaluate` and `predict` take; torchvision's .pth needs `--as`.

    Examples:

    * `resnet-repro results weights resnet20 --storage results/demo --out published`

    * `resnet-repro results weights resnet34-b --layout transformers`
    """
    from jobs.requests.exports import exports_named
    from pipeline.training.exported_weights import folder_files, layout_notes

    exports = exports_named(Storage(storage_uri), named or [])
    # Everything that is in the way is found before anything is written.
    for folder in (out / name for name in exports):
        if folder.exists():
            raise InputError(f"{folder}: is there already; name another --out, or move it away")
    refused: list[str] = []
    for name, make in exports.items():
        try:
            exported = make()
        except InputError as error:  # of a run whose dataset is gone
            refused.append(str(error))
            continue
        if trouble := layout_trouble(exported.run.experiment, layout):
            refused.append(f"{exported.run}: {trouble}")
            continue
        with failures_in_one_line(str(out)):
            _write_folder(out / name, folder_files(exported, layout), layout)
        print(f"{out / name}: {exported.run}")
        for note in layout_notes(exported, layout):
            print(f"note: {name}: {note}", file=sys.stderr)
    if len(refused) == len(exports):
        raise InputError(refused[0] + (f" (and {len(refused) - 1} more)" if refused[1:] else ""))
    for line in refused:
        print(f"note: left out: {line}", file=sys.stderr)


def _write_folder(folder: Path, files: dict[str, bytes], layout: WeightsLayout) -> None:
    """Make a folder that is there with all its files, or not at all."""
    # One of a layout: what a killed command left of it is written over.
    partial = folder.with_name(f".{folder.name}.{layout}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (partial / name).write_bytes(content)
    partial.rename(folder)


@runs.command("export")
def export_runs(
    out: Annotated[Path, _file("ARCHIVE", "runs.zip")],
    storage_uri: StorageOption = "results",
    weights: WeightsOption = False,
) -> None:
    """Pack the newest checkpoints of runs that go on, and what the others measured.

    For a machine that is lent for some minutes: `runs import` there, `grid --stop-after`, `runs
    export`. An older file of that name is replaced.

    Example: `resnet-repro runs export runs.zip --storage results/demo`
    """
    from pipeline.runs.run_archive import write_archive

    storage = existing(storage_uri)
    with failures_in_one_line(str(out)):
        packed = write_archive(storage, out, weights)
        size = out.stat().st_size
    ended = sum(read_result(storage, run) is not None for run in packed)
    print(f"{out}: {len(packed)} runs, {ended} of them ended, {size / 1e6:.1f} MB")


@runs.command("import")
def import_runs(
    archives: Annotated[list[Path], _files("ARCHIVE", "runs export")],
    storage_uri: StorageOption = "results",
) -> None:
    """Take runs into a storage, where they are further than what is there; `grid` goes on.

    Example: `resnet-repro runs import runs.zip --storage results/demo`
    """
    from pipeline.runs.run_archive import take_in

    storage = writable(storage_uri)
    for archive in archives:
        if not archive.exists():
            raise InputError(f"{archive}: no such file")
    for archive in archives:
        with failures_in_one_line(storage.uri):
            found = take_in(storage, archive, lambda line: print(line, file=sys.stderr))
        for run, why in found.passed_over.items():
            print(f"{run}: left as it is, {why}")
        print(f"{archive}: {len(found.taken)} runs taken into {storage.uri}")
