"""`resnet-repro manifests`: what Kubernetes or Slurm is handed to carry out a command, as files."""

import re
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.console.command_help import PlainGroup
from jobs.execution.submission import job_name
from jobs.requests.submitted_commands import (
    CommandArgument,
    check_command,
    parse_only,
    value_of,
)
from pipeline.errors import InputError, redacted

TRACKING = "http://mlflow:5000"
TRACKED = ("train", "grid", "evaluate", "report", "sync", "doctor")
"""The commands that take `--tracking`."""

TIME_LIMIT = r"\d+(:\d\d){0,2}|\d+-\d+(:\d\d){0,2}"
"""As `sbatch --time` takes it."""


class KubernetesByDefault(PlainGroup):
    """`manifests --image ...` is Kubernetes': the command is older than its kinds."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the name of the kind in where it was left out."""
        if args and args[0] not in (*self.commands, "--help"):
            args = ["kubernetes", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=KubernetesByDefault,
    no_args_is_help=True,
    help="Write the files by which Kubernetes or Slurm carries out a command.",
)

ImageOption = Annotated[
    str,
    typer.Option(metavar="IMAGE", help="The image of deploy/Dockerfile, as the cluster pulls it."),
]
ArtifactsOption = Annotated[
    str,
    typer.Option(metavar="URI", help="Where MLflow keeps artifacts, such as s3://bucket/mlflow."),
]
HeadSelectorOption = Annotated[
    str,
    typer.Option(metavar="LABEL=VALUE", help="Of nodes for the head: neither GPU nor spot."),
]
ServiceAccountOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="The pods' service account, where a role of its may read the bucket.",
    ),
]
RetriesOption = Annotated[
    int,
    typer.Option(min=0, help="Clusters that are built again for a job; each one continues."),
]
HoursOption = Annotated[
    float,
    typer.Option(
        min=0.1, help="After which a job is ended in any case, all its clusters together."
    ),
]


def kubernetes(
    context: typer.Context,
    command: CommandArgument = None,
    *,
    image: ImageOption,
    artifacts: ArtifactsOption,
    out: Annotated[Path, typer.Option(help="The folder the files are written to.")] = Path(
        "manifests"
    ),
    nodes: Annotated[int, typer.Option(min=1, help="GPU nodes at the most.")] = 1,
    gpus_per_node: Annotated[int, typer.Option(min=0, help="GPUs of each.")] = 8,
    cpus: Annotated[int, typer.Option(min=1, help="CPUs of each.")] = 88,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Memory of each.")] = "700Gi",
    namespace: Annotated[
        str, typer.Option(metavar="NAME", help="Where all of it lives.")
    ] = "resnet-repro",
    head_selector: HeadSelectorOption = "",
    worker_selector: Annotated[
        str, typer.Option(metavar="LABEL=VALUE", help="Of the GPU nodes.")
    ] = "",
    service_account: ServiceAccountOption = "",
    retries: RetriesOption = 3,
    hours: HoursOption = 168.0,
) -> None:
    """Write `mlflow.yaml`, `raycluster.yaml` and, for a command, `rayjob.yaml` for Kubernetes.

    They need the KubeRay operator. A job's MLflow server is the one of `mlflow.yaml`, unless the
    command names another. Example:

    * `resnet-repro manifests kubernetes --image registry/resnet-repro:1 --artifacts
      s3://bucket/mlflow --nodes 4 grid table6 --data cifar10 --storage s3://bucket/resnet`
    """
    command = command or []
    # What the templates are filled with; StrictUndefined makes an error of one that is missing.
    values: dict[str, Any] = {
        "image": image,
        "artifacts": artifacts,
        "nodes": nodes,
        "gpus_per_node": gpus_per_node,
        "cpus": cpus,
        "memory": memory,
        "namespace": _plain("--namespace", namespace),
        "ray_version": version("ray"),
        "head_selector": _selector("--head-selector", head_selector),
        "worker_selector": _selector("--worker-selector", worker_selector),
        "retries": retries,
        # All clusters of a job share the hours, and KubeRay counts them for each one.
        "deadline": round(3600 * hours / (retries + 1)),
        "service_account": _plain("--service-account", service_account),
    }
    # Pods come and go: artifacts in a folder would go with them, and a password would be readable
    # by everyone who may read a manifest.
    if "://" not in artifacts or artifacts != redacted(artifacts):
        raise InputError(
            f"--artifacts {artifacts}: expected an address without a password, such as "
            "s3://bucket/mlflow"
        )
    if command:
        values |= _job_values(context, command)
    names = ["mlflow", "raycluster"]
    if command:
        names.append("rayjob")
    for name in names:
        _write(out / f"{name}.yaml", rendered(f"{name}.yaml.j2", values))


