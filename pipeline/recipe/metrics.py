"""The names, units and meaning of everything measured (torch-free): whoever writes or reads a
number imports these.

Errors are percent of images whose top-1 prediction is wrong, as in the paper; `iteration` counts
finished SGD steps.
"""

from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "val", "test"]

TRAIN_ERR = "train/top1_err"
TRAIN_LOSS = "train/loss"
TRAIN_CLEAN_ERR = "train_clean/top1_err"
TRAIN_CLEAN_LOSS = "train_clean/loss"
VAL_ERR = "val/top1_err"
VAL_LOSS = "val/loss"
TEST_ERR = "test/top1_err"
TEST_LOSS = "test/loss"
LR = "lr"
IMAGES_PER_SECOND = "speed/images_per_second"
DATA_WAIT = "speed/data_wait"

SPEEDS = (IMAGES_PER_SECOND, DATA_WAIT)
"""What depends on the machine and the moment, and so is no part of what two runs can be compared
by.
"""

PROTOCOLS = {
    "center_crop": "the centre of each photograph",
    "ten_crop": "mean softmax scores of ten crops",
    "multi_scale": "mean softmax scores of the fully convolutional network at several scales",
}
"""What finished ImageNet networks are tested by (`pipeline.training.measuring.protocols`), on the
test split, in words.
"""


def protocol_err(protocol: str, first: int) -> str:
    """The metric of a protocol's top-1 (`first` 1) or top-5 error."""
    return f"test_{protocol}/top{first}_err"


RESPONSE_STD = "response_std"
"""Measured per layer, not per run: standard deviation of a 3x3 layer's output after its norm
(Figure 7).
"""

FORWARD_VARIANCE = "forward_variance"
"""Per layer: variance of its response to a training mini-batch, before the SGD step
(`pipeline.training.measuring.signals`).
"""

GRADIENT_NORM = "gradient_norm"
"""Per layer: Euclidean norm of the loss's gradient by its weights on the same mini-batch
(`pipeline.training.measuring.signals`).
"""

WINDOW = 25
"""Iterations behind `train/top1_err`: the paper's training curves scatter like 2 to 4 thousand
images a point.
"""


@dataclass(frozen=True)
class Metric:
    """What a metric is: `split` None means that it is about the run, not about images."""

    unit: str
    split: Split | None
    meaning: str


METRICS: dict[str, Metric] = {
    TRAIN_ERR: Metric(
        "%",
        "train",
        f"running error over the last {WINDOW} augmented mini-batches (the paper's curves)",
    ),
    TRAIN_LOSS: Metric(
        "nats", "train", f"mean cross-entropy over the last {WINDOW} augmented mini-batches"
    ),
    TRAIN_CLEAN_ERR: Metric(
        "%", "train", "error on the whole training set, not augmented, with running statistics"
    ),
    TRAIN_CLEAN_LOSS: Metric(
        "nats", "train", "cross-entropy on the whole training set, not augmented"
    ),
    VAL_ERR: Metric("%", "val", "error on the held-out training images, single original view"),
    VAL_LOSS: Metric("nats", "val", "cross-entropy on the held-out training images"),
    TEST_ERR: Metric("%", "test", "error on the test set, single original view"),
    TEST_LOSS: Metric("nats", "test", "cross-entropy on the test set"),
    LR: Metric("1", None, "learning rate of the last iteration"),
    IMAGES_PER_SECOND: Metric(
        "images/s", None, "training rate since the last point, evaluation and saving left out"
    ),
    DATA_WAIT: Metric(
        "%",
        None,
        "of the training time since the last point, spent waiting for images to be decoded",
    ),
    **{
        protocol_err(protocol, first): Metric(
            "%", "test", f"top-{first} error after training: {words}"
        )
        for protocol, words in PROTOCOLS.items()
        for first in (1, 5)
    },
}


@dataclass(frozen=True)
class LayerValues:
    """One quantity measured in several layers after `iteration` finished steps: `values` in the
    order of `layers`.
    """

    iteration: int
    quantity: str
    layers: list[str]
    values: list[float]


@dataclass(frozen=True)
class Point:
    """One measurement; `time_ms` (Unix, milliseconds) is fixed when it is first recorded and never
    changes.
    """

    iteration: int
    metric: str
    value: float
    time_ms: int
