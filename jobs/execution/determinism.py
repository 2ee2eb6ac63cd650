"""Which kernels a GPU may choose: those that give the same bytes each time, by default.

On the CPU the exact step is deterministic by itself, and nothing here changes it. On an H200 the
default cost 0.4 % of ResNet-20's rate (`docs/benchmarks.md`).
"""

import os
from dataclasses import dataclass

from pipeline.recipe.experiments import Experiment
from pipeline.runs.execution import Execution


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
