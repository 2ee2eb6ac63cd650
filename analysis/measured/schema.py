"""The schema of the measured frames: their columns, the bounds of each, and what identifies a row.

Frames come from bundles of other people too: what a report makes a file name, an axis, a date or a
link of has its bounds here. `analysis.measured.frames` holds them.
"""

import re
from dataclasses import dataclass
from typing import Literal

MOST_ITERATIONS = 10**9
MOST_MILLISECONDS = 10**14
"""Unix time of the year 5138, which every calendar here still writes."""

LARGEST = 3.5e38
"""No finite number of single precision is larger."""

MOST_COST = 1e15
"""Device seconds, or joules, of a run."""

MOST_RUNS = 100_000
MOST_CELLS = 1_000
"""Of a sweep: its figure has a line of each, and a picture's height ends."""


@dataclass(frozen=True)
class Column:
    """What a column holds; integers that may be null are pandas' `Int64`."""

    kind: Literal["text", "integer", "number", "boolean"]
    nullable: bool = False
    added_later: bool = False
    """Earlier exports lack it, and mean false or null by that."""
    low: int = 0
    high: int = 2**53
    """Of whole numbers."""
    longest: int = 200
    """Letters of a text."""
    prose: bool = False
    """Text that nothing is named by: what cannot be printed is replaced in it, not refused."""

    @property
    def dtype(self) -> str:
        integer = "Int64" if self.nullable else "int64"
        return {"text": "str", "integer": integer, "number": "float64", "boolean": "bool"}[
            self.kind
        ]


_TEXT, _INTEGER, _BOOLEAN = Column("text"), Column("integer"), Column("boolean")
_ID = Column("text", longest=1_000)
_JSON = Column("text", longest=100_000)
_PROSE = Column("text", longest=100_000, prose=True)
_ITERATION = Column("integer", high=MOST_ITERATIONS)
_TIME = Column("integer", high=MOST_MILLISECONDS)

RUNS: dict[str, Column] = {
    "run_id": _ID,
    "experiment": _TEXT,
    "fingerprint": _TEXT,
    "dataset": _TEXT,
    "dataset_id": _TEXT,
    "comparable": _BOOLEAN,
    "overrides": _JSON,
    "alone": _BOOLEAN,
    "looks": Column("boolean", added_later=True),
    "seed": Column("integer", high=2**63 - 1),
    "iterations": Column("integer", low=1, high=MOST_ITERATIONS),
    "status": _TEXT,
    "reason": Column("text", nullable=True, longest=100_000, prose=True),
    "params": _INTEGER,
    "warmup_end": Column("integer", nullable=True, high=MOST_ITERATIONS),
    "converging_from": Column("integer", nullable=True, high=MOST_ITERATIONS),
    "converging_rule": Column("integer", True, True, high=1_000),
    "world_size": Column("integer", high=10**6),
    "threads": Column("integer", high=10**6),
    "device": _PROSE,
    "commit": _TEXT,
    "dirty": _BOOLEAN,
    "drift": Column("text", True, True, longest=100_000, prose=True),
    "one_pass": Column("boolean", added_later=True),
    "versions": _PROSE,
    "hardware": _PROSE,
    "device_seconds": Column("number", True, True),
    "joules": Column("number", True, True),
    "mlflow_run_id": _TEXT,
    "mlflow_url": Column("text", True, True, longest=2_000),
    "started_ms": Column("integer", nullable=True, high=MOST_MILLISECONDS),
    "ended_ms": Column("integer", nullable=True, high=MOST_MILLISECONDS),
}
"""One row per run.

`overrides` is the JSON object of fields that deviate from the paper's row, `{}` for none. `alone`
is false for a run that was only ever asked for as a change within a sweep. `looks` is true for a
run of a grid with interim analyses, which runs until it is decided. `converging_from` is null for
one that never did better than guessing; `converging_rule` is the version of the rule that says so,
null for the first. `drift` says what changed under a run that was continued
with `--allow-drift`. `device_seconds` and `joules` are what it cost in all, null where it did not
record it. `mlflow_url` is its page where a server is known.
"""

METRICS: dict[str, Column] = {
    "run_id": _ID,
    "metric": _TEXT,
    "iteration": _ITERATION,
    "value": Column("number", nullable=True),
    "time_ms": _TIME,
}
"""One row per measurement; a value may be NaN (a loss that diverged), and stays NaN."""

LAYERS: dict[str, Column] = {
    "run_id": _ID,
    "iteration": _ITERATION,
    "quantity": _TEXT,
    "layer": Column("integer", low=1, high=100_000),
    "name": _TEXT,
    "value": Column("number", nullable=True),
}
"""One row per layer of a quantity; `layer` counts from 1 in the order of computation."""

SWEEPS: dict[str, Column] = {
    "sweep": _TEXT,
    "name": _TEXT,
    "dataset_id": _TEXT,
    "base": _JSON,
    "experiment": _TEXT,
    "position": Column("integer", high=10**6),
    "change": _ID,
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
    "members": _JSON,
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

NAME = re.compile("[A-Za-z0-9][A-Za-z0-9-]{0,63}")
"""Of an experiment, and the id of a sweep: they become part of file names."""

UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
"""What ends a line or a page, or turns the direction in which text is read."""

PAGE = re.compile("https?://")
"""How a link to a run's page begins: a report is opened in a browser, and must not run a script."""

FINISHED = "FINISHED"
DIVERGED = "DIVERGED"
FAILED = ("FAILED", "KILLED", DIVERGED)
UNFINISHED = ("RUNNING", "SCHEDULED")
