"""`resnet-repro data`: prepare, list and verify datasets."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from jobs import screen
from jobs.options import JsonOption, StorageOption, writable
from pipeline.storage import Storage

app = typer.Typer(no_args_is_help=True, help="Prepare, list and verify datasets.")


@app.command("list")
def data_list(storage: StorageOption = "results", as_json: JsonOption = False) -> None:
    """Show the datasets that are known, and those prepared in storage.

    Example: `resnet-repro data list --storage results/demo`
    """
    from pipeline.datasets import DATASETS, stored_manifests

    table = Table(title=f"Datasets (prepared in {storage})", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("name", "id", "train", "test", "image", "comparable"):
        table.add_column(name, no_wrap=True)
    prepared = stored_manifests(Storage(storage))
    if as_json:
        known = [{"name": row.name, "arrives": row.arrives} for row in DATASETS.values()]
        print(
            json.dumps(
                [{"prepared": True, **m} for m in prepared] + [{"prepared": False, **row} for row in known], indent=1
            )
        )
        return
    for m in prepared:
        side, comparable = m["row"]["side"], "yes" if m["row"]["comparable"] else "no"
        counts = (f"{m['train_images']:,}", f"{m['test_images']:,}")
        table.add_row(m["row"]["name"], m["id"], *counts, f"{side}x{side}", comparable)
    screen.console.print(table)
    for row in DATASETS.values():
        if row.name not in {m["row"]["name"] for m in prepared}:
            print(f"not prepared: {row.name} ({row.arrives})")


@app.command("prepare")
def data_prepare(
    name: Annotated[str, typer.Argument(help="digits, cifar10, fashion-mnist, or a name of your own with --from.")],
    path: Annotated[
        Path | None, typer.Option("--from", help="The official archive, or a folder of parquet or IDX files.")
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch the official files.")] = False,
    storage: StorageOption = "results",
) -> None:
    """Check a dataset's files and write them into storage in canonical form.

    Examples:

    * `resnet-repro data prepare cifar10 --download`

    * `resnet-repro data prepare cifar10 --from cifar-10-binary.tar.gz`

    * `resnet-repro data prepare photographs --from parquet/ --storage /mnt/shared/resnet`
    """
    from jobs.data import prepare

    place = writable(storage)
    with screen.progress(f"preparing {name}") as report:
        m = prepare(place, name, path, download, report)
    print(
        f"{m['row']['name']} {m['id']}: {m['train_images']:,} training and {m['test_images']:,} test images in {place.uri}"
    )


@app.command("verify")
def data_verify(
    name: Annotated[str, typer.Argument(help="A prepared dataset's name or id.")],
    against: Annotated[
        Path | None, typer.Option(help="The official CIFAR-10 archive; a copy that equals it becomes comparable.")
    ] = None,
    storage: StorageOption = "results",
) -> None:
    """Recompute a prepared dataset's checksum and id from its images and labels.

    Example: `resnet-repro data verify my-parquet-copy --against cifar-10-binary.tar.gz`
    """
    from jobs.data import manifest_of, verify_against
    from pipeline.datasets import verify_dataset

    place = Storage(storage)
    dataset = verify_dataset(place, manifest_of(place, name)["id"])
    print(f"{dataset.row.name} {dataset.id}: checksum and id are right")
    if against is not None:
        verify_against(place, name, against)
        print("it is the official CIFAR-10: results on it are comparable with the paper's")