def slurm(
    context: typer.Context,
    command: CommandArgument = None,
    out: Annotated[Path, typer.Option(help="The folder the script is written to.")] = Path(
        "manifests"
    ),
    nodes: Annotated[int, typer.Option(min=1, help="Nodes; several are taken whole.")] = 1,
    gpus_per_node: Annotated[int, typer.Option(min=0, help="GPUs of each.")] = 1,
    cpus: Annotated[int, typer.Option(min=1, help="CPUs of each.")] = 8,
    memory: Annotated[
        str, typer.Option(metavar="SIZE", help="Memory of each, as 64G; default: the cluster's.")
    ] = "",
    time: Annotated[
        str,
        typer.Option(
            metavar="HH:MM:SS", help="Time limit of a job; then another one continues it."
        ),
    ] = "24:00:00",
    partition: Annotated[
        str, typer.Option(metavar="NAME", help="Where; default: the cluster's.")
    ] = "",
    account: Annotated[str, typer.Option(metavar="NAME", help="Who pays; default: yours.")] = "",
    sbatch: Annotated[
        list[str],
        typer.Option(metavar="OPTION", help="Any other option of sbatch, as --sbatch=--qos=long."),
    ] = [],  # noqa: B006  (Typer reads it, nobody writes it)
    setup: Annotated[
        list[str],
        typer.Option(
            metavar="LINE", help="A line of shell that is run first, as '. ~/venv/bin/activate'."
        ),
    ] = [],  # noqa: B006
    signal_seconds: Annotated[
        int,
        typer.Option(
            metavar="SECONDS", min=60, help="So long before the limit it saves and leaves."
        ),
    ] = 120,
    requeues: Annotated[int, typer.Option(min=0, help="How often it is continued.")] = 100,
) -> None:
    """Write `slurm.sbatch`, which carries out a command on nodes of a Slurm cluster.

    Before its time limit the job saves, and is put into the queue again to go on. Example:

    * `resnet-repro manifests slurm --nodes 2 --gpus-per-node 4 --cpus 32 --partition gpu --setup ".
      ~/venv/bin/activate" grid table6 --data cifar10 --storage /scratch/me/resnet`
    """
    command = command or []
    check_command(command)
    parse_only(context, command)
    if not re.fullmatch(TIME_LIMIT, time):
        raise InputError(f"--time {time}: expected minutes, HH:MM:SS or DAYS-HH:MM:SS")
    options = {"--partition": partition, "--account": account, "--mem": memory}
    lines = [f"{option}={value}" for option, value in options.items() if value]
    for line in (*lines, *sbatch):
        if not re.fullmatch(r"--?[a-zA-Z][\w-]*([ =]\S+)?", line):
            raise InputError(f"{line}: expected one option of sbatch without spaces in its value")
    if any(line != redacted(line) for line in setup):
        raise InputError("--setup: a password would be readable in the script; read it from a file")
    values = {
        "name": job_name(command),
        "command": f"resnet-repro {shlex.join(command)}",
        "nodes": nodes,
        "gpus_per_node": gpus_per_node,
        "cpus": cpus,
        "time": time,
        "options": [*lines, *sbatch],
        "setup": setup,
        "signal_seconds": signal_seconds,
        "requeues": requeues,
    }
    _write(out / "slurm.sbatch", rendered("slurm.sbatch.j2", values))


def _write(path: Path, text: str) -> None:
    """Write a file and say where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    print(path)


def _job_values(context: typer.Context, command: list[str]) -> dict[str, str]:
    """What the job's template is filled with, for a command that is checked as `submit` does it.

    A job that is refused on the cluster costs the cluster's start.
    """
    check_command(command)
    # A full path would pass `submit`, whose nodes may share a disk. Pods share none.
    if "://" not in (value_of(command, "--storage") or ""):
        raise InputError("manifests: pods share no folder; name --storage s3://bucket/place")
    # Without it the run would open SQLite in the pod, where nobody finds it.
    if value_of(command, "--tracking") is None and command[0] in TRACKED:
        command = [*command, "--tracking", TRACKING]
    parse_only(context, command)
    return {"name": job_name(command), "entrypoint": f"resnet-repro {shlex.join(command)}"}


def rendered(template: str, values: dict[str, Any]) -> str:
    """A manifest's text; a value that a template needs and nobody gave is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("deploy", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values)


def _plain(option: str, text: str) -> str:
    """A name as Kubernetes knows them, or none.

    Raises:
        InputError: it is something else.
    """
    # Both end up in YAML: what is no plain name could end the value and begin another key.
    if text and not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", text):
        raise InputError(f"{option} {text}: expected a name of small letters, digits, - and .")
    return text


def _selector(option: str, text: str) -> str:
    """A node selector as YAML; `{}` for any node.

    Raises:
        InputError: it is no LABEL=VALUE.
    """
    if not text:
        return "{}"
    label, equals, value = text.partition("=")
    if not (label and equals and value) or any(mark in text for mark in "{}\"'\n"):
        raise InputError(
            f"{option} {text}: expected LABEL=VALUE, such as cloud.google.com/gke-spot=true"
        )
    return f'{{{label}: "{value}"}}'
