"""ImageNet, as its classification task of 2012 has it (ILSVRC-2012): photographs of any size.

They are many and large, so a Ray cluster reads them (`jobs.execution.ingest`), part by part, from
what `pipeline.data.photo_sources` lists. They are therefore not read here.
"""

from pipeline.data.catalogue.known_dataset import KnownDataset
from pipeline.data.datasets import DatasetSpec

IMAGENET = KnownDataset(
    spec=DatasetSpec(
        name="imagenet", side=0, classes=1000, pad=0, flip=True,
        arrives=(
            "ILSVRC-2012's three archives, train/ and val/ with a folder per class, or parquet "
            "files: --from their folder"
        ),
    ),
    train_images=1_281_167,
    test_images=50_000,
)  # fmt: skip
