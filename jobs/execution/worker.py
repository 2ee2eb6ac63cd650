"""What each Ray Train worker runs: load the dataset, join the others, train.

Imports torch only inside the worker. What it trains with is `pipeline.training.loop.train`, or
`pipeline.training.packs` where it is given several runs.
"""

import logging
import os
import signal
import socket
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import ray.train
from ray.train.collective import broadcast_from_rank_zero

from jobs.console.termination import SIGNALS
from jobs.execution.cluster import OWN_RAY, asked_to_stop
from pipeline.errors import InputError
from pipeline.runs.execution import Attempt, Execution
from pipeline.runs.provenance import code_trouble
from pipeline.runs.run import IDLE, PREEMPTED, SIGNALLED, Run

LOOK_SECONDS = 1.0
"""Between two looks at whether the command was asked to end."""

logger = logging.getLogger(__name__)
signals: list[int] = []
"""Those that this worker got; Ray sends SIGTERM too, when a worker that has ended is slow to go."""
stopping = Event()
"""Set once this worker is to save and leave: by a signal, or as its command is asked to end."""


@dataclass(frozen=True)
class WorkerTask:
    """Everything a worker is told, small enough to travel as an argument."""

    holders: dict[Run, str]
    """The runs, one or a pack of the same dataset, and their driver's lease on each."""
    execution: Execution
    provenance: dict[str, Any]
    """What the driver knows of this attempt: commit, and where it runs."""


def train_on_worker(config: dict[str, WorkerTask]) -> dict[str, dict[str, Any]]:
    """Train the runs of `config["task"]` as one of their workers.

    Returns how each attempt ended, by the run's key: its `result.json`, or a status of
    `pipeline.runs.run` with a reason. Nothing where this worker has no place.
    """
    # Signals reach a process's main thread, where Ray Train's actor is; the training has another.
    ray.get_runtime_context().current_actor.execute.remote(heed_signals)
    Thread(target=_watch, daemon=True).start()
    import torch

    from jobs.execution.processors import compiler_missing, kernel_settings, set_kernels
    from pipeline.memory import keep_freed_memory
    from pipeline.training.step.process_group import leave_group

    task = config["task"]
    execution, runs = task.execution, list(task.holders)

    # Process-wide settings come before anything that computes.
    keep_freed_memory()
    torch.set_num_threads(execution.threads)
    set_kernels(kernel_settings(runs[0].experiment, execution))
    context = ray.train.get_context()
    rank, started = context.get_world_rank(), context.get_world_size()
    world_size = usable_workers(started, min(run.experiment.groups for run in runs))
    device = device_of(execution.use_gpu)

    # Before the group is formed: a node may copy for hours, and whoever waits in an exchange gives
    # up after minutes.
    dataset, refused = None, ""
    if rank < world_size:
        refused = code_trouble(execution.source) or compiler_missing(execution.compiled)
        if not refused:
            dataset, refused = staged(execution.dataset_storage, runs[0].dataset_id)
    process_group = join_group(rank, world_size, device)
    if process_group is None:
        host = os.uname().nodename
        logger.warning(
            "rank %d of %d idles on %s: %d workers train", rank, started, host, world_size
        )
        return {run.key: {"status": IDLE} for run in runs}
    made_with = task.provenance | _made_with(execution, device, started, world_size)
    attempts = {
        run: Attempt(
            holder=holder,
            provenance=made_with,
            decoders=decoders(context.get_local_world_size()),
            preempted=_has_to_leave,
        )
        for run, holder in task.holders.items()
    }
    try:
        answers = _train(attempts, dataset, refused, process_group, execution)
    finally:
        leave_group()
    # Taken away by the cluster, a run goes on elsewhere; told to end by a signal, it does not.
    told = asked_to_stop() or (stopping.is_set() and not _taken_away())
    return {
        run.key: {"status": SIGNALLED} if told and answer["status"] == PREEMPTED else answer
        for run, answer in answers.items()
    }


def _train(
    attempts: dict[Run, Attempt],
    dataset: Any,
    refused: str,
    process_group: Any,
    execution: Execution,
) -> dict[Run, dict[str, Any]]:
    """Train one run with the others of the group, or a pack alone; `refused` says why not."""
    from pipeline.storage import Storage
    from pipeline.training.loop import train
    from pipeline.training.packs import answer_of, train_pack

    storage = Storage(execution.storage)
    if len(attempts) > 1 and not refused:
        return train_pack(attempts, dataset, storage, process_group.device, execution)

    # What is refused or has lost its storage is answered, not raised: Ray must not take it for a
    # worker's failure, and start the group anew.
    def one(run: Run, attempt: Attempt) -> dict[str, Any]:
        raise_on_all_ranks(process_group, refused)
        return train(run, dataset, storage, process_group, execution, attempt)

    return {run: answer_of(partial(one, run, attempt)) for run, attempt in attempts.items()}


