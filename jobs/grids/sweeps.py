"""Sweeps: the same rows under several values of their fields, kept apart from the reproduction.

`--set lr=0.05,0.1` sweeps a field, two such settings their product; `grid ledger` turns one switch
of the recipe ledger at a time. A sweep is a list of rows with the change of each in words; how they
are trained is the grid's business.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import product
from json import dumps
from typing import Any

from analysis.paper.ledger import LEDGER, LEDGER_SWITCHES, Switch
from jobs.grids.grids import rows_asked_for
from pipeline.data.catalogue.cifar10 import CIFAR10
from pipeline.errors import InputError
from pipeline.recipe.experiments import EXPERIMENTS, Experiment
from pipeline.recipe.overrides import experiment_named, holds_several, parse_setting

CIFAR_TRAINING_IMAGES = CIFAR10.train_images


@dataclass(frozen=True)
class SweepCell:
    """An experiment of a sweep, and the one it is a change of."""

    experiment: Experiment
    base: Experiment
    change: str
    """In words; empty where there is none."""


@dataclass(frozen=True)
class Sweep:
    """What was asked for in one sweep: `name` is the fields that vary, or `ledger`."""

    name: str
    cells: tuple[SweepCell, ...]

    @property
    def changed(self) -> set[str]:
        """The fingerprints of the rows that are there as a change alone.

        Their runs are kept out of the reproduction's tables; an unchanged row is a part of both.
        """
        same = {cell.base.fingerprint for cell in self.cells}
        return {cell.experiment.fingerprint for cell in self.cells} - same

    def facts(self, dataset_id: str) -> list[dict[str, Any]]:
        """One object per cell, as `analysis.measured.frames.SWEEPS` has it.

        The sweep's id is a hash of them all: another set of values is another sweep.
        """
        cells = [
            {
                "name": self.name,
                "dataset_id": dataset_id,
                "base": dumps(cell.base.deviations(), sort_keys=True),
                "experiment": cell.experiment.name,
                "position": position,
                "change": cell.change,
                "unchanged": cell.experiment.fingerprint == cell.base.fingerprint,
                "fingerprint": cell.experiment.fingerprint,
            }
            for position, cell in enumerate(self.cells)
        ]
        # The dataset is part of the id: the same values on other data are another sweep.
        digest = blake2b(dumps(cells, sort_keys=True).encode(), digest_size=4).hexdigest()
        return [{"sweep": digest, **cell} for cell in cells]

    def id(self, dataset_id: str) -> str:
        """What the sweep is found by."""
        return str(self.facts(dataset_id)[0]["sweep"])


def asked_for(
    names: Sequence[str], settings: Iterable[str], iterations: int | None, training_images: int
) -> tuple[list[Experiment], list[Sweep]]:
    """The rows that grids, experiments and settings ask for, each once, and the sweeps among them.

    Raises:
        InputError: an unknown name, a setting that is none, or a sweep of what the ledger changes.
    """
    # The ledger brings its own rows and changes; all other names are rows or grids of them.
    fixed, varied = split(settings)
    others = [name for name in names if name != LEDGER]
    experiments = [experiment_named(name, fixed, iterations) for name in rows_asked_for(others)]
    sweeps = []
    # The ledger turns one switch at a time: with a second value of a field beside it, nobody could
    # say which of the two a difference comes from.
    if LEDGER in names:
        if varied:
            raise InputError(
                "ledger changes one field at a time already: give --set one value, or name rows "
                "instead"
            )
        turned = {name.partition("=")[0] for name in fixed} & {
            switch.setting.partition("=")[0] for switch in LEDGER_SWITCHES
        }
        if turned:
            raise InputError(
                f"ledger turns {min(turned)} itself: leave --set {min(turned)}=... away"
            )
        sweeps.append(ledger(fixed, iterations, training_images))
    elif varied:
        cells = tuple(_changed(experiments, fixed, varied, iterations))
        sweeps.append(Sweep(" x ".join(varied), cells))
        experiments = []  # unchanged they were not asked for
    experiments += [cell.experiment for sweep in sweeps for cell in sweep.cells]
    return list(dict.fromkeys(experiments)), sweeps


def split(settings: Iterable[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Settings with one value, and those with several by field.

    Values are separated by commas; of fields like `lr_drops`, whose values have commas themselves,
    by semicolons.

    Raises:
        InputError: a setting that is none, or a value given twice.
    """
    fixed: list[str] = []
    varied: dict[str, list[str]] = {}
    for setting in settings:
        field, _, text = setting.partition("=")
        values = [f"{field}={value}" for value in text.split(";" if holds_several(field) else ",")]
        # A later fixed value replaces an earlier one, as the demo's settings may be replaced; a
        # swept field cannot be set beside its sweep.
        is_fixed = field in {name.partition("=")[0] for name in fixed}
        if field in varied or (len(values) > 1 and is_fixed):
            raise InputError(
                f"--set {setting}: {field} is set twice; name all its values in one --set"
            )
        if len(values) == 1:
            fixed.append(setting)
            continue
        # 0.1 and 1e-1 are one value: a cell twice would be trained once and shown twice.
        if len({parse_setting(value) for value in values}) < len(values):
            raise InputError(f"--set {setting}: names a value twice")
        varied[field] = values
    return fixed, varied


def _changed(
    experiments: list[Experiment],
    fixed: list[str],
    varied: dict[str, list[str]],
    iterations: int | None,
) -> Iterable[SweepCell]:
    for base in experiments:
        # Fixed settings apply to every cell; the change is what differs between them.
        for changes in product(*varied.values()):
            yield SweepCell(
                experiment_named(base.name, [*fixed, *changes], iterations),
                base,
                ", ".join(changes),
            )


def ledger(settings: list[str], iterations: int | None, training_images: int) -> Sweep:
    """Each row of the ledger as it is, and with one switch turned at a time."""
    cells = []
    for name in dict.fromkeys(switch.experiment for switch in LEDGER_SWITCHES):
        base = experiment_named(name, settings, iterations)
        # The unchanged row comes first: every switch is compared with it.
        cells.append(SweepCell(base, base, ""))
        for switch in LEDGER_SWITCHES:
            if switch.experiment == name:
                field, value = _in_proportion(switch, base, training_images)
                changed = (
                    base.scaled_to(value)
                    if field == "iterations"
                    else replace(base, **{field: value})
                )
                shown = "none" if value is None else value
                cells.append(SweepCell(changed, base, f"{field}={shown}"))
    return Sweep(LEDGER, tuple(cells))


def _in_proportion(switch: Switch, base: Experiment, training_images: int) -> tuple[str, Any]:
    """The switch's field and its value for another schedule or dataset than the paper's."""
    field, value = parse_setting(switch.setting)
    # A switch's value is about the paper's schedule: on a shorter one it keeps its share.
    if field == "iterations":
        return field, round(value * base.iterations / EXPERIMENTS[base.name].iterations)
    if field == "holdout":
        return field, max(1, round(value * training_images / CIFAR_TRAINING_IMAGES))
    return field, value
