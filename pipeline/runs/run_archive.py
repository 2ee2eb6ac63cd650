"""Runs that travel: what is needed to go on with them in another storage, in one file.

Torch-free. An archive is a zip file of the files of runs' folders: of a run that goes on its newest
checkpoint, of one that has ended what it measured, and its weights where they are asked for. What
is taken in is checked by the readers that a storage has, before anything of it is written.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from pipeline.errors import InputError, first_line
from pipeline.runs.checkpoint import (
    check_ours,
    folder,
    iterations,
    newest_checkpoint,
    newest_iteration,
    save_checkpoint,
)
from pipeline.runs.lease import living
from pipeline.runs.run import Run, check_run, read_result, stored_runs
from pipeline.storage import Storage, check_regular, whole_file

EPOCH = (1980, 1, 1, 0, 0, 0)
"""Of every entry: an archive's bytes depend on the runs alone."""
NAME = re.compile(
    r"runs/[\w.-]+/[\w.-]+/seed-\d{1,19}/"
    r"(asked\.json|run\.json|result\.json|checkpoints/\d{8}/[\w.-]+)"
)
MOST_ENTRIES = 100_000
MOST_ENTRY = 4 << 30
"""Bytes of a file in it; the momentum of the paper's largest network has a sixteenth of it."""


@dataclass(frozen=True)
class TakenIn:
    """What became of an archive's runs: those that were taken, and why others were not."""

    taken: list[Run]
    passed_over: dict[Run, str]


def write_archive(storage: Storage, out: Path, weights: bool = False) -> list[Run]:
    """Pack a storage's runs that have anything to go on from; returns them.

    With `weights`, also the final weights of runs that have ended.

    Raises:
        InputError: a run is being trained: it would go on in two places.
        OSError: the file cannot be written.
    """
    runs = stored_runs(storage)
    for run in living(storage, [run for run in runs if read_result(storage, run) is None]):
        raise InputError(f"{run}: is being trained; stop it first, it would go on in two places")
    packed = []
    with whole_file(out) as partial, ZipFile(partial, "w", ZIP_STORED) as archive:
        for run in runs:
            files = _files(storage, run, weights)
            for name, content in files.items():
                archive.writestr(ZipInfo(f"{run.folder}/{name}", EPOCH), content)
            packed += [run] if files else []
    return packed


def _files(storage: Storage, run: Run, weights: bool) -> dict[str, bytes]:
    """What goes on with a run, by its place in the folder; nothing before its first checkpoint."""
    names = ["run.json", "asked.json"]
    result = read_result(storage, run)
    if result is not None:
        place = f"checkpoints/{result['iterations']:08d}"
        names += [f"{place}/history.json", f"{place}/manifest.json", "result.json"]
        names += [f"{place}/weights.safetensors"] if weights else []
        found = {name: storage.read_if_there(f"{run.folder}/{name}") for name in names}
        return {name: content for name, content in found.items() if content is not None}
    checkpoint = newest_checkpoint(storage, run)
    if checkpoint is None:
        return {}
    place = folder(run, checkpoint.iteration).removeprefix(f"{run.folder}/")
    about = {name: storage.read_if_there(f"{run.folder}/{name}") for name in names}
    manifest = storage.read(f"{run.folder}/{place}/manifest.json")
    return {
        **{name: content for name, content in about.items() if content is not None},
        **{f"{place}/{name}": content for name, content in checkpoint.files.items()},
        f"{place}/manifest.json": manifest,
    }


def take_in(storage: Storage, archive: Path, say: Callable[[str], None]) -> TakenIn:
    """Take an archive's runs into a storage, where they are further than what is there.

    `say` is told of checkpoints in the storage that are damaged.

    Raises:
        InputError: it is no archive of ours, or damaged; or a run of it is being trained here.
        OSError: a file cannot be read or written.
    """
    check_regular(archive)
    with TemporaryDirectory() as scratch:
        _unpack(archive, Path(scratch))
        packed, damaged = Storage(scratch), list[str]()
        runs = stored_runs(packed, damaged.append)
        if damaged or not runs:
            raise InputError(f"{archive}: {damaged[0] if damaged else 'holds no runs'}")
        for run in runs:
            _check(packed, run, archive)
        for run in living(storage, [run for run in runs if read_result(storage, run) is None]):
            raise InputError(f"{run}: is being trained here; wait for it, or stop it")
        taken, passed_over = [], dict[Run, str]()
        for run in runs:
            why = _why_not(storage, packed, run, say)
            if why:
                passed_over[run] = why
                continue
            _copy(packed, storage, run)
            taken.append(run)
    return TakenIn(taken, passed_over)


def _unpack(archive: Path, place: Path) -> None:
    """An archive's files below a place, named and sized as ours are.

    Raises:
        InputError: anything else is in it.
    """
    try:
        with ZipFile(archive) as packed:
            entries = packed.infolist()
            # Ours are stored as they are, so together they are no larger than the archive.
            whole = sum(entry.file_size for entry in entries)
            if len(entries) > MOST_ENTRIES or whole > archive.stat().st_size:
                raise BadZipFile("it says that it holds more than it can")
            for entry in entries:
                ours = NAME.fullmatch(entry.filename) and entry.compress_type == ZIP_STORED
                if not ours or entry.file_size > MOST_ENTRY:
                    raise BadZipFile(f"{entry.filename[:80]!r} is none of its files")
                target = place / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(packed.read(entry))
    # Any way in which a zip file can be broken means the same to a user: make it again.
    except (
        BadZipFile, EOFError, KeyError, ValueError, NotImplementedError, RuntimeError,
        OverflowError,
    ) as error:  # fmt: skip
        raise InputError(
            f"{archive}: not an archive of `resnet-repro runs export`, or cut off "
            f"({first_line(error)})"
        ) from error


def _check(packed: Storage, run: Run, archive: Path) -> None:
    """Refuse a run of which the archive has neither a result nor a whole checkpoint."""
    check_ours(packed, run)
    if read_result(packed, run) is None and newest_checkpoint(packed, run) is None:
        raise InputError(f"{archive}: the checkpoint of {run} is damaged; make the archive again")


def _why_not(storage: Storage, packed: Storage, run: Run, say: Callable[[str], None]) -> str:
    """Why a run stays as it is in a storage; empty if it is to be taken in."""
    check_run(storage, run)
    if read_result(storage, run) is not None:
        return "it has ended here"
    if read_result(packed, run) is not None:
        return ""
    here = newest_checkpoint(storage, run, say)
    reached = here.iteration if here else -1
    if reached >= newest_iteration(packed, run):
        return f"it is at iteration {reached:,} here"
    return ""


def _copy(packed: Storage, storage: Storage, run: Run) -> None:
    """Write a run's files, in the order in which a run writes them: what counts comes last."""
    for name in ("run.json", "asked.json"):
        _copy_file(packed, storage, f"{run.folder}/{name}")
    if read_result(packed, run) is None:
        checkpoint = newest_checkpoint(packed, run)
        assert checkpoint is not None
        return save_checkpoint(storage, run, checkpoint)
    for iteration in iterations(packed, run):
        place = folder(run, iteration)
        for name in sorted(packed.names(place), key=lambda name: (name == "manifest.json", name)):
            _copy_file(packed, storage, f"{place}/{name}")
    _copy_file(packed, storage, f"{run.folder}/result.json")


def _copy_file(packed: Storage, storage: Storage, path: str) -> None:
    content = packed.read_if_there(path)
    if content is not None:
        storage.write(path, content)
