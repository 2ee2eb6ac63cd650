"""The recipe ledger: CIFAR details in which reproductions differ from the paper, a switch each.

Every switch is a change of one field of the paper's row (`grid ledger` trains them one at a time),
with the paper's reading and where the other one is found. Torch-free data; what each is worth is
measured, never written here.
"""

from dataclasses import dataclass

LEDGER = "ledger"


@dataclass(frozen=True)
class Switch:
    """One detail: the `--set` that changes it, what the paper says, and who reads it otherwise.

    `setting` is meant for `experiment` under the paper's schedule on CIFAR-10's 50,000 images.

    A number of iterations or of held-out images is taken in proportion where the schedule or the
    dataset is another.
    """

    experiment: str
    setting: str
    # Texts of the table: what the paper says, and who reads it otherwise.
    papers_reading: str
    other_reading: str


# The order is that of the ledger's table: the network, the schedule, the data, the optimiser.
LEDGER_SWITCHES: tuple[Switch, ...] = (
    Switch(
        "resnet20",
        "shortcut=B",
        "option A everywhere (Sec. 4.2)",
        "projections: bearpaw and other reimplementations",
    ),
    Switch(
        "resnet20",
        "iterations=78200",
        "64,000 iterations, drops at 1/2 and 3/4 (Sec. 4.2)",
        "200 epochs: akamaster",
    ),
    Switch(
        "resnet20",
        "holdout=5000",
        "all 50,000 training images",
        "the paper's own 45,000/5,000 split (Sec. 4.2)",
    ),
    Switch(
        "resnet20",
        "normalisation=channel_mean_std",
        "the per-pixel mean is subtracted (Sec. 4.2)",
        "mean and deviation of each channel: torchvision, akamaster",
    ),
    Switch(
        "resnet20",
        "weight_decay_scope=all",
        "decay of convolution and classifier weights",
        "decay of everything: torchvision, fb.resnet.torch, akamaster",
    ),
    Switch(
        "resnet20",
        "sgd=torch",
        "Caffe's SGD, the rate inside the buffer",
        "torch's SGD: every PyTorch peer",
    ),
    Switch(
        "resnet20",
        "bn_group=128",
        "batch norm over 64 images, one of two GPUs (Sec. 4.2)",
        "over whatever one GPU holds: everywhere",
    ),
    Switch(
        "resnet20",
        "initialisation=he_fan_out",
        "He normal from fan-in (Sec. 3.4, reference [13])",
        "from fan-out: fb.resnet.torch, torchvision",
    ),
    Switch(
        "resnet110",
        "warmup_lr=none",
        "lr 0.01 until the training error is below 80 % (Sec. 4.2)",
        "no warm-up: fb.resnet.torch",
    ),
)
