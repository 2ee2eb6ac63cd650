"""Which kernels a GPU may choose: those that give the same bytes each time, by default.

On the CPU the exact step is deterministic by itself, and nothing here changes it. On an H200 the
default cost 0.4 % of ResNet-20's rate (`docs/benchmarks.md`).
"""

import os
import shutil

COMPILERS = ("c++", "g++", "clang++", "cc", "gcc", "clang")


def set_kernels(deterministic: bool) -> None:
    """Set what this process's GPU kernels may do; to be called before it first uses its GPU.

    fp32 means fp32: TF32 is off. With `deterministic`, cuDNN and cuBLAS
    choose only algorithms that give the same bytes each time, and an operation without one raises.
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = deterministic
    # A search by timing would choose differently from one process to the next.
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(deterministic)
    if deterministic:
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
