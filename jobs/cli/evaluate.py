"""`resnet-repro evaluate` and `predict`: what finished networks make of images.

Test errors of runs and weights files, alone or together; or the likeliest classes of pictures.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import blake2b
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.execution.evaluate import (
    SINGLE_VIEW,
    Model,
    ScoringTask,
    score_here,
    score_on_ray,
)
from jobs.execution.processors import usable_cpus, usable_gpus
from jobs.requests.completion import completing, datasets, protocols, runs_or_weights
from jobs.requests.options import (
    HARDWARE,
    AddressOption,
    AsOption,
    Device,
    DeviceOption,
    JsonOption,
    PaddingOption,
    SetOption,
    StorageOption,
    TrackingOption,
    check_tracking,
    dataset_option,
    manifest_named,
    tracking_of,
    writable,
)
from pipeline.errors import InputError
from pipeline.recipe.experiments import Experiment
from pipeline.recipe.metrics import PROTOCOLS
from pipeline.recipe.overrides import changes_text
from pipeline.runs.provenance import source_commit
from pipeline.storage import Storage

ModelsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN|FOLDER|WEIGHTS",
        help="Runs by their folder, or by their experiment where that is enough; folders of "
        "`results weights`; or weights files.",
        autocompletion=runs_or_weights,
    ),
]
ProtocolOption = Annotated[
    str | None,
    typer.Option(
        metavar="PROTOCOL",
        help=f"Of photographs: {', '.join(PROTOCOLS)}, or all; small images have one.",
        autocompletion=completing(protocols),
    ),
]
KeepOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Keep an ensemble or weights made elsewhere under this name, for Tables 3 to 5.",
    ),
]
EvaluatedDataOption = Annotated[
    str,
    dataset_option("; default: the runs' own, and of weights files the paper's for their network"),
]
ScoringWorkersOption = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=1,
        help="Workers that share the images, on Ray if several.",
        rich_help_panel=HARDWARE,
    ),
]


def evaluate(
    models: ModelsArgument,
    experiment_name: AsOption = None,
    protocol: ProtocolOption = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Score all together: the mean of their scores.")
    ] = False,
    keep: KeepOption = None,
    data: EvaluatedDataOption = "",
    settings: SetOption = [],  # noqa: B006  (Typer reads it, nobody writes it)
    padding: PaddingOption = None,
    storage_uri: StorageOption = "results",
    tracking: TrackingOption = None,
    device: DeviceOption = Device.AUTO,
    workers: ScoringWorkersOption = 1,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Test errors of networks: a run's final one, an exported one, or a weights file with `--as`.

    Weights are safetensors or what torch.save wrote, in torchvision's names or what is usual
    instead; notes say what was made of them. Each photograph counts once, on any number of workers.

    Examples:

    * `resnet-repro evaluate model/weights.safetensors --as resnet20 --data digits`

    * `resnet-repro evaluate resnet50 --protocol all --workers 8`

    * `resnet-repro evaluate --ensemble resnet50 resnet101 resnet152 --protocol multi_scale --keep
      three-depths`

    * `resnet-repro evaluate resnet50.pth --as resnet50 --set bottleneck_stride=3x3 --set
      normalisation=torchvision --data imagenet`
    """
    from jobs.requests.requested_runs import check_suits
    from jobs.requests.stored_runs import model_named
    from jobs.tracking.other_publications import publish_evaluation
    from jobs.tracking.where_to_look import say_where_to_look
    from pipeline.data.photo_shards import holds_photographs

    # Everything that can be refused is, before a dataset is staged or a worker started.
    storage = writable(storage_uri)
    chosen = [
        model_named(storage, which, experiment_name, settings, padding, data) for which in models
    ]
    # Runs bring their dataset with them; a weights file has none, so the paper's.
    manifest = manifest_named(storage, data or _dataset_of(chosen))
    photographs = holds_photographs(manifest)
    for model in chosen:
        check_suits(model.experiment, manifest["row"]["name"], photographs)
    protocols = _protocols(protocol, photographs)
    # The paper averages networks on ImageNet alone.
    if ensemble and not photographs:
        raise InputError(
            "--ensemble: is for photographs; the paper has no ensemble on small images"
        )
    if keep is not None:
        _check_kept(chosen, ensemble, photographs)
        store = tracking_of(tracking, storage)
        check_tracking(store, storage)
    # A group is what is scored together: all of them, or each model by itself.
    groups = [chosen] if ensemble else [[model] for model in chosen]
    rows = []
    experiments = [model.experiment for model in chosen]
    with _scorer(storage, manifest["id"], experiments, device, workers, address) as score:
        for group, name in product(groups, protocols):
            errors = score(group, name)
            about: dict[str, Any] = {"models": [model.name for model in group]}
            about |= {"experiment": group[0].experiment.name, "dataset_id": manifest["id"]}
            rows.append({**about, "protocol": name, **errors})
            if not as_json:
                _say(about["models"], name, errors)
    if keep is not None:
        publish_evaluation(store, storage, _kept(keep, chosen, ensemble, rows))
    if as_json:
        print(json.dumps(rows, indent=1))
    # A storage without runs has no report to make, and nothing in MLflow.
    elif storage.names("runs"):
        with suppress(InputError):  # a tracking store that cannot be named is none to look at
            say_where_to_look(tracking_of(tracking, storage), storage)


