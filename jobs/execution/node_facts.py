"""What one node says of itself; runs on the node, as a Ray task that takes no CPU.

Nothing is left behind but a probe file in storage, which whoever asks deletes.
"""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep, time
from typing import Any

from jobs.execution.processors import GpuFacts, examine_gpus, mps_sign
from jobs.execution.worker import cache_folder
from jobs.tracking.server_check import tracking_trouble
from pipeline.data.photo_shards import fits, holds_photographs
from pipeline.data.stored import images_path, intact, read_manifest
from pipeline.errors import InputError, first_line
from pipeline.runs.provenance import hardware, source_digest, versions
from pipeline.storage import Storage

SETTLE_SECONDS = 5.0
"""A shared folder may show another node's file late: it is looked for this long."""
SIZES_AT_ONCE = 16


@dataclass(frozen=True)
class Question:
    """What each node is asked about: a storage, an MLflow store and a dataset."""

    storage: str
    probe: str
    """The path of a file of the asker's in the storage; a node writes its own beside it."""
    tracking: str
    dataset_id: str


@dataclass(frozen=True)
class Facts:
    """A node's answer: texts say what went wrong and are empty where nothing did.

    Sizes are in bytes, times in seconds (Unix).
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
    cards: tuple[GpuFacts, ...] = ()
    """The GPUs, where Ray counts any."""
    cards_trouble: str = ""
    """Why nothing is known of them."""
    mps: str = ""
    """By what NVIDIA's MPS is seen to run; empty where it does not."""
    shared_memory: int = 0
    tracking: str = ""
    data: str = ""
    seconds: float = 0.0


def examine(question: Question, name: str, trains: bool, gpus: int, head: bool) -> Facts:
    """Answer on the node this runs on; the asker knows `name` to `head` from Ray."""
    import ray

    began = time()
    writes, reads, mine = _try_storage(question, name)
    cards, cards_trouble = _cards() if gpus else ((), "")  # torch is slow to load
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
        gpus_seen=len(cards),
        writes=writes,
        reads=reads,
        mine=mine,
        free=_free_bytes(),
        cards=cards,
        cards_trouble=cards_trouble,
        mps=mps_sign() if gpus else "",
        shared_memory=_bytes_left(Path("/dev/shm")) or 0,
        tracking=tracking_trouble(question.tracking),
        data=_data_trouble(question.storage, question.dataset_id) if question.dataset_id else "",
        seconds=time() - began,
    )


def _cards() -> tuple[tuple[GpuFacts, ...], str]:
    """The GPUs of this node, and why they could not be tried."""
    try:
        return tuple(examine_gpus()), ""
    except (RuntimeError, OSError, ValueError) as error:
        return (), first_line(error)


def _try_storage(question: Question, name: str) -> tuple[str, str, str]:
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
    # The asker's file is read, and not only the node's own: a folder that is local to each node
    # can be written and read everywhere and is still not shared.
    for _ in range(int(SETTLE_SECONDS)):
        try:
            reads = "" if storage.read(question.probe) == b"asker" else "another content"
        except OSError as error:
            reads = first_line(error)
        if not reads:
            break
        sleep(1)
    return writes, reads, mine


def _free_bytes() -> dict[str, int]:
    from ray._private.worker import _global_node

    session = Path(_global_node.get_session_dir_path()) if _global_node else Path("/tmp/ray")
    # Where Ray spills objects and logs, and where this node copies datasets to.
    paths = {"Ray's session folder": session}
    if cache := cache_folder():
        paths["the folder of copies"] = cache
    free = {f"{what} {path}": _bytes_left(path) for what, path in paths.items()}
    return {what: left for what, left in free.items() if left is not None}


def _bytes_left(path: Path) -> int | None:
    """Bytes left at a path, or at the nearest folder above it that exists."""
    for folder in (path, *path.parents):
        with suppress(OSError):
            return shutil.disk_usage(folder).free
    return None


def _data_trouble(storage_uri: str, dataset_id: str) -> str:
    """Whether a dataset's files have their sizes, and one of them its checksum; empty if so."""
    storage = Storage(storage_uri)
    try:
        manifest = read_manifest(storage, dataset_id)
        if manifest is None:
            return "its manifest is not there"
        if not holds_photographs(manifest):
            good = intact(manifest, storage.read(images_path(dataset_id)))
            return "" if good else "its images are not what its manifest says"
        return _shards_trouble(storage, manifest)
    except (OSError, InputError) as error:
        return first_line(error)


def _shards_trouble(storage: Storage, manifest: dict[str, Any]) -> str:
    files = [manifest["index"], manifest["mean"], *manifest["shards"]]
    with ThreadPoolExecutor(SIZES_AT_ONCE) as pool:
        # Sizes of thousands of shards: in a bucket each is a request, so several at a time.
        sizes = list(pool.map(lambda file: storage.file_size(file["path"]), files))
    wrong = [file for file, size in zip(files, sizes, strict=True) if size != file["size"]]
    if wrong:
        return f"{len(wrong)} of {len(files)} files are missing or cut, such as {wrong[0]['path']}"
    # Reading all would take hours. Nodes read different files, so together they see more of it.
    sample = files[hash(os.uname().nodename) % len(files)]
    return "" if fits(sample, storage.read(sample["path"])) else f"{sample['path']} is damaged"
