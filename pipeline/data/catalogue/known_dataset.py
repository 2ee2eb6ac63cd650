"""What the catalogue says of each dataset; its modules fill it in, and `table` lists them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.datasets import Dataset, DatasetSpec
from pipeline.data.progress import Progress


@dataclass(frozen=True, kw_only=True)
class KnownDataset:
    """A row of the catalogue: what a dataset is, how large, and how its files come here.

    Exactly one way leads to its images: they are `embedded`, or `read` takes what `find` found at a
    path, or, where it has none of these, they are photographs, which a Ray cluster reads.
    """

    spec: DatasetSpec
    train_images: int
    test_images: int
    class_names: tuple[str, ...] = ()
    """What its classes are called, by number, where its files need not say so."""
    embedded: Callable[[], Dataset] | None = None
    """The dataset, where a library that is installed anyway carries it."""
    find: Callable[[Path], list[Path]] | None = None
    """What `read` can read at a path, best first; nothing where the path holds something else."""
    read: Callable[[Path], Dataset] | None = None
    """The dataset from its files, checked; raises InputError."""
    download: Callable[[Path, Progress], Path] | None = None
    """Its official files in a folder, fetched if need be, as `read` takes them."""

    @property
    def name(self) -> str:
        """What commands call it."""
        return self.spec.name

    @property
    def photographs(self) -> bool:
        """Whether its images are photographs of any size, which are kept as they are encoded."""
        return self.spec.side == 0
