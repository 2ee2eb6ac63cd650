"""`resnet-repro data`: prepare, list and verify datasets."""

import json
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs.console.console import console, progress
from jobs.console.tables import FittingTable
from jobs.requests.completion import completing, known_datasets, prepared_datasets
from jobs.requests.options import AddressOption, JsonOption, StorageOption, writable
from jobs.requests.storage_failures import failures_in_one_line
from pipeline.storage import Storage

app = typer.Typer(no_args_is_help=True, help="Prepare, list and verify datasets.")


@app.command("list")
def data_list(storage: StorageOption = "results", as_json: JsonOption = False) -> None:
    """Show the datasets that are known, and those prepared in storage.

    Example: `resnet-repro data list --storage results/demo`
    """
    # Imported within commands here and below: `--help` and completion need not wait for them.
    from pipeline.data.catalogue.table import DATASETS
    from pipeline.data.stored import stored_manifests

    names = ("name", "id", "train", "test", "image", "comparable")
    table = FittingTable(*names, title=f"Datasets (prepared in {storage})", left=names)
    damaged: list[str] = []
    with failures_in_one_line(storage):
        prepared = stored_manifests(Storage(storage), damaged.append)
    for what in damaged:
        print(f"damaged: {what}", file=sys.stderr, flush=True)
    if as_json:
        known = [{"name": row.name, "arrives": row.spec.arrives} for row in DATASETS.values()]
        print(
            json.dumps(
                [{"prepared": True, **manifest} for manifest in prepared]
                + [{"prepared": False, **row} for row in known],
                indent=1,
            )
        )
        return
    for manifest in prepared:
        spec = manifest["row"]
        table.add_row(
            spec["name"],
            manifest["id"],
            f"{manifest['train_images']:,}",
            f"{manifest['test_images']:,}",
            f"{spec['side']}x{spec['side']}" if spec["side"] else "any size",
            "yes" if spec["comparable"] else "no",
        )
    console.print(table)
    for row in DATASETS.values():
        if row.name not in {manifest["row"]["name"] for manifest in prepared}:
            print(f"not prepared: {row.name} ({row.spec.arrives})")


@app.command("prepare")
def data_prepare(
    name: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="One that `resnet-repro data list` names, or a name of your own with --from.",
            autocompletion=completing(known_datasets),
        ),
    ],
    path: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="PATH",
            help="The official archives, or a folder of parquet, image or IDX files.",
        ),
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch the official files.")] = False,
    photographs: Annotated[
        bool,
        typer.Option(
            "--photographs",
            help="Images of any size, kept as they are encoded; so are those of imagenet.",
        ),
    ] = False,
    shorter_side: Annotated[
        int,
        typer.Option(
            metavar="PIXELS",
            help="Scale photographs whose shorter side is larger down to it (marked: it loses); 0: "
            "none.",
        ),
    ] = 0,
    exclude: Annotated[
        list[str],
        typer.Option(
            metavar="ENDING", help="Leave out photographs whose name ends so; repeatable, marked."
        ),
    ] = [],  # noqa: B006  (Typer reads it, nobody writes it)
    storage_uri: StorageOption = "results",
    address: AddressOption = None,
) -> None:
    """Check a dataset's files and write them into storage in canonical form.

    Photographs are read by Ray tasks, on a cluster if one is named; an interrupted command goes on
    where it was.

    Examples:

    * `resnet-repro data prepare cifar10 --download`

    * `resnet-repro data prepare cifar10 --from cifar-10-binary.tar.gz`

    * `resnet-repro data prepare photographs --from parquet/ --storage /mnt/shared/resnet`

    * `resnet-repro data prepare imagenet --from /data/ILSVRC2012 --storage /mnt/shared/resnet`
    """
    from pipeline.data.catalogue.table import DATASETS

    storage = writable(storage_uri)
    if photographs or (name in DATASETS and DATASETS[name].photographs):
        return _prepare_photographs(storage, name, path, shorter_side, exclude, address)
    from pipeline.data.preparation import prepare, source_notes

    with failures_in_one_line(storage.uri), progress(f"preparing {name}") as report:
        manifest = prepare(storage, name, path, download, report)
    print(
        f"{manifest['row']['name']} {manifest['id']}: {manifest['train_images']:,} training and "
        f"{manifest['test_images']:,} test images in {storage.uri}"
    )
    for note in source_notes(manifest, path) if path else ():
        print(f"note: {note}")


