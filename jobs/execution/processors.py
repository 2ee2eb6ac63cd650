"""CPUs and GPUs that this process may use, which may be fewer than its machine has."""

import os


def usable_cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS cannot bind a process to some of them


def gpu_versions() -> dict[str, str]:
    """The versions of CUDA and cuDNN that torch computes with; none where it has none."""
    import torch

    found = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return {name: str(version) for name, version in found.items() if version}


def usable_gpus() -> int:
    """GPUs that torch can use here; a Ray task that holds none sees them all."""
    try:
        import torch
    except ImportError:
        return 0
    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0
