"""The precision of forward and backward passes: the one place that knows autocast.

Weights, momentum, statistics and sums are fp32 whatever the row's `precision` is. TF32 is no
autocast but a setting of the whole process, made before it uses its GPU.
"""

import torch

from pipeline.recipe.experiments import Precision


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The context in which a network of this precision computes on `device`; bf16 alone changes it.

    Within it weights are rounded to bf16 where they are used. Training gives it weights that are
    rounded already (`TrainState`).
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
