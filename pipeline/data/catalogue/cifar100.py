"""CIFAR-100: CIFAR-10's format, with 100 fine labels. Not in the paper, so never comparable."""

from pipeline.data.catalogue.cifar_archives import CifarArchives
from pipeline.data.catalogue.known_dataset import KnownDataset
from pipeline.data.datasets import DatasetSpec

ARCHIVES = CifarArchives(
    spec=DatasetSpec(
        name="cifar100", side=32, classes=100, pad=4, flip=True,
        arrives="official archive: --from cifar-100-binary.tar.gz (or -python), or --download",
    ),
    title="CIFAR-100",
    binary="cifar-100-binary.tar.gz",
    python="cifar-100-python.tar.gz",
    checksums={
        "cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8",
        "cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85",
    },
    binary_folder="cifar-100-binary",
    python_folder="cifar-100-python",
    file_checksums={
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    },
    train=("train",),
    test="test",
    # A coarse label, of 20, comes before the fine one and is left out.
    label_bytes=2,
    label_key=b"fine_labels",
)  # fmt: skip
FINE_NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain
plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CIFAR100 = KnownDataset(
    spec=ARCHIVES.spec, train_images=50_000, test_images=10_000,
    class_names=tuple(FINE_NAMES.split()),
    find=ARCHIVES.find, read=ARCHIVES.read, download=ARCHIVES.download,
)  # fmt: skip
