"""Weights to take away, found by what a user calls them: runs, folders of exports, or bundles.

What a finished run's weights are published with is gathered here: its dataset's means and class
names, the other seeds, and what the paper prints of the row.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.requests.stored_runs import (
    read_exported,
    read_exported_file,
    stored_runs_named,
    weights_file,
    weights_of,
)
from pipeline.data.staging import staged_dataset
from pipeline.data.stored import read_manifest
from pipeline.errors import InputError
from pipeline.recipe.metrics import TEST_ERR
from pipeline.runs.checkpoint import final_weights_path
from pipeline.runs.model_card import PrintedError, Standing
from pipeline.runs.run import Run, read_result, stored_runs
from pipeline.storage import Storage, regular_file

# These load torch, which is needed only once it is clear what is to be written.
if TYPE_CHECKING:
    from pipeline.training.exported_weights import ExportedWeights

BUNDLE_SUFFIX = ".zip"

Exports = dict[str, Callable[[], "ExportedWeights"]]
"""By the name of its folder, what makes an export."""


def exports_named(storage: Storage, named: list[str]) -> Exports:
    """What is to be exported: each that is named, or all finished runs of the storage.

    A name of several runs means all of them that are finished.

    Raises:
        InputError: nothing of that name, nothing that is finished, or two that differ and whose
            folders have one name.
    """
    from pipeline.training.exported_weights import folder_name

    found: Exports = {}
    finished = FinishedRuns(storage)
    for which in named:
        if which.endswith(BUNDLE_SUFFIX):
            for name, make in _in_bundle(which).items():
                _add(found, name, make, which)
        elif (file := weights_file(which)) is not None:
            exported = read_exported_file(file, which)
            if exported is None:
                raise InputError(
                    f"{which}: does not say what it is; name a run, a folder of `resnet-repro "
                    "results weights`, or a bundle"
                )
            _add(found, exported.name, _read(exported), which)
        else:
            runs = stored_runs_named(storage, which)
            ended = finished.with_weights(runs)
            if not ended:
                weights_of(storage, runs[0])  # says that it has none
            for run in ended:
                _add(found, folder_name(run), partial(finished.exported, run), which)
    if not named:
        ended = finished.with_weights(finished.runs)
        found = {folder_name(run): partial(finished.exported, run) for run in ended}
    if not found:
        raise InputError(f"{storage.uri}: holds no finished runs; `resnet-repro status` lists all")
    return found


def _add(found: Exports, name: str, make: "Callable[[], ExportedWeights]", where: str) -> None:
    """Take an export in; one that is there already may be named again.

    Raises:
        InputError: another one has its folder's name.
    """
    from pipeline.training.exported_weights import folder_files

    if name in found and folder_files(found[name]()) != folder_files(make()):
        raise InputError(
            f"{where}: {name} is there twice, and what is in the two differs; write each by "
            "itself, with an --out of its own"
        )
    found.setdefault(name, make)


class FinishedRuns:
    """The runs of a storage, and the results of those that have finished, read when asked for."""

    def __init__(self, storage: Storage) -> None:
        self.storage, self.runs = storage, stored_runs(storage)
        self._results: dict[str, dict[str, Any] | None] = {}

    def result(self, run: Run) -> dict[str, Any] | None:
        """A run's `result.json`; None unless it has finished."""
        if run.key not in self._results:
            result = read_result(self.storage, run)
            finished = result is not None and result["status"] == "finished"
            self._results[run.key] = result if finished else None
        return self._results[run.key]

    def with_weights(self, runs: list[Run]) -> list[Run]:
        """Those of some runs that have finished, and whose weights are there.

        A run that was carried here by `runs import` may have come without.
        """
        found = []
        for run in runs:
            result = self.result(run)
            if result is not None and self.storage.exists(final_weights_path(run, result)):
                found.append(run)
        return found

    def exported(self, run: Run) -> "ExportedWeights":
        """A finished run's weights with all that they are published with.

        Raises:
            InputError: it has no weights, or its dataset is not in storage any more.
        """
        from pipeline.training.exported_weights import ExportedWeights, named_classes
        from pipeline.training.feeding.preprocessing import Preprocessing

        weights = weights_of(self.storage, run)
        manifest = read_manifest(self.storage, run.dataset_id)
        if manifest is None:
            raise InputError(
                f"{run}: its dataset is not in {self.storage.uri} any more, and with it how "
                "pictures are prepared; prepare it again"
            )
        dataset = means_of(self.storage, run.dataset_id)
        result = self.result(run)
        assert result is not None  # or it had no weights
        return ExportedWeights(
            run,
            manifest,
            result,
            self._standing(run),
            Preprocessing.of(run.experiment, dataset),
            named_classes(manifest),
            weights,
        )

    def _standing(self, run: Run) -> Standing:
        """Of all finished seeds of the run's experiment on its dataset, and the paper's row."""
        seeds = (
            other for other in self.runs if other.identity | {"seed": run.seed} == run.identity
        )
        results = (self.result(seed) for seed in seeds)
        errors = tuple(float(result["final"][TEST_ERR]) for result in results if result is not None)
        return Standing(errors, _of_the_paper(run.experiment.name))


def means_of(storage: Storage, dataset_id: str) -> Any:
    """A stored dataset, for what pictures are prepared with; of photographs no shard is copied.

    Raises:
        InputError: it is not in storage, or is damaged there.
    """
    copies = None
    if storage.local is None:
        # It loads Ray, which a folder of this machine need not wait for.
        from jobs.execution.worker import cache_folder

        copies = cache_folder()
    return staged_dataset(storage, dataset_id, copies, splits=())


def _of_the_paper(experiment: str) -> tuple[PrintedError, ...]:
    """What the paper states of a row, for its card."""
    from analysis.tables.paper_errors import paper_errors

    errors = paper_errors(experiment)
    return tuple(PrintedError(error.of, error.printed, error.where) for error in errors)


def _read(exported: "ExportedWeights") -> "Callable[[], ExportedWeights]":
    # The paper's errors are ours to tell: a file may come from anybody.
    paper = _of_the_paper(exported.run.experiment.name)
    standing = replace(exported.standing, paper=paper)
    return lambda: replace(exported, standing=standing)


def _in_bundle(which: str) -> Exports:
    """The weights of a bundle.

    Raises:
        InputError: it is none, was packed without weights, or they are not for their row.
    """
    from analysis.measured.bundle import MOST_BYTES, unpack

    try:
        content = regular_file(Path(which), MOST_BYTES)
    except OSError as error:
        raise InputError(f"{which}: cannot be read ({error.strerror or error})") from error
    found: Exports = {}
    for name, file in unpack(content, which)[1].items():
        where, weights = f"{which}: {name}", name.endswith(".safetensors")
        exported = read_exported(file, where) if weights else None
        if exported is not None:
            _add(found, exported.name, _read(exported), where)
    if not found:
        raise InputError(
            f"{which}: holds no weights that say what they are; pack it again by `resnet-repro "
            "results export`, where the runs are"
        )
    return found
