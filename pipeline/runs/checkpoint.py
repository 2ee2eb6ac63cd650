"""Checkpoints in a run's folder: files first, manifest last; the newest that verifies wins.

Torch-free. A checkpoint is `checkpoints/<iteration>/` with the files it was given and
`manifest.json` naming the run and each file's size and checksum. Ray's own checkpoint machinery is
not used, so this is the one authority for resuming.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from json import dumps
from typing import Any

from typing_extensions import TypedDict

from pipeline.errors import InputError
from pipeline.recipe.schedule import milestone
from pipeline.runs.history import History
from pipeline.runs.run import Identity, Run
from pipeline.storage import Storage, checksum
from pipeline.stored_json import MOST_BYTES, check_as, parse

FORMAT = "resnet-repro/checkpoint/1"
KEEP = 2
"""Checkpoints kept besides those at lr drops and the end: the newest, and one to fall back on."""


class NamedFile(TypedDict):
    """What a manifest says of a file."""

    size: int
    checksum: str


class Manifest(TypedDict):
    """`manifest.json` of a checkpoint."""

    format: str
    identity: Identity
    iteration: int
    files: dict[str, NamedFile]


@dataclass(frozen=True)
class Checkpoint:
    """The verified content of a checkpoint: `files` by name, after `iteration` finished steps."""

    iteration: int
    files: dict[str, bytes]


def folder(run: Run, iteration: int) -> str:
    """Where a checkpoint lies in storage."""
    return f"{run.folder}/checkpoints/{iteration:08d}"


def save_checkpoint(
    storage: Storage, run: Run, checkpoint: Checkpoint, may_write: Callable[[], None] = lambda: None
) -> None:
    """Write a checkpoint, manifest last, then delete those no longer kept.

    `may_write` raises where another has taken the run over, and this checkpoint must not count.
    """
    may_write()
    path = folder(run, checkpoint.iteration)
    for name, content in checkpoint.files.items():
        storage.write(f"{path}/{name}", content)
    # The manifest makes the checkpoint: until it is there, what lies here is half a checkpoint that
    # nobody reads. It names the run, so that a copied folder is recognised.
    entries = {
        name: {"size": len(content), "checksum": checksum(content)}
        for name, content in checkpoint.files.items()
    }
    manifest = {
        "format": FORMAT,
        "identity": run.identity,
        "iteration": checkpoint.iteration,
        "files": entries,
    }
    # Asked again: the files may have taken minutes, in which another can have taken over.
    may_write()
    storage.write(f"{path}/manifest.json", dumps(manifest, indent=1).encode())
    with suppress(OSError):  # what could not be deleted is tried again after the next checkpoint
        for old in _not_kept(storage, run, checkpoint.iteration):
            storage.delete(folder(run, old))


def _not_kept(storage: Storage, run: Run, newest: int) -> list[int]:
    """Checkpoints to delete once `newest` is written.

    Older ones, and what an attempt that got further left unfinished: an unfinished or damaged one
    ahead must not take a kept one's turn.
    """
    # Those at lr drops and at the end stay for good, and so are no candidates.
    candidates = [
        iteration
        for iteration in sorted(iterations(storage, run))
        if not milestone(run.experiment, iteration)
    ]
    finished = [
        iteration
        for iteration in candidates
        if iteration <= newest and storage.exists(f"{folder(run, iteration)}/manifest.json")
    ]
    return [iteration for iteration in candidates if iteration not in finished[-KEEP:]]


def newest_checkpoint(
    storage: Storage, run: Run, say: Callable[[str], None] = lambda _: None
) -> Checkpoint | None:
    """The newest checkpoint that verifies, from which a run goes on; others are passed over.

    `say` is told of each that was finished once and is damaged now, and of none that was only half
    written. The driver asks once, to say so; rank 0 asks again, in `RunWriter.restore`, and that
    decides.

    Raises:
        InputError: a checkpoint that is not ours, or is another run's, lies in the folder.
    """
    for iteration in sorted(iterations(storage, run), reverse=True):
        checkpoint = read_checkpoint(storage, run, iteration)
        if checkpoint is not None:
            return checkpoint
        if storage.exists(f"{folder(run, iteration)}/manifest.json"):
            # It has a manifest and does not verify: damaged, where others are just unfinished.
            say(
                f"{storage.path(folder(run, iteration))} is damaged; going on from an older "
                "checkpoint, or anew"
            )
    return None


def iterations(storage: Storage, run: Run) -> list[int]:
    """Iterations with a folder under `checkpoints/`, complete or not.

    Raises:
        InputError: something else lies there.
    """
    # What a file browser leaves behind is passed over, and stays.
    names = [n for n in storage.names(f"{run.folder}/checkpoints") if not n.startswith(".")]
    for name in names:
        # Numbers alone are ours: a foreign folder must not be deleted with the old ones.
        if not re.fullmatch("[0-9]{8,18}", name):
            raise InputError(
                f"{storage.path(run.folder)}/checkpoints/{name}: not a checkpoint of ours; move it "
                "away"
            )
    return [int(name) for name in names]


def read_checkpoint(storage: Storage, run: Run, iteration: int) -> Checkpoint | None:
    """A checkpoint's files, None if it is incomplete or damaged.

    Raises:
        InputError: its manifest is foreign, or names another run.
    """
    path = folder(run, iteration)
    manifest = _manifest(storage, run, iteration)
    if manifest is None:
        return None
    files = {}
    for name, entry in manifest["files"].items():
        stored = storage.read_if_there(f"{path}/{name}")
        # Size first: it costs nothing, and most damage is a file cut short.
        if stored is None or len(stored) != entry["size"] or checksum(stored) != entry["checksum"]:
            return None
        files[name] = stored
    return Checkpoint(iteration, files)


def check_ours(storage: Storage, run: Run) -> None:
    """Look at every manifest of a run, without reading tensors.

    Raises:
        InputError: something in the folder is not ours, or is another run's.
    """
    for iteration in iterations(storage, run):
        _manifest(storage, run, iteration)


def _manifest(storage: Storage, run: Run, iteration: int) -> dict[str, Any] | None:
    """A checkpoint's manifest; None where it was not finished or cannot be parsed.

    Raises as `read_checkpoint` does.
    """
    path = folder(run, iteration)
    content = storage.read_if_there(f"{path}/manifest.json", MOST_BYTES)
    if content is None:
        return None
    try:
        manifest = parse(content)
    except ValueError:  # cut, or overwritten: as good as not there
        return None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{storage.path(path)}: not a checkpoint of ours; move it away")
    if manifest.get("identity") != run.identity:
        raise InputError(
            f"{storage.path(path)}: a checkpoint of another run ({manifest.get('identity')}); move "
            "it away"
        )
    check_as(content, Manifest, storage.path(path))
    # The files of a checkpoint lie in its folder, and nowhere else.
    if any("/" in name for name in manifest["files"]):
        raise InputError(f"{storage.path(path)}: not a checkpoint of ours; move it away")
    return dict(manifest)


def newest_iteration(storage: Storage, run: Run) -> int:
    """The iteration of the newest finished checkpoint, not verified; 0 before the first."""
    finished = (
        iteration
        for iteration in iterations(storage, run)
        if storage.exists(f"{folder(run, iteration)}/manifest.json")
    )
    return max(finished, default=0)


def final_weights(storage: Storage, run: Run, result: dict[str, Any]) -> bytes | None:
    """The weights of a run with this `result.json`; None if it did not finish, or they are gone."""
    if result["status"] != "finished":
        return None
    return storage.read_if_there(final_weights_path(run, result))


def final_weights_path(run: Run, result: dict[str, Any]) -> str:
    """Where the weights of a finished run with this `result.json` are in storage."""
    return f"{folder(run, result['iterations'])}/weights.safetensors"


def newest_history(storage: Storage, run: Run) -> History | None:
    """What the newest complete checkpoint has measured, without its tensors; None before it.

    Raises:
        InputError: that is damaged, or something foreign lies among the checkpoints.
    """
    for iteration in sorted(iterations(storage, run), reverse=True):
        path = folder(run, iteration)
        content = (
            storage.read_if_there(f"{path}/history.json", MOST_BYTES)
            if storage.exists(f"{path}/manifest.json")
            else None
        )
        if content is not None:
            return History.from_json(content, storage.path(f"{path}/history.json"))
    return None
