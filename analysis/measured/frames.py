"""The measured frames: their schema, and how they are read and checked.

They are `runs`, `metrics`, `layers`, `sweeps` and `evaluations`.

Everything else in `analysis` trusts what this module lets through. It knows the parquet files of
the exporter and nothing about where the numbers came from; it computes nothing.
"""

from collections.abc import Collection, Iterator
from json import dumps
from math import isfinite
from pathlib import Path
from sys import float_info
from typing import Any, NamedTuple

import pandas as pd

from analysis.measured.frame_files import parquet_bytes, read_parquet
from analysis.measured.schema import (
    DIVERGED,
    EVALUATION_KEY,
    EVALUATIONS,
    FAILED,
    FINISHED,
    LARGEST,
    LAYER_KEY,
    LAYERS,
    METRIC_KEY,
    METRICS,
    MOST_CELLS,
    MOST_COST,
    MOST_ITERATIONS,
    MOST_RUNS,
    NAME,
    PAGE,
    RUN_KEY,
    RUNS,
    SAME_RUN,
    SWEEP_KEY,
    SWEEPS,
    UNFINISHED,
    UNPRINTABLE,
    Column,
)
from pipeline.errors import InputError
from pipeline.runs.history import DEVICE_SECONDS, JOULES
from pipeline.storage import regular_file
from pipeline.stored_json import parse

__all__ = [
    "DIVERGED",
    "EVALUATIONS",
    "FAILED",
    "FINISHED",
    "LAYERS",
    "METRICS",
    "RUNS",
    "SWEEPS",
    "Frames",
    "check",
    "each",
    "load",
    "parquet_files",
    "schemas",
]

MOST_BYTES = 1 << 30
"""Of a parquet file that is read."""


def schemas() -> dict[str, dict[str, Column]]:
    """The schema of each frame, by its name."""
    return dict(zip(Frames._fields, (RUNS, METRICS, LAYERS, SWEEPS, EVALUATIONS), strict=True))


class Frames(NamedTuple):
    """What was measured, as `check` lets it through."""

    runs: pd.DataFrame
    metrics: pd.DataFrame
    layers: pd.DataFrame
    sweeps: pd.DataFrame
    evaluations: pd.DataFrame

    def of(self, keys: Collection[str], sweeps: Collection[str]) -> "Frames":
        """The frames of these runs and of these sweeps alone."""
        runs, metrics, layers = (
            frame[frame.run_id.isin(keys)].reset_index(drop=True) for frame in self[:3]
        )
        swept = self.sweeps[self.sweeps.sweep.isin(sweeps)].reset_index(drop=True)
        same_dataset = self.evaluations.dataset_id.isin(runs.dataset_id)
        evaluations = self.evaluations[same_dataset].reset_index(drop=True)
        return Frames(runs, metrics, layers, swept, evaluations)

    def of_seeds(self, seeds: Collection[int]) -> "Frames":
        """The frames of runs of these seeds alone, in all sweeps."""
        chosen = self.runs[self.runs.seed.isin(seeds)].run_id
        return self.of(set(chosen), set(self.sweeps.sweep))


def parquet_files(frames: Frames) -> dict[str, bytes]:
    """The frames as the files that `load` reads, by name."""
    return {f"{name}.parquet": parquet_bytes(frame) for name, frame in frames._asdict().items()}


def load(folder: Path) -> Frames:
    """Read and check the frames of a folder; all but `runs` and `metrics` may be absent.

    Raises:
        InputError: one line naming the file and what is wrong with it.
    """
    paths = {name: folder / f"{name}.parquet" for name in Frames._fields}
    return check(
        _read(paths["runs"], RUNS),
        _read(paths["metrics"], METRICS),
        *(
            _read(paths[name], schema) if paths[name].exists() else None
            for name, schema in list(schemas().items())[2:]
        ),
        where=f"{folder}: ",
    )