def _made_with(execution: Execution, device: Any, started: int, world_size: int) -> dict[str, Any]:
    """What this worker knows of an attempt's provenance."""
    import torch

    from jobs.execution.processors import gpu_versions
    from pipeline.runs.provenance import gpu_driver, hardware, source_digest, versions

    made_with: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if execution.use_gpu else "cpu",
        "hardware": hardware(),
        "versions": versions(),
        "source": source_digest(),
        "threads": execution.threads,
        "deterministic": execution.deterministic_kernels,
    }
    if execution.use_gpu:
        made_with |= {"gpu_driver": gpu_driver(), "versions": versions() | gpu_versions()}
    if world_size < started:
        idle = [f"rank {surplus} of {started}" for surplus in range(world_size, started)]
        made_with["idle"] = idle
    return made_with


def staged(storage: str, dataset_id: str, splits: tuple[str, ...] | None = None) -> tuple[Any, str]:
    """A dataset on this node, or why the user has to do something first."""
    from pipeline.data.photo_shards import SPLITS
    from pipeline.data.staging import staged_dataset
    from pipeline.storage import Storage

    try:
        return staged_dataset(Storage(storage), dataset_id, cache_folder(), splits or SPLITS), ""
    except InputError as error:
        return None, str(error)


def raise_on_all_ranks(group: Any, refused: str) -> None:
    """Raise what any rank was refused for, on every rank.

    Raises:
        InputError: something was.
    """
    everywhere = [text for text in group.gather_text(refused) if text]
    if everywhere:
        raise InputError(everywhere[0])


def usable_workers(workers: int, groups: int) -> int:
    """How many workers of a group train: a power of two, at most one for each batch-norm group."""
    return min(1 << (workers.bit_length() - 1), groups)


def decoders(workers_here: int) -> int:
    """How many decode photographs for a worker: its share of the node's processors."""
    return max(1, len(os.sched_getaffinity(0)) // workers_here)


def heed_signals() -> None:
    """Save and leave when a signal asks for it; called in a worker's main thread."""

    def on_signal(number: int, _frame: object) -> None:
        signals.append(number)
        stopping.set()

    for number in SIGNALS:
        signal.signal(number, on_signal)
    # A Ray of the command's own starts its processes with these blocked.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _watch() -> None:
    """Hear it when the command is asked to end.

    In a thread of its own, so that training never waits for the cluster's answer.
    """
    while not stopping.wait(LOOK_SECONDS):
        if asked_to_stop():
            stopping.set()


def _taken_away() -> bool:
    """Whether this worker has to leave, and its run goes on elsewhere: not that the command ends.

    On a cluster that is joined a SIGTERM alone says that the node or its Ray is being stopped.
    """
    node = OWN_RAY not in os.environ and set(signals) == {signal.SIGTERM}
    return node or _preempted()


def _has_to_leave() -> bool:
    """Whether this worker is to save and leave: the command has to end, or a node of the group."""
    return stopping.is_set() or _preempted()


def _preempted() -> bool:
    """Whether the cluster has warned that it will take a node of this worker group away.

    Ray's public question (`ray.train.get_preemption_info`) waits for all workers, and idle ones
    would not answer.
    """
    from ray.train.v2._internal.execution.context import get_train_context

    return get_train_context().preemption_context.preemption_info is not None


def cache_folder() -> Path | None:
    """Where this node keeps copies for this user, by its environment; None without a home."""
    if named := os.environ.get("RESNET_REPRO_CACHE"):
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "resnet-repro"
    except RuntimeError:
        return None


def device_of(use_gpu: bool) -> Any:
    """This worker's device."""
    import torch

    if not use_gpu:
        return torch.device("cpu")
    from ray.train.torch import get_device

    device = get_device()
    torch.cuda.set_device(device)
    return device


def join_group(rank: int, world_size: int, device: Any) -> Any:
    """Join the run's process group; None for a rank that has no place in it.

    They meet on rank 0's node, at the address that Ray knows it by; Ray tells the others.
    """
    from pipeline.training.step.process_group import init_group, listen, single_process

    if world_size == 1:
        return single_process(device) if rank == 0 else None
    here = use_own_interface()
    listener = listen(here) if rank == 0 else None
    mine = (here, listener.getsockname()[1]) if listener else None
    address = tuple(broadcast_from_rank_zero(mine))
    return init_group(rank, world_size, device, address, listener) if rank < world_size else None


def use_own_interface() -> str:
    """This node's address as Ray knows it, at whose interface gloo meets the others from now on.

    Left alone, gloo takes the address that the host's name resolves to: often a loopback one, or
    none.
    """
    here = str(ray.util.get_node_ip_address())
    if interface := interface_of(here):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    return here


def interface_of(address: str) -> str | None:
    """The name of this machine's network interface with an IPv4 address, or None.

    None where no interface has it, and on systems other than Linux.
    """
    if sys.platform != "linux":
        return None
    from fcntl import ioctl

    ask_address = 0x8915  # SIOCGIFADDR
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                found = ioctl(probe.fileno(), ask_address, name.encode().ljust(256, b"\0"))[20:24]
            except OSError:  # an interface without an IPv4 address
                continue
            if socket.inet_ntoa(found) == address:
                return name
    return None
