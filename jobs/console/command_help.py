"""How the pages of `--help` look: what somebody types, and no names of Python's types.

Typer writes `<bool>` beside every flag, as if it took a value, `<int range> [x<=10000000]` beside
numbers and `<list[str]>` beside arguments. What a number may be is said where one is refused.
"""

from typing import Any

from typer import Typer
from typer.core import TyperCommand, TyperGroup

METAVARS = {"int": "N", "float": "NUMBER", "str": "TEXT", "Path": "PATH"}
"""What stands for a value, by its type, where an option does not say it itself."""


def _in_plain_words(params: list[Any]) -> list[Any]:
    """The parameters, as a page of help shows them."""
    for param in params:
        param._get_number_range_help_str = _nothing
        if param.param_type_name == "argument":
            param.display_type_rich = _nothing
        elif param.metavar is None and param.is_flag:
            # Typer shows a metavar instead of the type, an empty one too.
            param.metavar = ""
        elif param.metavar is None:
            name = param.bare_type().removeprefix("list[").removesuffix("]")
            param.metavar = METAVARS.get(name)
    return params


def _nothing(*_: Any, **__: Any) -> None:
    return None


class PlainCommand(TyperCommand):
    """A command whose page of help shows no types."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its parameters, the option --help with them."""
        return _in_plain_words(super().get_params(ctx))


class PlainGroup(TyperGroup):
    """A group of commands whose page of help shows no types."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its parameters, the option --help with them."""
        return _in_plain_words(super().get_params(ctx))


def make_plain(app: Typer) -> None:
    """Let all commands and groups of an application look so that are there by now."""
    for command in app.registered_commands:
        command.cls = PlainCommand
    for group in app.registered_groups:
        inner = group.typer_instance
        assert inner is not None
        # One with a class of its own derives it from ours.
        own = inner.info.cls
        if not (isinstance(own, type) and issubclass(own, PlainGroup)):
            inner.info.cls = PlainGroup
        make_plain(inner)
