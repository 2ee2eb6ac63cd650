"""What this process computes with: its CPUs and GPUs, which may be fewer than its machine has, and
the kernels that a GPU may choose.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import first_line, last_line
from pipeline.recipe.experiments import Experiment
from pipeline.runs.execution import Execution
from pipeline.runs.provenance import gpu_driver
from pipeline.stored_json import parse

COMPILERS = ("c++", "g++", "clang++", "cc", "gcc", "clang")
PRODUCT_SIDE = 256
TOLERANCE = 1e-3
"""Of a product of two such matrices of normal numbers, whose elements are near 16, in fp32."""
GPU_SECONDS = 20.0
"""For torch to load, and a kernel on each GPU of a node."""


@dataclass(frozen=True)
class GpuFacts:
    """A GPU as torch finds it; memory in bytes."""

    name: str
    driver: str
    cuda: str
    cudnn: str
    free: int
    total: int
    trouble: str
    """What its kernels met with; empty where they computed what a CPU does."""


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


def examine_gpus() -> list[GpuFacts]:
    """Each GPU of this node, with a kernel run on it; in a process that ends with its memory.

    Raises:
        RuntimeError: the process ended or hung.
    """
    # A task of Ray's knows of this package by its `sys.path` alone.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    # From a task that holds no GPU Ray may hide them all.
    if not environment.get("CUDA_VISIBLE_DEVICES"):
        environment.pop("CUDA_VISIBLE_DEVICES", None)
    code = f"from {__name__} import print_gpus; print_gpus()"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=GPU_SECONDS,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"no kernel ended within {GPU_SECONDS:.0f} s") from None
    if done.returncode:
        raise RuntimeError(last_line(done.stderr) or f"ended with code {done.returncode}")
    return [GpuFacts(**facts) for facts in parse(done.stdout.splitlines()[-1])]


def print_gpus() -> None:
    """Print this node's GPUs as JSON."""
    import torch

    devices = [torch.device("cuda", number) for number in range(usable_gpus())]
    print(json.dumps([asdict(_gpu_facts(device)) for device in devices]))


def _gpu_facts(device: Any) -> GpuFacts:
    import torch

    versions, free, total = gpu_versions(), 0, 0
    try:
        trouble = kernel_trouble(device)
        free, total = torch.cuda.mem_get_info(device)
    except RuntimeError as error:  # CUDA's errors, lack of memory among them
        trouble = first_line(error)
    return GpuFacts(
        name=torch.cuda.get_device_name(device),
        driver=gpu_driver(),
        cuda=versions.get("cuda", "unknown"),
        cudnn=versions.get("cudnn", "unknown"),
        free=free,
        total=total,
        trouble=trouble,
    )


def kernel_trouble(device: Any) -> str:
    """How a matrix product on this device, at once and replayed, differs from the CPU's.

    Empty where it does not. On a GPU it is replayed as a CUDA graph, as an iteration is.

    Raises:
        RuntimeError: a kernel cannot be launched or captured.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, PRODUCT_SIDE, PRODUCT_SIDE, generator=generator).unbind()
    expected = left.double() @ right.double()
    x, y = left.to(device), right.to(device)
    found = x @ y

    def difference(product: Any, factor: float) -> float:
        return float((product.cpu().double() - factor * expected).abs().max())

    # Not `> TOLERANCE`: what is not a number is trouble too.
    if not (off := difference(found, 1.0)) <= TOLERANCE:
        return f"a matrix product is off by {off:.3g}"
    if device.type == "cuda":
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(device), torch.cuda.graph(graph):
            found = x @ y
        x.mul_(2)
        graph.replay()
        torch.cuda.synchronize(device)
    else:
        found = x.mul_(2) @ y
    if not (off := difference(found, 2.0)) <= 2 * TOLERANCE:
        return f"a matrix product replayed from a CUDA graph is off by {off:.3g}"
    return ""


def mps_sign(
    environment: Mapping[str, str] | None = None,
    folder: Path = Path("/tmp/nvidia-mps"),
    processes: Path = Path("/proc"),
) -> str:
    """By what NVIDIA's MPS is seen to run here: its daemon, or its pipe; empty where it is not."""
    named = (os.environ if environment is None else environment).get("CUDA_MPS_PIPE_DIRECTORY")
    # The daemon may live in another container, to which only the pipe leads.
    pipe = Path(named or folder) / "control"
    for name in processes.glob("[0-9]*/comm"):
        try:
            # The kernel keeps fifteen characters: nvidia-cuda-mps-control, or -server.
            if name.read_text().startswith("nvidia-cuda-mps"):
                return f"process {name.parent.name}"
        except OSError:  # it has ended meanwhile
            continue
    return str(pipe) if pipe.exists() else ""


@dataclass(frozen=True)
class KernelSettings:
    """What a process is set to before it first uses its GPU; of all runs in it, not of one."""

    deterministic: bool
    """Only algorithms that give the same bytes each time; an operation without one raises."""
    tf32: bool
    """fp32 convolutions and matrix products round their factors to 10 bits of mantissa."""


def kernel_settings(experiment: Experiment, execution: Execution) -> KernelSettings:
    """What a run of this row needs; runs that differ in it cannot share a process."""
    tf32 = execution.use_gpu and experiment.precision == "tf32"
    return KernelSettings(execution.deterministic_kernels, tf32)


def set_kernels(settings: KernelSettings) -> None:
    """Set what this process's GPU kernels may do; to be called before it first uses its GPU.

    On the CPU the exact step is deterministic by itself, and nothing here changes it. On an H200
    the default cost 0.4 % of ResNet-20's rate (`docs/benchmarks.md`).

    Without `tf32`, fp32 means fp32: torch's own default would be TF32 in convolutions.
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = settings.tf32
    torch.backends.cudnn.allow_tf32 = settings.tf32
    torch.backends.cudnn.deterministic = settings.deterministic
    # A search by timing would choose differently from one process to the next.
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(settings.deterministic)
    if settings.deterministic:
        # A fixed workspace, without which cuBLAS is not deterministic.
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        # Everything that is read is written first: filling new memory would only cost kernels.
        # (A property that type checkers do not see.)
        setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010


def compiler_missing(compiled: bool) -> str:
    """Why this node cannot fuse kernels where that is asked for; empty where nothing is missing."""
    if not compiled or any(map(shutil.which, COMPILERS)):
        return ""
    return (
        f"--compile: torch's compiler needs a C++ compiler, and {os.uname().nodename} has none; "
        "install g++ there, or train without --compile"
    )
