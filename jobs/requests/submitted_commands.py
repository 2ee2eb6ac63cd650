"""A command that is to be carried out elsewhere, checked here: refused before anything is sent."""

import shlex
from typing import Annotated, Any

import typer

from jobs.requests.completion import commands
from jobs.requests.options import tracking_in_environment
from pipeline.errors import InputError, redacted

SENT = ("train", "grid", "evaluate", "verify", "report", "sync", "data", "doctor", "plan")
"""The commands that make sense on a cluster."""

CommandArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="COMMAND",
        show_default=False,
        help=f"What is carried out there, with its own options: {', '.join(SENT)}.",
        autocompletion=commands(SENT),
    ),
]
"""The last of what a command takes that hands another one on."""


def check_command(arguments: list[str]) -> None:
    """Refuse a command that would not find on the cluster what it names here.

    Raises:
        InputError: another command, a storage that only this machine has, or data on this machine.
    """
    if not arguments or arguments[0] not in SENT:
        raise InputError(
            f"submit: expected one of {', '.join(SENT)}, as in `resnet-repro submit grid table6 "
            "...`"
        )
    # Ray keeps a job's command line for everyone who sees its dashboard.
    if any(word != redacted(word) for word in arguments):
        raise InputError(
            "submit: a password in an address would be stored with the job; set "
            "MLFLOW_TRACKING_USERNAME and _PASSWORD, or AWS_SECRET_ACCESS_KEY, where the cluster "
            "is started, and name them with --need"
        )
    # Imported here, as `--help` of what checks commands need not wait for numpy.
    from pipeline.data.catalogue.table import DATASETS
    from pipeline.data.preparation import is_path

    storage = value_of(arguments, "--storage")
    if storage is None or not ("://" in storage or storage.startswith("/")):
        raise InputError(
            f"submit: --storage {storage or '(not given)'} is on this machine; name a folder that "
            "every node sees by the same full path, or s3://bucket/place"
        )
    # A name is looked up on the cluster. A path of this machine is not there.
    data = value_of(arguments, "--data")
    if data and data not in DATASETS and ("/" in data or is_path(data)):
        raise InputError(
            f"submit: --data {data} is a path, which the nodes do not have; put it into storage by "
            f"`resnet-repro data prepare NAME --from {data} --storage {storage}` where both are "
            "seen, then name it"
        )


def value_of(arguments: list[str], option: str) -> str | None:
    """What an option is given in a command line; None if it is not."""
    for number, word in enumerate(arguments):
        if word == option and number + 1 < len(arguments):
            return arguments[number + 1]
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


def with_tracking(context: typer.Context, arguments: list[str]) -> list[str]:
    """A command that names the tracking store that this machine's environment names.

    The cluster's environment does not, and the command would do something else there than here.
    """
    if not arguments or arguments[0] not in SENT or value_of(arguments, "--tracking") is not None:
        return arguments
    command, _ = _command(context, arguments)
    if not any("--tracking" in parameter.opts for parameter in command.params):
        return arguments
    store = tracking_in_environment()
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return [*arguments[:at], "--tracking", store, *arguments[at:]] if store else arguments


def parse_only(context: typer.Context, arguments: list[str]) -> None:
    """Refuse here what the command line would refuse there; nothing is run."""
    command, rest = _command(context, arguments)
    # Typer parses and checks all options here, and stops before it would call the command.
    command.make_context(arguments[0], rest, parent=context.find_root())


def _command(context: typer.Context, arguments: list[str]) -> tuple[Any, list[str]]:
    """The command that arguments name, and what is left of them for it."""
    commands: Any = context.find_root().command
    command = commands.commands[arguments[0]]
    rest = arguments[1:]
    # Down through groups such as `data prepare` to the command itself.
    while hasattr(command, "commands"):
        if not rest or rest[0] not in command.commands:
            raise InputError(
                f"{shlex.join(arguments)}: expected one of {', '.join(command.commands)}"
            )
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest
