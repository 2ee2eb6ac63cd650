"""CIFAR-10, the dataset of the paper's Sec. 4.2; its official archives alone are comparable."""

from pipeline.data.catalogue.cifar_archives import CifarArchives
from pipeline.data.catalogue.known_dataset import KnownDataset
from pipeline.data.datasets import DatasetSpec

ARCHIVES = CifarArchives(
    spec=DatasetSpec(
        name="cifar10", side=32, classes=10, pad=4, flip=True, comparable=True,
        arrives="official archive: --from cifar-10-binary.tar.gz (or -python), or --download",
    ),
    title="CIFAR-10",
    binary="cifar-10-binary.tar.gz",
    python="cifar-10-python.tar.gz",
    checksums={
        "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
        "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    },
    binary_folder="cifar-10-batches-bin",
    python_folder="cifar-10-batches-py",
    file_checksums={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test="test_batch",
    label_bytes=1,
    label_key=b"labels",
)  # fmt: skip
CIFAR10 = KnownDataset(
    spec=ARCHIVES.spec, train_images=50_000, test_images=10_000,
    class_names=(
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    ),
    find=ARCHIVES.find, read=ARCHIVES.read, download=ARCHIVES.download,
)  # fmt: skip
