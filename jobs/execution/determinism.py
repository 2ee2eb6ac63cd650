"""`--deterministic`: what torch has to be told so that a GPU gives the same bytes twice. Untested
on a GPU.

It is slower there, and refuses operations that have no deterministic form. On the CPU the exact
step is deterministic by itself. TF32 is off in any case: fp32 means fp32.
"""

import os


def full_precision() -> None:
    """Multiply fp32 in fp32 on GPUs too."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def deterministic() -> None:
    """Deterministic algorithms or an error, no search for the fastest one, and a fixed workspace
    for cuBLAS.

    To be called before the process first uses its GPU.
    """
    import torch

    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
