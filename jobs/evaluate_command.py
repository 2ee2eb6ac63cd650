"""`resnet-repro evaluate`: test errors of finished runs and of weights files, alone or as an ensemble."""

import json
from dataclasses import replace
from typing import Annotated

import typer

from jobs.evaluate import SINGLE_VIEW, Model, Work, model_named, score_here, score_on_ray
from jobs.options import (
    AddressOption,
    AsOption,
    DataOption,
    Device,
    DeviceOption,
    JsonOption,
    SetOption,
    StorageOption,
    manifest_named,
    writable,
)
from jobs.request import check_suits
from pipeline.errors import InputError
from pipeline.metrics import PROTOCOLS
from pipeline.photos import holds_photographs


def evaluate(
    models: Annotated[
        list[str], typer.Argument(metavar="RUN|WEIGHTS...", help="Runs' folders or rows' names; or weights files.")
    ],
    experiment: AsOption = None,
    protocol: Annotated[
        str | None, typer.Option(help=f"Of photographs: {', '.join(PROTOCOLS)}, or all; small images have one.")
    ] = None,
    ensemble: Annotated[bool, typer.Option("--ensemble", help="Score all together: the mean of their scores.")] = False,
    data: DataOption = "",
    settings: SetOption = [],  # noqa: B006  (Typer reads it, nobody writes it)
    storage: StorageOption = "results",
    device: DeviceOption = Device.AUTO,
    workers: Annotated[int, typer.Option(min=1, help="Workers that share the images, on Ray if several.")] = 1,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Test errors of networks: a run's final one, or a weights file (safetensors, or torchvision's .pth) with `--as`.

    Each photograph counts once, on any number of workers.

    Examples:

    * `resnet-repro evaluate model/weights.safetensors --as resnet20 --data digits`

    * `resnet-repro evaluate resnet50 --protocol all --workers 8`

    * `resnet-repro evaluate --ensemble resnet50 resnet101 resnet152 --protocol multi_scale`

    * `resnet-repro evaluate resnet50.pth --as resnet50 --set bottleneck_stride=3x3 --set normalisation=channel_mean_std --data imagenet`
    """
    place = writable(storage)
    chosen = [model_named(place, which, experiment, settings) for which in models]
    manifest = manifest_named(place, data or _dataset_of(chosen))
    photographs = holds_photographs(manifest)
    for model in chosen:
        check_suits(model.row, manifest["row"]["name"], photographs)
    protocols = _protocols(protocol, photographs)
    if ensemble and not photographs:
        raise InputError("--ensemble: is for photographs; the paper has no ensemble on small images")
    together = [chosen] if ensemble else [[model] for model in chosen]
    work = Work([], "", place.uri, manifest["id"], _use_gpu(device), threads=0)
    rows = []
    for several, name in ((several, name) for several in together for name in protocols):
        found = _score(replace(work, models=several, protocol=name), workers, address)
        names = [model.name for model in several]
        rows.append(
            {
                "models": names,
                "experiment": several[0].row.name,
                "dataset_id": manifest["id"],
                "protocol": name,
                **found,
            }
        )
        if not as_json:
            _say(names, name, found)
    if as_json:
        print(json.dumps(rows, indent=1))


def _dataset_of(chosen: list[Model]) -> str:
    """The dataset on which the runs were trained; digits for weights files.

    Raises:
        InputError: runs on several datasets.
    """
    known = sorted({model.dataset_id for model in chosen if model.dataset_id})
    if len(known) > 1:
        raise InputError(f"the runs are on {len(known)} datasets ({', '.join(known)}); name one with --data")
    return known[0] if known else "digits"


def _protocols(protocol: str | None, photographs: bool) -> list[str]:
    if not photographs:
        if protocol not in (None, SINGLE_VIEW):
            raise InputError(f"--protocol {protocol}: small images are tested in their single view")
        return [SINGLE_VIEW]
    if protocol in (None, "all"):
        return list(PROTOCOLS) if protocol else ["center_crop"]
    if protocol not in PROTOCOLS:
        raise InputError(f"--protocol {protocol}: wanted is one of {', '.join(PROTOCOLS)}, or all")
    return [str(protocol)]


def _use_gpu(device: Device) -> bool:
    import torch

    return device is Device.GPU or (device is Device.AUTO and torch.cuda.is_available())


def _score(work: Work, workers: int, address: str | None) -> dict[str, float]:
    from jobs.bench.measure import cpus
    from jobs.cluster import connected

    if workers == 1 and address is None:
        return score_here(replace(work, threads=cpus()))
    with connected(address):
        return score_on_ray(replace(work, threads=max(1, cpus() // workers)), workers)


def _say(names: list[str], protocol: str, found: dict[str, float]) -> None:
    who = names[0] if len(names) == 1 else f"ensemble of {len(names)}"
    if protocol == SINGLE_VIEW:
        print(f"{found['top1_err']:.2f} % of {found['count']:,} test images wrong ({found['wrong']:,})")
        return
    print(
        f"{who}, {protocol}: {found['top1_err']:.2f} % top-1 and {found['top5_err']:.2f} % top-5 error on "
        f"{found['count']:,} photographs",
        flush=True,
    )
