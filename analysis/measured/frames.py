"""The measured frames: their schema, and how they are read and checked.

They are `runs`, `metrics`, `layers`, `sweeps` and `evaluations`.

Everything else in `analysis` trusts what this module lets through. It knows the parquet files of
the exporter and nothing about where the numbers came from; it computes nothing.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from io import BytesIO
from json import JSONDecodeError, dumps, loads
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd
from pyarrow import ArrowException

from pipeline.errors import InputError


@dataclass(frozen=True)
class Column:
    """What a column holds; integers that may be null are pandas' `Int64`."""

    kind: Literal["text", "integer", "number", "boolean"]
    nullable: bool = False
    added_later: bool = False
    """Earlier exports lack it, and mean false or null by that."""

    @property
    def dtype(self) -> str:
        integer = "Int64" if self.nullable else "int64"
        return {"text": "str", "integer": integer, "number": "float64", "boolean": "bool"}[
            self.kind
        ]


_TEXT, _INTEGER, _BOOLEAN = Column("text"), Column("integer"), Column("boolean")

RUNS: dict[str, Column] = {
    "run_id": _TEXT,
    "experiment": _TEXT,
    "fingerprint": _TEXT,
    "dataset": _TEXT,
    "dataset_id": _TEXT,
    "comparable": _BOOLEAN,
    "overrides": _TEXT,
    "alone": _BOOLEAN,
    "looks": Column("boolean", added_later=True),
    "seed": _INTEGER,
    "iterations": _INTEGER,
    "status": _TEXT,
    "reason": Column("text", nullable=True),
    "params": _INTEGER,
    "warmup_end": Column("integer", nullable=True),
    "converging_from": Column("integer", nullable=True),
    "converging_rule": Column("integer", nullable=True, added_later=True),
    "world_size": _INTEGER,
    "threads": _INTEGER,
    "device": _TEXT,
    "commit": _TEXT,
    "dirty": _BOOLEAN,
    "drift": Column("text", nullable=True, added_later=True),
    "one_pass": Column("boolean", added_later=True),
    "versions": _TEXT,
    "hardware": _TEXT,
    "mlflow_run_id": _TEXT,
    "mlflow_url": Column("text", nullable=True, added_later=True),
    "started_ms": Column("integer", nullable=True),
    "ended_ms": Column("integer", nullable=True),
}
"""One row per run.

`overrides` is the JSON object of fields that deviate from the paper's row, `{}` for none. `alone`
is false for a run that was only ever asked for as a change within a sweep. `looks` is true for a
run of a grid with interim analyses, which runs until it is decided. `converging_from` is null for
one that never did better than guessing; `converging_rule` is the version of the rule that says so,
null for the first. `drift` says what changed under a run that was continued
with `--allow-drift`. `mlflow_url` is its page where a server is known.
"""

METRICS: dict[str, Column] = {
    "run_id": _TEXT,
    "metric": _TEXT,
    "iteration": _INTEGER,
    "value": Column("number", nullable=True),
    "time_ms": _INTEGER,
}
"""One row per measurement; a value may be NaN (a loss that diverged), and stays NaN."""

LAYERS: dict[str, Column] = {
    "run_id": _TEXT,
    "iteration": _INTEGER,
    "quantity": _TEXT,
    "layer": _INTEGER,
    "name": _TEXT,
    "value": Column("number", nullable=True),
}
"""One row per layer of a quantity; `layer` counts from 1 in the order of computation."""

SWEEPS: dict[str, Column] = {
    "sweep": _TEXT,
    "name": _TEXT,
    "dataset_id": _TEXT,
    "base": _TEXT,
    "experiment": _TEXT,
    "position": _INTEGER,
    "change": _TEXT,
    "unchanged": _BOOLEAN,
    "fingerprint": _TEXT,
}
"""One row per cell of a sweep.

`fingerprint` is the row trained there, `change` what was changed of the row whose overrides are
`base` (`unchanged` where that leaves the row as it was), `name` the fields that vary, or `ledger`.
"""

