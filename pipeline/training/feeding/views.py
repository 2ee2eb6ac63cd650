"""Images as networks are tested on them: what every kind of dataset has to hand out."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from torch import Tensor


class Views(Protocol):
    """The images of a split, in batches of fixed borders."""

    batch_size: int

    def __len__(self) -> int: ...

    def batches(self, numbers: Iterable[int]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Number, views [n, 3, side, side] and labels [n] of the batches of these numbers."""
        ...