def _prepare_photographs(
    storage: Storage,
    name: str,
    path: Path | None,
    shorter_side: int,
    exclude: list[str],
    address: str | None,
) -> None:
    from jobs.execution.cluster import connected
    from jobs.execution.ingest import ingest
    from pipeline.data.catalogue.imagenet import IMAGENET
    from pipeline.data.photo_ingest import OFFICIAL_COUNTS, Reading
    from pipeline.data.photo_sources import list_source
    from pipeline.data.preparation import source_notes
    from pipeline.errors import InputError

    if path is None:
        raise InputError(f"{name} comes from files of yours: name their folder with --from")
    # The name becomes part of folders' names (`dataset_key`).
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InputError(
            f"{name}: a dataset's name is of letters, digits, dots, underscores and dashes"
        )
    if 0 < shorter_side < 224 or shorter_side < 0:
        raise InputError(
            f"--shorter-side {shorter_side}: expected 0, or at least the 224 pixels that "
            "networks look at"
        )
    reading = Reading(shorter_side, tuple(exclude))
    # Before a cluster is started: what is not known there is said at once.
    listing = list_source(path.resolve())
    with (
        failures_in_one_line(storage.uri),
        connected(address),
        progress(f"reading {name}, parts") as report,
    ):
        manifest = ingest(storage, name, path.resolve(), reading, report, listing)
    seen = manifest["classes_seen"]
    print(
        f"{manifest['row']['name']} {manifest['id']}: {manifest['train_images']:,} training "
        f"photographs of {seen['train']:,} classes and {manifest['test_images']:,} for testing of "
        f"{seen['test']:,}, in {storage.uri}"
    )
    for note in source_notes(manifest, path.resolve()):
        print(f"note: {note}")
    # A few are enough to see what is wrong; the manifest has them all.
    for note in [*manifest["notes"][:5], *(f"left out: {n}" for n in manifest["left_out"][:5])]:
        print(f"note: {note}")
    counts = {split: manifest[f"{split}_images"] for split in OFFICIAL_COUNTS}
    if name == IMAGENET.name and counts != OFFICIAL_COUNTS:
        print(
            f"note: ILSVRC-2012 has {OFFICIAL_COUNTS['train']:,} training and "
            f"{OFFICIAL_COUNTS['test']:,} validation images"
        )
    if not manifest["row"]["comparable"]:
        print(
            "note: these are not the official ILSVRC-2012 archives; results on them are not "
            "comparable with the paper's"
        )


@app.command("verify")
def data_verify(
    name: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="A prepared dataset's name or id.",
            autocompletion=prepared_datasets,
        ),
    ],
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="The official CIFAR-10 archive; a copy that equals it becomes comparable.",
        ),
    ] = None,
    storage_uri: StorageOption = "results",
) -> None:
    """Recompute a prepared dataset's checksum and id from its images and labels.

    Example: `resnet-repro data verify my-parquet-copy --against cifar-10-binary.tar.gz`
    """
    from pipeline.data.photo_shards import holds_photographs, verify_photos
    from pipeline.data.preparation import verify_against
    from pipeline.data.stored import require_stored, verify_dataset
    from pipeline.errors import InputError

    storage = Storage(storage_uri)
    manifest = require_stored(storage, name)
    if holds_photographs(manifest):
        if against is not None:
            raise InputError(
                f"--against: {name} is of photographs; the official archives are read by `data "
                "prepare`"
            )
        with progress(f"verifying {name}") as report:
            verify_photos(storage, manifest, report)
        print(f"{manifest['row']['name']} {manifest['id']}: every shard, image and label is right")
        return
    with failures_in_one_line(storage.uri):
        dataset = verify_dataset(storage, manifest["id"])
    print(f"{dataset.spec.name} {dataset.id}: checksum and id are right")
    if against is not None:
        verify_against(storage, manifest, against)
        print("it is the official CIFAR-10: results on it are comparable with the paper's")
