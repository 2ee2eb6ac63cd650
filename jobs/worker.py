"""What each Ray Train worker runs: meet the others, load the dataset, train. Imports torch only inside the worker."""

import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
from ray.train.collective import broadcast_from_rank_zero

from pipeline.errors import InputError
from pipeline.runs import REFUSED, Run


@dataclass(frozen=True)
class Work:
    """Everything a worker is told, small enough to travel as an argument."""

    run: Run
    storage: str
    threads: int
    use_gpu: bool
    checkpoint_seconds: float
    one_pass: bool
    provenance: dict[str, Any]


def work(config: dict[str, Work]) -> dict[str, Any]:
    """Train `config["work"]` as one of its workers; returns the run's result."""
    import torch

    from pipeline import ranks
    from pipeline.memory import keep_freed_memory
    from pipeline.provenance import hardware, versions
    from pipeline.staging import staged_dataset
    from pipeline.storage import Storage
    from pipeline.train import Settings, train

    job = config["work"]
    keep_freed_memory()
    torch.set_num_threads(job.threads)
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    device = _device(job.use_gpu)
    group = _meet(rank, world_size, device)
    made_with = {
        "device": torch.cuda.get_device_name(device) if job.use_gpu else "cpu",
        "hardware": hardware(),
        "versions": versions(),
        "threads": job.threads,
    }
    try:
        storage = Storage(job.storage)
        settings = Settings(job.checkpoint_seconds, job.provenance | made_with, job.one_pass)
        dataset = staged_dataset(storage, job.run.dataset_id, cache_folder())
        return train(job.run, dataset, storage, group, settings)
    except InputError as error:  # trying again would not help, so it must not look like a worker's failure
        return {"status": REFUSED, "reason": str(error)}
    finally:
        ranks.leave()


def cache_folder() -> Path | None:
    """Where this node keeps copies for this user; its own environment says. None for a user without a home."""
    if named := os.environ.get("RESNET_REPRO_CACHE"):
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "resnet-repro"
    except RuntimeError:
        return None


def _device(use_gpu: bool) -> Any:
    """This worker's device; on a GPU, fp32 means fp32 (TF32 off)."""
    import torch

    if not use_gpu:
        return torch.device("cpu")
    from ray.train.torch import get_device

    device = get_device()
    torch.cuda.set_device(device)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return device


def _meet(rank: int, world_size: int, device: Any) -> Any:
    """Join the run's process group on rank 0's node, at the address that Ray knows that node by; Ray tells the others."""
    from pipeline import ranks

    if world_size == 1:
        return ranks.single(device)
    here = ray.util.get_node_ip_address()
    if interface := interface_of(here):
        # Left alone, gloo takes the address that the host's name resolves to: often a loopback one, or none.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    listener = ranks.listen(here) if rank == 0 else None
    mine = (here, listener.getsockname()[1]) if listener else None
    address = tuple(broadcast_from_rank_zero(mine))
    return ranks.join(rank, world_size, device, address, listener)


def interface_of(address: str) -> str | None:
    """The name of this machine's network interface with an IPv4 address; None if there is none, or not on Linux."""
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