def predict(
    pictures: Annotated[
        list[Path], typer.Argument(metavar="PICTURE", help="JPEG, PNG, WebP and the like.")
    ],
    which: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="RUN|FOLDER|WEIGHTS",
            help="A run of the storage, a folder of `results weights`, or a weights file.",
            autocompletion=runs_or_weights,
        ),
    ],
    experiment_name: AsOption = None,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="DATASET",
            help="Of weights made elsewhere: the dataset of their classes.",
            autocompletion=datasets,
        ),
    ] = "",
    settings: SetOption = [],  # noqa: B006  (Typer reads it, nobody writes it)
    padding: PaddingOption = None,
    storage_uri: StorageOption = "results",
    as_json: JsonOption = False,
) -> None:
    """The five likeliest classes of pictures, by the test protocol of the network's row.

    Pictures in grey, CMYK or with transparency become RGB as those of a dataset do. Computes on
    this machine's CPU.

    Examples:

    * `resnet-repro predict seven.png --model resnet20 --storage results/demo`

    * `resnet-repro predict cat.jpg dog.webp --model weights/resnet34-b-imagenet-1a2b3c4d-seed-0`

    * `resnet-repro predict cat.jpg --model resnet50.pth --as resnet50 --set bottleneck_stride=3x3
      --set normalisation=torchvision`
    """
    from jobs.requests.pictures import check_pictures, predictor_named, read_picture

    # All pictures are looked at before a network is made: a wrong name ends the command at once.
    check_pictures(pictures)
    predictor = predictor_named(
        Storage(storage_uri), which, experiment_name, settings, padding, data
    )
    rows: list[dict[str, Any]] = []
    resized = False
    for picture in pictures:
        image = read_picture(picture)
        if not resized and predictor.preprocessing.is_of_another_size(image):
            resized = True
            side = predictor.preprocessing.side
            print(
                f"note: {picture}: is resized, as all that are not {side}x{side} pixels, which is "
                "what the network was trained on; of the longer side the centre is taken",
                file=sys.stderr,
            )
        likeliest = predictor.likeliest(image)
        classes = [{"class": c.number, "name": c.name, "probability": c.probability}
                   for c in likeliest]  # fmt: skip
        rows.append({"picture": str(picture), "size": list(image.size), "likeliest": classes})
        if not as_json:
            print(f"{picture}: {image.width}x{image.height} pixels")
            for each in likeliest:
                print(f"{100 * each.probability:7.2f} %  {each.name}", flush=True)
    if as_json:
        print(json.dumps(rows, indent=1))


def _check_kept(chosen: list[Model], ensemble: bool, photographs: bool) -> None:
    """Refuse what no table has a place for.

    Raises:
        InputError: says what has.
    """
    if not photographs or not (ensemble or len(chosen) == 1):
        raise InputError("--keep: is for one ensemble, or for one file of weights, on photographs")
    if ensemble and not all(model.run for model in chosen):
        raise InputError("--keep: an ensemble that is kept is of runs, so that its origin is known")
    if not ensemble and chosen[0].run:
        raise InputError(
            f"--keep: {chosen[0].name} was measured when it ended; the tables have it already"
        )