EVALUATIONS: dict[str, Column] = {
    "evaluation": _TEXT,
    "kind": _TEXT,
    "name": _TEXT,
    "dataset_id": _TEXT,
    "protocol": _TEXT,
    "top1_err": Column("number"),
    "top5_err": Column("number"),
    "count": _INTEGER,
    "members": _TEXT,
    "commit": _TEXT,
    "dirty": _BOOLEAN,
}
"""One row per protocol of something evaluated after training.

That is an `ensemble` of runs, whose ids are `members` (a JSON list), or a `peer`: weights made
elsewhere, whose one member says file, checksum and row.
"""

# What identifies a row of each frame; two rows that share it are refused.
EVALUATION_KEY = ["evaluation", "protocol"]
RUN_KEY = ["run_id"]
LAYER_KEY = ["run_id", "quantity", "iteration", "layer"]
SWEEP_KEY = ["sweep", "position"]
METRIC_KEY = ["run_id", "metric", "iteration"]
# One experiment, dataset, recipe and seed is one run, whatever its id.
SAME_RUN = ["dataset_id", "overrides", "experiment", "seed"]

NAME = re.compile("[A-Za-z0-9][A-Za-z0-9-]*")
"""Of an experiment: it becomes part of file names."""

PAGE = re.compile("https?://")
"""How a link to a run's page begins: a report is opened in a browser, and must not run a script."""

FINISHED = "FINISHED"
DIVERGED = "DIVERGED"
FAILED = ("FAILED", "KILLED", DIVERGED)
UNFINISHED = ("RUNNING", "SCHEDULED")


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


def parquet_files(frames: Frames) -> dict[str, bytes]:
    """The frames as the files that `load` reads, by name."""
    files = {}
    for name, frame in frames._asdict().items():
        buffer = BytesIO()
        frame.to_parquet(buffer, index=False)
        files[f"{name}.parquet"] = buffer.getvalue()
    return files


def load(folder: Path) -> Frames:
    """Read and check the frames of a folder; all but `runs` and `metrics` may be absent.

    Raises:
        InputError: one line naming the file and what is wrong with it.
    """
    needed = [_read(folder / f"{name}.parquet") for name in ("runs", "metrics")]
    optional = [folder / f"{name}.parquet" for name in Frames._fields[2:]]
    return check(
        *needed, *(_read(path) if path.exists() else None for path in optional), where=f"{folder}: "
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
            overrides that are no JSON object, one experiment and seed twice in a study, runs of one
            cell with different fingerprints, or measurements of a run that is not listed.
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
    _check_values(runs, f"{where}runs.parquet")

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


def _check_values(runs: pd.DataFrame, where: str) -> None:
    """Refuse values of the right type that a report could not carry safely."""
    unknown = sorted(set(runs.status) - {FINISHED, *FAILED, *UNFINISHED})
    if unknown:
        raise InputError(f"{where}: unknown status {unknown[0]!r}")
    # Frames may come from elsewhere: a name becomes a file's name, an address becomes a link.
    unsafe_names = sorted(name for name in set(runs.experiment) if not NAME.fullmatch(name))
    if unsafe_names:
        raise InputError(f"{where}: {unsafe_names[0]!r} is no name of an experiment")
    unsafe_pages = sorted(page for page in runs.mlflow_url.dropna() if not PAGE.match(page))
    if unsafe_pages:
        raise InputError(
            f"{where}: {unsafe_pages[0]!r} is no http address of a run's page in MLflow"
        )


def each(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows as named tuples: `row.column`.

    Typed `Any`, because only the schema knows the columns' types.
    """
    return iter(frame.itertuples())


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"{path} does not exist: export the measured runs first")
    try:
        return pd.read_parquet(path)
    except (ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{path} is not a readable parquet file ({str(error).splitlines()[0]})"
        ) from error


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
        {name: _cast(frame[name], column, where) for name, column in schema.items()}
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
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{where}: column {values.name} is not {column.kind} throughout"
        ) from error


def _refuse_duplicates(frame: pd.DataFrame, key: list[str], name: str) -> None:
    doubled = frame[frame.duplicated(key, keep=False)]
    if len(doubled):
        first = ", ".join(f"{column}={doubled.iloc[0][column]}" for column in key)
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
        try:
            parsed = loads(text)
        except JSONDecodeError:
            parsed = None
        if not isinstance(parsed, dict):
            raise InputError(
                f"{name}: {column} of {key.removesuffix('_id')} {owner} are not a JSON object: "
                f"{text!r}"
            )
        spelled.append(dumps(parsed, sort_keys=True))
    return spelled
