"""What each Ray Train worker runs: meet the others, load the dataset, train. Imports torch only inside the worker."""

import socket
from dataclasses import dataclass
from typing import Any

import ray.train
from ray.train.collective import broadcast_from_rank_zero

from pipeline.runs import Run


@dataclass(frozen=True)
class Work:
    """Everything a worker is told, small enough to travel as an argument."""

    run: Run
    storage: str
    threads: int
    use_gpu: bool
    checkpoint_seconds: float
    provenance: dict[str, Any]


def work(config: dict[str, Work]) -> dict[str, Any]:
    """Train `config["work"]` as one of its workers; returns the run's result."""
    import torch

    from pipeline import ranks
    from pipeline.datasets import read_dataset
    from pipeline.memory import keep_freed_memory
    from pipeline.provenance import hardware, versions
    from pipeline.storage import Storage
    from pipeline.train import Settings, train

    job = config["work"]
    keep_freed_memory()
    torch.set_num_threads(job.threads)
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    device = _device(job.use_gpu)
    group = ranks.join(rank, world_size, device, _meeting_point(rank, world_size))
    made_with = {
        "device": torch.cuda.get_device_name(device) if job.use_gpu else "cpu",
        "hardware": hardware(),
        "versions": versions(),
        "threads": job.threads,
    }
    try:
        storage = Storage(job.storage)
        settings = Settings(job.checkpoint_seconds, job.provenance | made_with)
        return train(job.run, read_dataset(storage, job.run.dataset_id), storage, group, settings)
    finally:
        ranks.leave()


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


def _meeting_point(rank: int, world_size: int) -> str:
    """An address on rank 0's node for the process group; Ray tells it to the other ranks."""
    if world_size == 1:
        return ""
    address = None
    if rank == 0:
        with socket.socket() as probe:
            probe.bind(("", 0))
            address = f"tcp://{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"
    return broadcast_from_rank_zero(address)