def check(
    runs: pd.DataFrame,
    metrics: pd.DataFrame,
    layers: pd.DataFrame | None = None,
    sweeps: pd.DataFrame | None = None,
    evaluations: pd.DataFrame | None = None,
    *,
    where: str = "",
) -> Frames:
    """The frames with the schema's columns and types, in the order of their keys.

    `where` opens each message.

    Raises:
        InputError: a missing column, a null or duplicate key, a wrong type, an unknown status,
            overrides that are no JSON object, a value out of its bounds, one experiment and seed
            twice in a study, runs of one cell with different fingerprints, or measurements of a
            run that is not listed.
    """
    # Types and keys first: what follows may rely on them. Frames that an older export lacks are
    # empty.
    runs = _typed(runs, RUNS, RUN_KEY, f"{where}runs.parquet")
    metrics = _typed(metrics, METRICS, METRIC_KEY, f"{where}metrics.parquet")
    layers = _typed(
        _empty(LAYERS) if layers is None else layers, LAYERS, LAYER_KEY, f"{where}layers.parquet"
    )
    sweeps = _typed(
        _empty(SWEEPS) if sweeps is None else sweeps, SWEEPS, SWEEP_KEY, f"{where}sweeps.parquet"
    )
    evaluations = _empty(EVALUATIONS) if evaluations is None else evaluations
    evaluations = _typed(evaluations, EVALUATIONS, EVALUATION_KEY, f"{where}evaluations.parquet")
    # One spelling of the same JSON, so that equal recipes are equal texts.
    runs["overrides"] = _canonical(runs, "overrides", "run_id", f"{where}runs.parquet")
    sweeps["base"] = _canonical(sweeps, "base", "sweep", f"{where}sweeps.parquet")
    # An error without bound is none: the same as a loss that was not a number.
    errors = metrics.metric.str.endswith("_err")
    metrics["value"] = metrics.value.mask(errors & _infinite(metrics.value))
    _check_runs(runs, f"{where}runs.parquet")
    _check_measured(metrics, layers, where)
    _check_sweeps(sweeps, f"{where}sweeps.parquet")
    _check_evaluations(evaluations, f"{where}evaluations.parquet")

    # What later could be averaged wrongly: one run twice, or two recipes in one cell.
    _refuse_duplicates(runs, SAME_RUN, f"{where}runs.parquet")
    _refuse_mixtures(runs, f"{where}runs.parquet")

    # Measurements of a run that is not listed would vanish without a word.
    for name, frame in (("metrics", metrics), ("layers", layers)):
        orphans = sorted(set(frame.run_id) - set(runs.run_id))
        if orphans:
            raise InputError(
                f"{where}{name}.parquet: {len(orphans)} run(s) not in runs.parquet, such as "
                f"{orphans[0]}"
            )
    return Frames(runs, metrics, layers, sweeps, evaluations)


def _check_runs(runs: pd.DataFrame, where: str) -> None:
    """Refuse values of the right type that a report could not carry safely."""
    if len(runs) > MOST_RUNS:
        raise InputError(f"{where}: holds {len(runs):,} runs, of at most {MOST_RUNS:,}")
    unknown = sorted(set(runs.status) - {FINISHED, *FAILED, *UNFINISHED})
    if unknown:
        raise InputError(f"{where}: unknown status {unknown[0]!r}")
    for name in (DEVICE_SECONDS, JOULES):
        outside = runs[name][~runs[name].between(0, MOST_COST)].dropna()
        if len(outside):
            raise InputError(f"{where}: {name} of {outside.iloc[0]:g} is beyond any run")
    # Frames may come from elsewhere: a name becomes a file's name, an address becomes a link.
    unsafe_names = sorted(name for name in set(runs.experiment) if not NAME.fullmatch(name))
    if unsafe_names:
        raise InputError(f"{where}: {unsafe_names[0]!r} is no name of an experiment")
    unsafe_pages = sorted(page for page in runs.mlflow_url.dropna() if not PAGE.match(page))
    if unsafe_pages:
        raise InputError(
            f"{where}: {unsafe_pages[0]!r} is no http address of a run's page in MLflow"
        )


