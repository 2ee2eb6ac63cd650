"""The names, units and meaning of everything measured: who writes or reads one imports these.

Torch-free. Errors are percent of images whose top-1 prediction is wrong, as in the paper;
`iteration` counts finished SGD steps. When each is measured is
`pipeline.recipe.schedule.expected_points`, by which `verify` finds points that are missing.
"""

from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "val", "test"]

# `train` is measured on the way, on augmented images and while weights change; `train_clean`
# afterwards, on the whole set as it is. Claims prefer the clean one.
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
"""What depends on the machine and the moment, and is no part of what runs are compared by."""

PROTOCOLS = {
    "center_crop": "the centre of each photograph",
    "ten_crop": "mean softmax scores of ten crops",
    "multi_scale": "mean softmax scores of the fully convolutional network at several scales",
}
"""What finished ImageNet networks are tested by, on the test split, in words.

`pipeline.training.measuring.protocols` carries it out.
"""


def protocol_err(protocol: str, k: int) -> str:
    """The metric of a protocol's top-k error, where k is 1 or 5."""
    return f"test_{protocol}/top{k}_err"


RESPONSE_STD = "response_std"
"""Per layer: standard deviation of a 3x3 layer's output after its norm (Figure 7)."""

FORWARD_VARIANCE = "forward_variance"
"""Per layer: variance of its response to a training mini-batch, before the SGD step.

`pipeline.training.measuring.signals` takes it.
"""

CONVOLUTION_VARIANCE = "convolution_variance"
"""Per layer: variance of its convolution's output on the same mini-batch, before batch norm.

Over images and places, and the mean of that over channels. After batch norm the variance is what
its weights say, whatever came in; before it a signal can vanish. Older runs have none recorded.

`pipeline.training.measuring.signals` takes it.
"""

GRADIENT_NORM = "gradient_norm"
"""Per layer: Euclidean norm of the loss's gradient by its weights on the same mini-batch.

`pipeline.training.measuring.signals` takes it.
"""

WINDOW = 25
"""Iterations behind `train/top1_err`: the paper's curves scatter like 2 to 4 thousand images."""


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
        protocol_err(protocol, k): Metric("%", "test", f"top-{k} error after training: {words}")
        for protocol, words in PROTOCOLS.items()
        for k in (1, 5)
    },
}


@dataclass(frozen=True)
class LayerValues:
    """One quantity measured in layers after `iteration` steps; `values` are in their order."""

    iteration: int
    quantity: str
    layers: list[str]
    values: list[float]


@dataclass(frozen=True)
class Point:
    """One measurement; its `time_ms` (Unix) is fixed when it is first recorded.

    So a point that is sent again is the same point, and no second one.
    """

    iteration: int
    metric: str
    value: float
    time_ms: int
