"""A run: experiment x dataset x seed, its folder in storage, and what that folder says.

Torch-free. Skip or continue is decided by the folder alone: `run.json` is written at the first
start, `checkpoints/` while it lives, `progress.json` is a heartbeat, and `result.json`, written
last, means that nothing is left to do.
"""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from json import dumps
from math import isfinite
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from pipeline.errors import InputError, first_line
from pipeline.recipe.experiments import Experiment
from pipeline.recipe.overrides import title
from pipeline.storage import Storage
from pipeline.stored_json import MOST_BYTES, DamagedError, check_as, parse, read_json

FORMAT = "resnet-repro/run/1"

# How an attempt may end besides "finished" and "diverged". None of these is written to a run's
# folder: they are about one attempt, and the next one decides anew from what lies there.
REFUSED = "refused"
"""An attempt that met what the user has to correct."""
PREEMPTED = "preempted"
"""An attempt that saved and left because its workers were about to be taken away (preemption)."""
SIGNALLED = "signalled"
"""An attempt that saved and left because its command or a worker was told to end by a signal."""
STOPPED = "stopped"
"""An attempt that was asked for a part of a run only, and has saved its end."""
IDLE = "idle"
"""What a worker returns that the run has no room for: it did not train."""
FAILED = "failed"
"""An attempt that an error ended, which may be another one's the next time."""
LOST = "lost"
"""An attempt that could not save any more: its storage is away, or another has the run."""


class Identity(TypedDict):
    """What makes a run this one and no other."""

    fingerprint: str
    dataset: str
    seed: int


class About(TypedDict):
    """`run.json`."""

    format: str
    identity: Identity
    threads: int
    experiment: Experiment  # as a dictionary of its fields


class Result(TypedDict):
    """`result.json`, as far as it is read here; what was measured stands there too."""

    format: str
    identity: Identity
    status: Literal["finished", "diverged"]
    iterations: int
    final: NotRequired[dict[str, float | None]]
    reason: NotRequired[str | None]


class Heartbeat(TypedDict):
    """`progress.json`."""

    iteration: int
    images_per_second: float
    time_ms: int


@dataclass(frozen=True)
class Run:
    """One training of an experiment on a dataset with a seed.

    `dataset_key` is the dataset's name and short id.
    """

    experiment: Experiment
    dataset_id: str
    dataset_key: str
    seed: int

    @property
    def folder(self) -> str:
        """Where the run lives in storage: a function of its identity."""
        return f"{recipe_folder(self.experiment)}/{self.dataset_key}/seed-{self.seed}"

    @property
    def identity(self) -> dict[str, Any]:
        """What makes it this run and no other."""
        return {
            "fingerprint": self.experiment.fingerprint,
            "dataset": self.dataset_id,
            "seed": self.seed,
        }

    @property
    def key(self) -> str:
        """The identity as one string."""
        return f"{self.experiment.fingerprint}-{self.dataset_id}-{self.seed}"

    def __str__(self) -> str:
        return f"{title(self.experiment)} on {self.dataset_key}, seed {self.seed}"


def recipe_folder(experiment: Experiment) -> str:
    """Where the runs of an experiment live in storage, in a folder for each dataset."""
    return f"runs/{experiment.name}-{experiment.fingerprint[:8]}"


def check_run(storage: Storage, run: Run) -> dict[str, Any] | None:
    """The content of the run's `run.json`, None before its first start.

    Raises:
        InputError: the folder belongs to something else.
    """
    return _own(storage, run, "run.json", About)


def start_run(storage: Storage, run: Run, threads: int) -> int:
    """Write `run.json` at the first start; returns the run's threads per worker.

    A run keeps them for its whole life, since another number would change its bytes.

    Raises:
        InputError: the folder belongs to something else.
    """
    known = check_run(storage, run)
    if known is not None:
        return int(known["threads"])
    about = {
        "format": FORMAT,
        "identity": run.identity,
        "threads": threads,
        "experiment": asdict(run.experiment),
    }
    storage.write(f"{run.folder}/run.json", dumps(about, indent=1).encode())
    return threads