def _check_measured(metrics: pd.DataFrame, layers: pd.DataFrame, where: str) -> None:
    """Refuse numbers that nobody measures, which would leave every axis without a scale."""
    for name, values in (("metrics", metrics.value), ("layers", layers.value)):
        beyond = (values.abs() > LARGEST) & ~_infinite(values)
        if beyond.any():
            raise InputError(
                f"{where}{name}.parquet: value {values[beyond].iloc[0]:g} is beyond any measurement"
            )
    errors = metrics[metrics.metric.str.endswith("_err")].value.dropna()
    _refuse_no_percentage(errors, f"{where}metrics.parquet", "an error")


def _infinite(values: pd.Series) -> pd.Series:
    """Which values are infinite; MLflow keeps that as the largest number of double precision."""
    return values.abs() >= float_info.max


def _refuse_no_percentage(values: pd.Series, where: str, what: str) -> None:
    # Simulated studies go a little below zero, which harms no report.
    outside = values[values.abs() > 100]
    if len(outside):
        raise InputError(f"{where}: {what} of {outside.iloc[0]:g} is no percentage")


def _check_sweeps(sweeps: pd.DataFrame, where: str) -> None:
    unsafe = sorted(name for name in set(sweeps.sweep) if not NAME.fullmatch(name))
    if unsafe:
        raise InputError(f"{where}: {unsafe[0]!r} is no id of a sweep")
    unsafe = sorted(name for name in set(sweeps.experiment) if not NAME.fullmatch(name))
    if unsafe:
        raise InputError(f"{where}: {unsafe[0]!r} is no name of an experiment")
    cells = sweeps.sweep.value_counts()
    if len(cells) and cells.iloc[0] > MOST_CELLS:
        raise InputError(
            f"{where}: sweep {cells.index[0]} has {cells.iloc[0]:,} cells, of at most "
            f"{MOST_CELLS:,}"
        )


def _check_evaluations(evaluations: pd.DataFrame, where: str) -> None:
    for name in ("top1_err", "top5_err"):
        _refuse_no_percentage(evaluations[name], where, name)
    for row in each(evaluations):
        members = _parsed(row.members)
        # A peer's one member is an object; an ensemble's are the ids of its runs.
        known = isinstance(members, list) and (
            row.kind == "peer" or all(isinstance(member, str) for member in members)
        )
        if not known:
            raise InputError(
                f"{where}: members of evaluation {row.evaluation} are not a JSON list of runs"
            )


