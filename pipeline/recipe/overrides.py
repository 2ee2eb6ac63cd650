"""Changes to a row that a user asks for: typed by its fields, checked, and never silent.

Torch-free. An overridden row has another fingerprint, and `Experiment.deviations()` says how it
differs from the paper's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pipeline.errors import InputError
from pipeline.recipe.experiments import EXPERIMENTS, PHOTOGRAPHS, Experiment
from pipeline.recipe.layers import layout

FOLLOWS_ITERATIONS = {"lr_drops": "learning rate drops", "eval_every": "evaluations"}
"""Fields that move with `iterations` when a schedule is scaled, in words.

They are named as deviations only if they do not.
"""
FIXED = ("name", "artifacts", "family")


def nearest(name: str, known: Iterable[str]) -> str:
    """The known names most like `name`, as the end of a message."""
    known = list(known)
    return (
        "did you mean " + ", ".join(get_close_matches(name, known, n=3, cutoff=0.4) or known) + "?"
    )


def papers_experiment(name: str) -> Experiment:
    """The row `name`, as the paper has it.

    Raises:
        InputError: there is none.
    """
    if name not in EXPERIMENTS:
        raise InputError(f"unknown experiment {name}; {nearest(name, EXPERIMENTS)}")
    return EXPERIMENTS[name]


def experiment_named(
    name: str, settings: Iterable[str] = (), iterations: int | None = None
) -> Experiment:
    """The row `name`, scaled to `iterations`, and then with each `field=value` of `settings`.

    Raises:
        InputError: unknown row or field, a value of the wrong type, or a row that cannot be
            trained.
    """
    experiment = papers_experiment(name)
    try:
        # Scaled first: a setting is meant for the schedule that the user sees.
        if iterations is not None:
            if iterations < 4:
                raise InputError(
                    f"--iterations {iterations}: the schedule needs at least 4 iterations"
                )
            experiment = experiment.scaled_to(iterations)
        experiment = replace(experiment, **dict(parse_setting(setting) for setting in settings))
        # Checks that there is such a network, long before a worker would fail to build it.
        layout(experiment)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error
    return experiment


def following(experiment: str, changes: Mapping[str, Any]) -> set[str]:
    """Of the changes to the paper's row, those that follow from another number of iterations."""
    if "iterations" not in changes:
        return set()
    try:
        scaled = EXPERIMENTS[experiment].scaled_to(changes["iterations"])
    except ValueError:  # too few iterations for the paper's schedule
        return set()
    moved = {name for name in FOLLOWS_ITERATIONS if name in changes}
    return {
        name for name in moved if value_text(getattr(scaled, name)) == value_text(changes[name])
    }


@lru_cache(maxsize=1024)
def changes_text(experiment: Experiment) -> str:
    """How a row differs from the paper's, in short: `600 iterations, precision=bf16`; or empty."""
    changes = experiment.deviations()
    for name in following(experiment.name, changes):
        del changes[name]
    # The number of iterations first, and without a name: it is what most deviate in.
    named = ["{:,} iterations".format(changes.pop("iterations"))] if "iterations" in changes else []
    return ", ".join(named + [f"{name}={value_text(value)}" for name, value in changes.items()])


def title(experiment: Experiment) -> str:
    """The row's name and, in brackets, how it is trained otherwise than the paper's."""
    changes = changes_text(experiment)
    return f"{experiment.name} ({changes})" if changes else experiment.name


def value_text(value: Any) -> str:
    """A field's value for people: `32,000/48,000`, `none`, `0.1`."""
    if isinstance(value, (list, tuple)):
        return "/".join(map(value_text, value)) or "none"
    if value is None:
        return "none"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10_000:
        return f"{value:,}"
    return str(value)


def recipe_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Of all fields of a row, those that say something about how it is trained and tested."""
    without_meaning = ["name", "artifacts"]
    if row["family"] == "cifar":
        without_meaning += PHOTOGRAPHS
    if row["block"] != "bottleneck":
        without_meaning.append("bottleneck_stride")
    if row["norm"] == "none":
        without_meaning += ["bn_momentum", "bn_eps"]
    if row["warmup_lr"] is None:
        without_meaning += ["warmup_lr", "warmup_until_err"]
    if row["holdout"] == 0:
        without_meaning.append("holdout")
    return {name: value for name, value in row.items() if name not in without_meaning}


def settable() -> list[str]:
    """The fields of a row that can be set."""
    return [field.name for field in fields(Experiment) if field.name not in FIXED]


def holds_several(field: str) -> bool:
    """Whether a field's value is a list, with commas between its items."""
    return get_origin(get_type_hints(Experiment).get(field)) is tuple


def parse_setting(setting: str) -> tuple[str, Any]:
    """`field=value` as the field's name and a value of its type.

    Raises:
        InputError: says which field or value, and what would do.
    """
    name, equals, text = setting.partition("=")
    types, known = get_type_hints(Experiment), settable()
    if not equals:
        raise InputError(f"--set {setting}: expected FIELD=VALUE, as in --set lr=0.05")
    if name not in known:
        raise InputError(
            f"--set {setting}: a row has no field {name} to set; {nearest(name, known)}"
        )
    try:
        return name, _parse(text, types[name])
    except ValueError as error:
        raise InputError(f"--set {setting}: {name} takes {error}, not {text!r}") from None


def _parse(text: str, kind: Any) -> Any:
    """`text` as a value of type `kind`; a ValueError's message is what would be right."""
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise ValueError("one of " + ", ".join(get_args(kind)))
        return text
    # A type or None: `none` is how None is written.
    if get_origin(kind) is UnionType:
        inner = next(option for option in get_args(kind) if option is not NoneType)
        return None if text == "none" else _parse(text, inner)
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        # `none` is how an empty list is printed, so it is read as one.
        parts = [part for part in text.split(",") if part and text != "none"]
        if get_origin(inner) is Literal:
            return tuple(_parse(part, inner) for part in parts)
        return tuple(_number(part, int, "whole numbers with commas") for part in parts)
    return _number(text, kind, "a whole number" if kind is int else "a number")


def _number(text: str, kind: type, expected: str) -> Any:
    try:
        value = kind(text)
    except ValueError:
        raise ValueError(expected) from None
    # `float` reads `nan` and `inf`, with which nothing could be trained.
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(expected)
    return value
