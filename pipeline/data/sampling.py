"""Order and draws of training images, both stateless: integers in, integers out, the same on any
machine (torch-free).

All randomness is raw 64-bit words of numpy's counter-based Philox generator, mapped by integer
arithmetic. Iteration i takes positions [iB, (i+1)B) of the endless concatenation of the epochs'
permutations, so nothing is dropped, padded or replayed, and a position in training is one integer.
It touches no pixel.
"""

from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Literal

import numpy as np
from numpy.typing import NDArray

PURPOSES = {"order": 1, "augmentation": 2, "colour": 3}
Purpose = Literal["order", "augmentation", "colour"]

FEW = 200_000
"""Up to so many samples, an epoch's words are made at once and kept; of more, each batch's alone."""
CHUNK = 1 << 16
"""Samples whose words are made at a time where all are needed."""


def raw_words(seed: int, epoch: int, purpose: Purpose, count: int) -> NDArray[np.uint64]:
    """Philox words [count, 4]: key (seed, purpose and epoch), one counter value a row, so a row is
    its sample's own.
    """
    return _stream(seed, epoch, purpose).random_raw(4 * count).reshape(count, 4)


def _stream(seed: int, epoch: int, purpose: Purpose) -> np.random.Philox:
    return np.random.Philox(key=np.array([seed, PURPOSES[purpose] << 48 | epoch], dtype=np.uint64))


def random_words_of(
    seed: int, epochs: NDArray[np.int64], purpose: Purpose, ids: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """The rows [n, 4] that `raw_words` has for single samples, without making those before them:
    Philox 4x64-10 itself.
    """
    # Numpy counts up before it makes a block. Salmon et al. (2011), "Parallel random numbers: as
    # easy as 1, 2, 3".
    zeros = np.zeros(len(ids), dtype=np.uint64)
    counter = [ids.astype(np.uint64) + np.uint64(1), zeros, zeros, zeros]
    keys = [zeros + np.uint64(seed), epochs.astype(np.uint64) | np.uint64(PURPOSES[purpose] << 48)]
    for _ in range(10):
        (high, low), (high2, low2) = (
            _product(word, m) for word, m in zip(counter[::2], MULTIPLIERS, strict=True)
        )
        counter = [high2 ^ counter[1] ^ keys[0], low2, high ^ counter[3] ^ keys[1], low]
        keys = [key + bump for key, bump in zip(keys, BUMPS, strict=True)]
    return np.stack(counter, axis=1)


MULTIPLIERS = (np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157))
BUMPS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B))


def _product(
    words: NDArray[np.uint64], by: np.uint64
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """High and low 64 bits of products of 64-bit words, from their halves."""
    half, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    high, low = words >> half, words & mask
    by_high, by_low = by >> half, by & mask
    middle = high * by_low + (low * by_low >> half)
    carry = (middle & mask) + low * by_high
    return high * by_high + (middle >> half) + (carry >> half), words * by


class _Orders:
    """The orders of the two newest epochs asked for; an older one is let go before the next is
    made, for its memory.
    """

    def __init__(self) -> None:
        self.kept: dict[tuple[int, int, int], NDArray[np.uint32]] = {}
        self.lock = Lock()

    def of(self, seed: int, epoch: int, count: int) -> NDArray[np.uint32]:
        with self.lock:
            key = (seed, epoch, count)
            if key not in self.kept:
                keep = 1 if count > FEW else 8
                self.kept = {known: self.kept[known] for known in list(self.kept)[-keep:]}
                words = np.empty(count, dtype=np.uint64)
                stream = _stream(seed, epoch, "order")
                for start in range(0, count, CHUNK):
                    size = min(CHUNK, count - start)
                    words[start : start + size] = stream.random_raw(4 * size)[::4]
                self.kept[key] = np.argsort(words, kind="stable").astype(np.uint32)
            return self.kept[key]


_orders = _Orders()


def permutation(seed: int, epoch: int, count: int) -> NDArray[np.uint32]:
    """The order of an epoch's `count` samples [count]: a stable argsort of one word each."""
    return _orders.of(seed, epoch, count)


@lru_cache(maxsize=4)
def epoch_words(seed: int, epoch: int, count: int) -> NDArray[np.uint64]:
    """The augmentation's words [count, 4] of all samples in an epoch, by their ids."""
    return raw_words(seed, epoch, "augmentation", count)


def bounded(words: NDArray[np.uint64], bound: int) -> NDArray[np.int64]:
    """Words mapped to 0..bound-1 by their high 32 bits: (high * bound) >> 32, no floating point, no
    rejection.
    """
    high = words >> np.uint64(32)
    return ((high * np.uint64(bound)) >> np.uint64(32)).astype(np.int64)


@dataclass(frozen=True)
class Batch:
    """Which samples a worker trains on in an iteration: `ids` [n] in epochs `epochs` [n], and
    `words` [n, 4], each sample's own random words.
    """

    ids: NDArray[np.int64]
    random_words: NDArray[np.uint64]
    epochs: NDArray[np.int64]


def batch_at(
    seed: int, count: int, iteration: int, global_batch_size: int, first: int, size: int
) -> Batch:
    """Images [first, first + size) of iteration `iteration` (from 0) over `count` training samples.

    A batch runs on into the next epoch where one ends inside it; tiny sets may need several epochs
    for one batch.
    """
    start = iteration * global_batch_size + first
    ids, words, epochs = [], [], []
    position, end = start, start + size
    while position < end:
        epoch, offset = divmod(position, count)
        taken = permutation(seed, epoch, count)[offset : offset + end - position].astype(np.int64)
        ids.append(taken)
        epochs.append(np.full(len(taken), epoch))
        if count <= FEW:
            words.append(epoch_words(seed, epoch, count)[taken])
        else:
            words.append(random_words_of(seed, epochs[-1], "augmentation", taken))
        position += len(taken)
    return Batch(np.concatenate(ids), np.concatenate(words), np.concatenate(epochs))
