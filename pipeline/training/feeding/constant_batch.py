"""One batch in the place of a data plane: what an iteration takes by itself is timed with it."""

from torch import Tensor


class ConstantBatch:
    """The same views [n, 3, side, side] and labels [n] in every iteration."""

    def __init__(self, views: Tensor, labels: Tensor) -> None:
        self._batch = (views, labels)

    def prepare(self, iteration: int) -> None:
        """Nothing changes from one iteration to the next."""

    def assemble(self, iteration: Tensor) -> tuple[Tensor, Tensor]:
        """The batch."""
        return self._batch
