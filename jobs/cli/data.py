"""`resnet-repro data`: prepare, list and verify datasets."""

import json
import re
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from jobs.console import console as screen
from jobs.requests.options import AddressOption, JsonOption, StorageOption, writable
from pipeline.storage import Storage

app = typer.Typer(no_args_is_help=True, help="Prepare, list and verify datasets.")


@app.command("list")
def data_list(storage: StorageOption = "results", as_json: JsonOption = False) -> None:
    """Show the datasets that are known, and those prepared in storage.

    Example: `resnet-repro data list --storage results/demo`
    """
    from pipeline.data.datasets import DATASETS, stored_manifests

    table = Table(
        title=f"Datasets (prepared in {storage})",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in ("name", "id", "train", "test", "image", "comparable"):
        table.add_column(name, no_wrap=True)
    prepared = stored_manifests(Storage(storage))
    if as_json:
        known = [{"name": row.name, "arrives": row.arrives} for row in DATASETS.values()]
        print(
            json.dumps(
                [{"prepared": True, **m} for m in prepared]
                + [{"prepared": False, **row} for row in known],
                indent=1,
            )
        )
        return
    for m in prepared:
        side, comparable = m["row"]["side"], "yes" if m["row"]["comparable"] else "no"
        counts = (f"{m['train_images']:,}", f"{m['test_images']:,}")
        size = f"{side}x{side}" if side else "any size"
        table.add_row(m["row"]["name"], m["id"], *counts, size, comparable)
    screen.console.print(table)
    for row in DATASETS.values():
        if row.name not in {m["row"]["name"] for m in prepared}:
            print(f"not prepared: {row.name} ({row.arrives})")


@app.command("prepare")
def data_prepare(
    name: Annotated[
        str,
        typer.Argument(
            help="digits, cifar10, fashion-mnist, imagenet, or a name of your own with --from."
        ),
    ],
    path: Annotated[
        Path | None,
        typer.Option(
            "--from", help="The official archives, or a folder of parquet, image or IDX files."
        ),
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch the official files.")] = False,
    photographs: Annotated[
        bool,
        typer.Option(
            "--photographs", help="Images of any size, kept as they are encoded; so is imagenet."
        ),
    ] = False,
    shorter_side: Annotated[
        int,
        typer.Option(
            help=(
                "Scale photographs whose shorter side is larger down to it (marked: it loses); 0: "
                "none."
            )
        ),
    ] = 0,
    exclude: Annotated[
        list[str],
        typer.Option(help="Leave out photographs whose name ends so; repeatable, marked."),
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
    from pipeline.data.datasets import IMAGENET

    storage = writable(storage_uri)
    if photographs or name == IMAGENET.name:
        return _prepare_photographs(storage, name, path, shorter_side, exclude, address)
    from pipeline.data.lookup import prepare

    with screen.progress(f"preparing {name}") as report:
        m = prepare(storage, name, path, download, report)
    print(
        f"{m['row']['name']} {m['id']}: {m['train_images']:,} training and {m['test_images']:,} "
        f"test images in {storage.uri}"
    )


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
    from pipeline.data.datasets import IMAGENET
    from pipeline.data.photo_ingest import OFFICIAL_COUNTS, Reading
    from pipeline.errors import InputError

    if path is None:
        raise InputError(f"{name} comes from files of yours: name their folder with --from")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InputError(
            f"{name}: a dataset's name is of letters, digits, dots, underscores and dashes"
        )
    if 0 < shorter_side < 224 or shorter_side < 0:
        raise InputError(
            f"--shorter-side {shorter_side}: wanted is 0, or at least the 224 pixels that networks "
            "look at"
        )
    with connected(address), screen.progress(f"reading {name}, parts") as report:
        m = ingest(storage, name, path.resolve(), Reading(shorter_side, tuple(exclude)), report)
    seen = m["classes_seen"]
    print(
        f"{m['row']['name']} {m['id']}: {m['train_images']:,} training photographs of "
        f"{seen['train']:,} classes and "
        f"{m['test_images']:,} for testing of {seen['test']:,}, in {storage.uri}"
    )
    for note in [*m["notes"][:5], *(f"left out: {left}" for left in m["left_out"][:5])]:
        print(f"note: {note}")
    counts = {split: m[f"{split}_images"] for split in OFFICIAL_COUNTS}
    if name == IMAGENET.name and counts != OFFICIAL_COUNTS:
        print(
            f"note: ILSVRC-2012 has {OFFICIAL_COUNTS['train']:,} training and "
            f"{OFFICIAL_COUNTS['test']:,} validation images"
        )
    if not m["row"]["comparable"]:
        print(
            "note: these are not the official ILSVRC-2012 archives; results on them are not "
            "comparable with the paper's"
        )


@app.command("verify")
def data_verify(
    name: Annotated[str, typer.Argument(help="A prepared dataset's name or id.")],
    against: Annotated[
        Path | None,
        typer.Option(
            help="The official CIFAR-10 archive; a copy that equals it becomes comparable."
        ),
    ] = None,
    storage_uri: StorageOption = "results",
) -> None:
    """Recompute a prepared dataset's checksum and id from its images and labels.

    Example: `resnet-repro data verify my-parquet-copy --against cifar-10-binary.tar.gz`
    """
    from pipeline.data.datasets import verify_dataset
    from pipeline.data.lookup import manifest_of, verify_against
    from pipeline.data.photo_shards import holds_photographs, verify_photos
    from pipeline.errors import InputError

    storage = Storage(storage_uri)
    manifest = manifest_of(storage, name)
    if holds_photographs(manifest):
        if against is not None:
            raise InputError(
                f"--against: {name} is of photographs; the official archives are read by `data "
                "prepare`"
            )
        with screen.progress(f"verifying {name}") as report:
            verify_photos(storage, manifest, report)
        print(f"{manifest['row']['name']} {manifest['id']}: every shard, image and label is right")
        return
    dataset = verify_dataset(storage, manifest["id"])
    print(f"{dataset.row.name} {dataset.id}: checksum and id are right")
    if against is not None:
        verify_against(storage, name, against)
        print("it is the official CIFAR-10: results on it are comparable with the paper's")
