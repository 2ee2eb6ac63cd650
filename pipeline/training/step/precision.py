"""The precision of forward and backward passes: the one place that knows autocast.

Weights, momentum, statistics and sums are fp32 whatever the row's `precision` is.
"""

import torch

from pipeline.recipe.experiments import Precision


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The context in which a network of this precision computes on `device`; fp32 changes nothing.

    Leaving it drops the copies of weights rounded to bf16, so one context around all groups of an
    iteration rounds each weight once.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