def each(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows as named tuples: `row.column`.

    Typed `Any`, because only the schema knows the columns' types.
    """
    return iter(frame.itertuples())


def _read(path: Path, schema: dict[str, Column]) -> pd.DataFrame:
    if not path.exists():
        raise InputError(f"{path} does not exist: export the measured runs first")
    try:
        content = regular_file(path, MOST_BYTES)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    return read_parquet(content, schema, str(path))


def _empty(schema: dict[str, Column]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype=column.dtype) for name, column in schema.items()})


def _typed(
    frame: pd.DataFrame, schema: dict[str, Column], key: list[str], where: str
) -> pd.DataFrame:
    # Columns that an earlier version did not export get the value that their absence meant.
    lacking = [name for name, column in schema.items() if column.added_later and name not in frame]
    frame = frame.assign(
        **{name: False if schema[name].kind == "boolean" else None for name in lacking}
    )
    missing = [name for name in schema if name not in frame]
    if missing:
        raise InputError(f"{where}: missing column {', '.join(missing)}")
    for name, column in schema.items():
        if not column.nullable and frame[name].isna().any():
            raise InputError(
                f"{where}: column {name} has {int(frame[name].isna().sum())} null value(s)"
            )
    # Duplicates before casting, while the values are still spelled as in the file.
    _refuse_duplicates(frame, key, where)
    typed = pd.DataFrame(
        {
            name: _bounded(_cast(frame[name], column, where), column, where)
            for name, column in schema.items()
        }
    )
    return typed.sort_values(key, ignore_index=True)


def _cast(values: pd.Series, column: Column, where: str) -> pd.Series:
    try:
        # Casts are too generous: any text becomes a boolean, and a fraction a whole number.
        if column.kind == "boolean" and not pd.api.types.is_bool_dtype(values):
            raise TypeError("anything is true or false to a cast")
        typed = pd.Series(values, dtype=column.dtype)
        if column.kind == "integer" and (typed != pd.to_numeric(values)).any():
            raise ValueError("a cast cuts fractions off")
        return typed
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{where}: column {values.name} is not {column.kind} throughout"
        ) from error


def _bounded(values: pd.Series, column: Column, where: str) -> pd.Series:
    """A column whose values a report can carry; prose without what cannot be printed."""
    if column.kind == "integer":
        outside = values[(values < column.low) | (values > column.high)].dropna()
        if len(outside):
            raise InputError(
                f"{where}: {values.name} {outside.iloc[0]} is not from {column.low} to "
                f"{column.high}"
            )
    if column.kind != "text":
        return values
    # Each distinct text once: a column has few of them, and many rows.
    replaced = {}
    for text in values.dropna().unique():
        if len(text) > column.longest:
            raise InputError(
                f"{where}: {values.name} has a text of {len(text):,} letters, of at most "
                f"{column.longest:,}"
            )
        if UNPRINTABLE.search(text):
            if not column.prose:
                raise InputError(f"{where}: {values.name} {text!r} has letters that do not print")
            replaced[text] = UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)
    return values.replace(replaced) if replaced else values


def _shown(value: Any) -> str:
    """A value from elsewhere as it may stand in a line."""
    text = str(value)[:100]
    return text if text.isprintable() else repr(text)


def _refuse_duplicates(frame: pd.DataFrame, key: list[str], name: str) -> None:
    doubled = frame[frame.duplicated(key, keep=False)]
    if len(doubled):
        first = ", ".join(f"{column}={_shown(doubled.iloc[0][column])}" for column in key)
        raise InputError(f"{name}: {len(doubled)} rows share a key, such as {first}")


def _refuse_mixtures(runs: pd.DataFrame, name: str) -> None:
    """Refuse runs that share a cell by name while their fingerprints are of different recipes."""
    for _, alike in runs.groupby(["dataset_id", "overrides", "experiment"]):
        fingerprints = sorted(alike.fingerprint.unique())
        if len(fingerprints) > 1:
            what = f"{alike.experiment.iloc[0]} on dataset {alike.dataset_id.iloc[0]}"
            raise InputError(
                f"{name}: {what} has runs of {len(fingerprints)} recipes "
                f"({', '.join(fingerprints)}); report on "
                "each apart"
            )


def _canonical(frame: pd.DataFrame, column: str, key: str, name: str) -> list[str]:
    """A column of JSON objects, each in one spelling."""
    spelled = []
    for text, owner in zip(frame[column], frame[key], strict=True):
        parsed = _parsed(text)
        about = f"{name}: {column} of {key.removesuffix('_id')} {owner}"
        if not isinstance(parsed, dict):
            raise InputError(f"{about} are not a JSON object: {text[:100]!r}")
        for field, value in parsed.items():
            if not _settable(field, value):
                raise InputError(f"{about} give no value to {field[:100]!r}")
        spelled.append(dumps(parsed, sort_keys=True))
    return spelled


def _settable(field: str, value: Any) -> bool:
    """Whether a field of a row may have such a value: a short text, a number, or a list of them."""
    if UNPRINTABLE.search(field) or len(field) > 100:
        return False
    if field == "iterations":
        return type(value) is int and 1 <= value <= MOST_ITERATIONS
    if field == "lr_drops":
        return isinstance(value, list) and all(type(one) is int for one in value)
    return all(map(_plain, value)) if isinstance(value, list) else _plain(value)


def _plain(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= 200 and not UNPRINTABLE.search(value)
    if isinstance(value, int | float):
        return isfinite(value) and abs(value) <= 2**63
    return value is None


def _parsed(text: str) -> Any:
    """The value of a JSON text; None where it is none, or is nested too deeply."""
    try:
        return parse(text)
    except ValueError:
        return None
