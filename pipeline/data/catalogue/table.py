"""The table of the datasets that are known by name: to add one is to add a line here.

What commands complete, list, describe, dry-run and prepare is derived from this table. The order is
the one in which `data list` shows them, and in which a path is tried where no name was given.
"""

from pipeline.data.catalogue.cifar10 import CIFAR10
from pipeline.data.catalogue.cifar100 import CIFAR100
from pipeline.data.catalogue.digits import DIGITS
from pipeline.data.catalogue.fashion_mnist import FASHION_MNIST
from pipeline.data.catalogue.imagenet import IMAGENET
from pipeline.data.catalogue.known_dataset import KnownDataset

DATASETS: dict[str, KnownDataset] = {
    known.name: known
    for known in (
        DIGITS,
        CIFAR10,
        CIFAR100,
        FASHION_MNIST,
        IMAGENET,
    )
}
