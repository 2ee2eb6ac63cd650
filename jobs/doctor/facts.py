"""What one node says of itself; runs on the node, as a Ray task that takes no CPU. Nothing is left
behind.
"""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep, time
from typing import Any

from jobs.execution.worker import cache_folder
from jobs.tracking.server_check import tracking_trouble
from pipeline.data.photo_shards import fits, holds_photographs
from pipeline.data.stored import images_path, intact, read_manifest
from pipeline.errors import InputError, first_line
from pipeline.runs.provenance import hardware, source_digest, versions
from pipeline.storage import Storage

SETTLE_SECONDS = 5.0
"""A shared folder may show another node's file late: so long it is looked for."""
SIZES_AT_ONCE = 16


@dataclass(frozen=True)
class Question:
    """What each node is asked about: a storage with a probe file of the asker's in it, an MLflow
    store, a dataset.
    """

    storage: str
    probe: str
    tracking: str
    dataset_id: str


@dataclass(frozen=True)
class Facts:
    """A node's answer. Texts say what went wrong and are empty where nothing did; sizes are bytes,
    times seconds (Unix).
    """

    host: str
    address: str
    head: bool
    time: float
    versions: dict[str, str]
    source: str
    hardware: str
    trains: bool
    """Whether Ray counts CPUs or GPUs of it, so that workers can be there."""
    gpus: int
    gpus_seen: int
    writes: str
    reads: str
    mine: str
    """The path of what the node has written, for the asker to look for; empty if it could not."""
    free: dict[str, int] = field(default_factory=dict)
    """Bytes left where Ray keeps its session, and where copies of datasets go."""
    shared_memory: int = 0
    tracking: str = ""
    data: str = ""
    seconds: float = 0.0


def examine(question: Question, name: str, trains: bool, gpus: int, head: bool) -> Facts:
    """Answer on the node this runs on."""
    import ray

    began = time()
    writes, reads, mine = _storage(question, name)
    return Facts(
        host=os.uname().nodename,
        address=ray.util.get_node_ip_address(),
        head=head,
        time=began,
        versions=versions(),
        source=source_digest(),
        hardware=hardware(),
        trains=trains,
        gpus=gpus,
        gpus_seen=_gpus_seen() if gpus else 0,
        writes=writes,
        reads=reads,
        mine=mine,
        free=_free(),
        shared_memory=_room(Path("/dev/shm")) or 0,
        tracking=tracking_trouble(question.tracking),
        data=_data(question.storage, question.dataset_id) if question.dataset_id else "",
        seconds=time() - began,
    )


def _storage(question: Question, name: str) -> tuple[str, str, str]:
    """What writing and reading met with, and where this node has written."""
    mine = f"{question.probe}-{name}"
    try:
        storage = Storage(question.storage)
    except InputError as error:
        return str(error), "", ""
    writes = reads = ""
    try:
        storage.write(mine, b"node")
    except OSError as error:
        writes, mine = first_line(error), ""
    for _ in range(int(SETTLE_SECONDS)):
        try:
            reads = "" if storage.read(question.probe) == b"asker" else "another content"
        except OSError as error:
            reads = first_line(error)
        if not reads:
            break
        sleep(1)
    return writes, reads, mine


def _free() -> dict[str, int]:
    from ray._private.worker import _global_node

    places = {
        "Ray's session folder": Path(_global_node.get_session_dir_path())
        if _global_node
        else Path("/tmp/ray")
    }
    if cache := cache_folder():
        places["the folder of copies"] = cache
    found = {f"{what} {path}": _room(path) for what, path in places.items()}
    return {what: room for what, room in found.items() if room is not None}


def _room(path: Path) -> int | None:
    """Bytes left at a path, or at the nearest folder above it that is there."""
    for there in (path, *path.parents):
        with suppress(OSError):
            return shutil.disk_usage(there).free
    return None


def _gpus_seen() -> int:
    """GPUs that torch can use here: a task that holds none sees them all."""
    try:
        import torch
    except ImportError:
        return 0
    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0


def _data(storage_uri: str, dataset_id: str) -> str:
    """Whether all files of a dataset are there with their sizes, and one of them with its checksum."""
    storage = Storage(storage_uri)
    try:
        manifest = read_manifest(storage, dataset_id)
        if manifest is None:
            return "its manifest is not there"
        if not holds_photographs(manifest):
            good = intact(manifest, storage.read(images_path(dataset_id)))
            return "" if good else "its images are not what its manifest says"
        return _shards(storage, manifest)
    except (OSError, InputError) as error:
        return first_line(error)


def _shards(storage: Storage, manifest: dict[str, Any]) -> str:
    files = [manifest["index"], manifest["mean"], *manifest["shards"]]
    with ThreadPoolExecutor(SIZES_AT_ONCE) as several:
        sizes = list(several.map(lambda file: storage.file_size(file["path"]), files))
    wrong = [file for file, size in zip(files, sizes, strict=True) if size != file["size"]]
    if wrong:
        return f"{len(wrong)} of {len(files)} files are missing or cut, such as {wrong[0]['path']}"
    sample = files[hash(os.uname().nodename) % len(files)]
    return "" if fits(sample, storage.read(sample["path"])) else f"{sample['path']} is damaged"