def _kept(
    name: str, chosen: list[Model], ensemble: bool, rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The rows as `analysis.measured.frames.EVALUATIONS` has them."""
    # A run is named by its key, which the reader of a table can look up. Weights made elsewhere
    # have none: their checksum says which file it was.
    peer = chosen[0]
    members: list[Any] = [model.run.key for model in chosen if model.run]
    if not ensemble:
        checksum = blake2b(peer.weights, digest_size=16).hexdigest()
        members = [
            {
                "file": peer.name,
                "checksum": checksum,
                "experiment": peer.experiment.name,
                "changes": changes_text(peer.experiment),
            }
        ]
    # The same networks on the same data are one evaluation, in whatever order they are named.
    kind = "ensemble" if ensemble else "peer"
    identity = json.dumps([kind, sorted(map(str, members)), rows[0]["dataset_id"]])
    commit = source_commit()
    about: dict[str, Any] = {
        "evaluation": blake2b(identity.encode(), digest_size=8).hexdigest(),
        "kind": kind,
        "name": name,
        "members": json.dumps(members),
        "commit": str(commit.get("commit", "unknown")),
        "dirty": bool(commit.get("dirty")),
    }
    columns = ("dataset_id", "protocol", "top1_err", "top5_err", "count")
    return [about | {column: row[column] for column in columns} for row in rows]


def _dataset_of(chosen: list[Model]) -> str:
    """The dataset on which the runs were trained; for weights files the paper's.

    Raises:
        InputError: runs or files of several datasets.
    """
    # Mixing datasets would average errors on different images.
    known = sorted({model.dataset for model in chosen if model.dataset})
    known = known or sorted({model.experiment.dataset for model in chosen})
    if len(known) > 1:
        raise InputError(
            f"the models are on {len(known)} datasets ({', '.join(known)}); name one with --data"
        )
    return known[0]


def _protocols(protocol: str | None, photographs: bool) -> list[str]:
    if not photographs:
        if protocol not in (None, SINGLE_VIEW):
            raise InputError(f"--protocol {protocol}: small images are tested in their single view")
        return [SINGLE_VIEW]
    if protocol in (None, "all"):
        return list(PROTOCOLS) if protocol else ["center_crop"]
    if protocol not in PROTOCOLS:
        raise InputError(f"--protocol {protocol}: expected one of {', '.join(PROTOCOLS)}, or all")
    return [str(protocol)]


@contextmanager
def _scorer(
    storage: Storage,
    dataset_id: str,
    experiments: list[Experiment],
    device: Device,
    workers: int,
    address: str | None,
) -> Iterator[Callable[[list[Model], str], dict[str, float]]]:
    """What scores models by a protocol: this process, or workers where a cluster is asked for."""
    from jobs.requests.requested_runs import check_precision, resolve_resources

    # Starting Ray takes longer than scoring small images, so a single worker is this process.
    task = ScoringTask([], "", storage.uri, dataset_id, use_gpu=False, threads=usable_cpus())
    if workers == 1 and not (address or os.environ.get("RAY_ADDRESS")):
        use_gpu = device is not Device.CPU and usable_gpus() > 0
        if device is Device.GPU and not use_gpu:
            raise InputError("--device gpu: torch finds no GPU here; leave it out, or use another")
        check_precision(experiments, on_cpus=not use_gpu)
        yield lambda models, protocol: score_here(
            replace(task, models=models, protocol=protocol, use_gpu=use_gpu)
        )
        return
    from jobs.execution.cluster import connected
    from pipeline.runs.execution import Execution

    with connected(address, trains=True):
        execution, _ = resolve_resources(
            Execution(storage=storage.uri, workers=workers),
            device,
            threads=None,
            runs=1,
            experiments=experiments,
        )
        task = replace(task, use_gpu=execution.use_gpu, threads=execution.threads)
        each = execution.each_worker
        yield lambda models, protocol: score_on_ray(
            replace(task, models=models, protocol=protocol), workers, each
        )


def _say(names: list[str], protocol: str, errors: dict[str, float]) -> None:
    who = names[0] if len(names) == 1 else f"ensemble of {len(names)}"
    top1, images = f"{errors['top1_err']:.2f} %", f"{errors['count']:,}"
    if protocol == SINGLE_VIEW:
        print(f"{top1} of {images} test images wrong ({errors['wrong']:,})")
        return
    top5, rate = f"{errors['top5_err']:.2f} %", f"{errors['photographs_per_second']:,.0f}"
    print(
        f"{who}, {protocol}: {top1} top-1 and {top5} top-5 error on {images} photographs "
        f"({rate} a second)",
        flush=True,
    )
