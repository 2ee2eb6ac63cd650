"""Order and draws of training images, both stateless: integers in, integers out, the same on any machine (torch-free).

All randomness is raw 64-bit words of numpy's counter-based Philox generator, mapped by integer arithmetic. Iteration i
takes positions [iB, (i+1)B) of the endless concatenation of the epochs' permutations, so nothing is dropped, padded or
replayed, and a position in training is one integer. It touches no pixel.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

PURPOSES = {"order": 1, "augmentation": 2}
Purpose = Literal["order", "augmentation"]


def raw_words(seed: int, epoch: int, purpose: Purpose, count: int) -> NDArray[np.uint64]:
    """Philox words [count, 4]: key (seed, purpose and epoch), one counter value a row, so a row is its sample's own."""
    key = np.array([seed, PURPOSES[purpose] << 48 | epoch], dtype=np.uint64)
    return np.random.Philox(key=key).random_raw(4 * count).reshape(count, 4)


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order of an epoch's `count` samples [count]: a stable argsort of one word each."""
    return np.argsort(raw_words(seed, epoch, "order", count)[:, 0], kind="stable")


@lru_cache(maxsize=4)
def _epoch_words(seed: int, epoch: int, count: int) -> NDArray[np.uint64]:
    return raw_words(seed, epoch, "augmentation", count)


def below(words: NDArray[np.uint64], bound: int) -> NDArray[np.int64]:
    """Words mapped to 0..bound-1 by their high 32 bits: (high * bound) >> 32, no floating point, no rejection."""
    high = words >> np.uint64(32)
    return ((high * np.uint64(bound)) >> np.uint64(32)).astype(np.int64)


@dataclass(frozen=True)
class Batch:
    """Which samples a worker trains on in an iteration: `ids` [n], and `words` [n, 4], each sample's own random words."""

    ids: NDArray[np.int64]
    words: NDArray[np.uint64]


def batch_at(seed: int, count: int, iteration: int, global_batch_size: int, first: int, size: int) -> Batch:
    """Images [first, first + size) of iteration `iteration` (from 0) over `count` training samples.

    A batch runs on into the next epoch where one ends inside it; tiny sets may need several epochs for one batch.
    """
    start = iteration * global_batch_size + first
    ids, words = [], []
    position, end = start, start + size
    while position < end:
        epoch, offset = divmod(position, count)
        taken = permutation(seed, epoch, count)[offset : offset + end - position]
        ids.append(taken)
        words.append(_epoch_words(seed, epoch, count)[taken])
        position += len(taken)
    return Batch(np.concatenate(ids), np.concatenate(words))