def read_result(storage: Storage, run: Run) -> dict[str, Any] | None:
    """The run's `result.json`, None while there is something left to do.

    Raises:
        InputError: the file is not one of ours or is about another run.
    """
    # Its existence is the answer: it is the last file that a run writes.
    return _own(storage, run, "result.json", Result)


def write_result(storage: Storage, run: Run, status: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Write `result.json`: `status` is finished or diverged."""
    result = {"format": FORMAT, "identity": run.identity, "status": status, **facts}
    storage.write(f"{run.folder}/result.json", dumps(result, indent=1).encode())
    return result


def stored_runs(storage: Storage, damaged: Callable[[str], None] = lambda _: None) -> list[Run]:
    """Every run that has a folder in storage, by experiment, dataset and seed.

    What is not ours is passed over; `damaged` is told of each run that cannot be read.
    """
    runs = []
    for recipe in storage.names("runs"):
        for dataset in storage.names(f"runs/{recipe}"):
            for seed in storage.names(f"runs/{recipe}/{dataset}"):
                folder = f"runs/{recipe}/{dataset}/{seed}"
                if not re.fullmatch("seed-[0-9]+", seed):
                    continue
                try:
                    run = _stored_run(storage, folder, dataset)
                except InputError as error:
                    damaged(str(error))
                    continue
                # A folder that was copied or renamed is not the run that it says it is.
                if run is not None and run.folder == folder:
                    runs.append(run)
    return sorted(runs, key=lambda run: (run.experiment.depth, run.folder))


def _stored_run(storage: Storage, folder: str, dataset_key: str) -> Run | None:
    """The run of a folder; None where it has no `run.json`.

    Raises:
        InputError: that is damaged, or of a version with other fields.
    """
    path = f"{folder}/run.json"
    about: Any = read_json(storage, path, About)
    if about is None:
        return None
    try:
        identity, experiment = about["identity"], row_of(about["experiment"])
        return Run(experiment, identity["dataset"], dataset_key, identity["seed"])
    except (ValueError, TypeError, ArithmeticError) as error:
        raise DamagedError(
            f"{storage.path(path)}: damaged ({first_line(error)}); move it away"
        ) from error


def row_of(fields: dict[str, Any]) -> Experiment:
    """A row from its fields as JSON has them.

    Raises:
        ValueError, TypeError, ArithmeticError: they make none, or this version has others.
    """
    # JSON knows no tuples.
    tuples = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    return _experiment(**(fields | tuples))


_experiment = lru_cache(typed=True)(Experiment)
"""Equal rows as one object: a storage holds many runs of few, and makes each fingerprint once."""


def write_heartbeat(
    storage: Storage, run: Run, iteration: int, images_per_second: float, time_ms: int
) -> None:
    """Say how far a living run is."""
    beat = {"iteration": iteration, "images_per_second": images_per_second, "time_ms": time_ms}
    storage.write(f"{run.folder}/progress.json", dumps(beat).encode())


def read_heartbeat(storage: Storage, run: Run) -> Heartbeat | None:
    """The last heartbeat, None before the first; one that is damaged says nothing."""
    try:
        beat = read_json(storage, f"{run.folder}/progress.json", Heartbeat)
    except InputError:
        return None
    return beat if beat is not None and isfinite(beat["images_per_second"]) else None


def _own(storage: Storage, run: Run, name: str, kind: type[Any]) -> dict[str, Any] | None:
    """A JSON file of the run's folder; None where it is not there, InputError if another's."""
    path = f"{run.folder}/{name}"
    content = storage.read_if_there(path, MOST_BYTES)
    if content is None:
        return None
    try:
        parsed = parse(content)
    except ValueError:
        parsed = None
    # What is not ours is never overwritten, and never read as if it were.
    if not isinstance(parsed, dict) or parsed.get("format") != FORMAT:
        raise InputError(f"{storage.path(path)}: not a file of ours; move it away")
    # Two recipes whose shortened fingerprints agree would share a folder; the full identity tells.
    if parsed.get("identity") != run.identity:
        raise InputError(
            f"{storage.path(path)}: belongs to another run ({parsed.get('identity')}); move it away"
        )
    check_as(content, kind, storage.path(path))
    return parsed
