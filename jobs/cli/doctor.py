"""`resnet-repro doctor`: whether a cluster can do what it is about to be asked."""

import json
from dataclasses import asdict, replace
from typing import Annotated

import typer

from jobs.console.console import console
from jobs.requests.completion import prepared_datasets
from jobs.requests.options import (
    AddressOption,
    Device,
    DeviceOption,
    JsonOption,
    StorageOption,
    TrackingOption,
    WorkersOption,
    tracking_of,
    workers_of,
    writable,
)
from jobs.requests.training_options import (
    GpusOption,
)
from pipeline.runs.execution import Execution

MARKS = {"fine": "[green]fine   [/]", "warning": "[yellow]warning[/]", "problem": "[red]problem[/]"}


def doctor(
    storage_uri: StorageOption = "results",
    tracking: TrackingOption = None,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="DATASET",
            help="A prepared dataset that every node has to see.",
            autocompletion=prepared_datasets,
        ),
    ] = "",
    workers: WorkersOption = "1",
    device: DeviceOption = Device.AUTO,
    gpus: GpusOption = 1.0,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Examine a cluster in under a minute, before anything is billed; exit code 1 for a problem.

    Versions, storage from every node, data, MLflow with the name it is called by, disks, clocks,
    the network between nodes, and whether the workers asked for can ever be had. Each GPU computes
    a product, at once and from a captured graph. Each finding says what to do. Example:

    * `resnet-repro doctor --address auto --storage /mnt/shared/resnet --tracking
      http://10.0.0.5:5000 --data cifar10 --workers 8`
    """
    from rich.markup import escape

    from jobs.doctor.examination import examine_cluster
    from jobs.execution.cluster import connected, nodes
    from jobs.requests.requested_runs import on_gpus
    from pipeline.data.stored import require_stored

    # Only the fewest workers have to fit: a run with a range takes what there is room for.
    fewest, _ = workers_of(workers)
    storage = writable(storage_uri)
    store = tracking_of(tracking, storage)
    dataset = require_stored(storage, data)["id"] if data else ""
    # The dataset is looked up before connecting, so that a wrong name costs no start of Ray.
    with connected(address):
        execution = Execution(storage=storage.uri, tracking=store, workers=fewest, gpus=gpus)
        # What a worker takes follows from the device, which `auto` leaves to the cluster.
        execution = replace(execution, use_gpu=on_gpus(nodes(), execution, device))
        findings = examine_cluster(storage, store, dataset, fewest, execution.each_worker)
    # A person gets the remedy in the same line; a script gets it in a field of its own.
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            remedy = f"; {finding.remedy}" if finding.remedy else ""
            says = escape(f"{finding.subject:<13} {finding.says}{remedy}")
            console.print(f"{MARKS[finding.level]} {says}", highlight=False, soft_wrap=True)
    if any(finding.level == "problem" for finding in findings):
        raise SystemExit(1)
