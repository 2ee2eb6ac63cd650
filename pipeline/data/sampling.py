"""Order and random draws of training images: stateless integers, the same on any machine.

All randomness is raw 64-bit words of numpy's counter-based Philox generator, mapped by integer
arithmetic. Iteration i takes positions [iB, (i+1)B) of the endless concatenation of the epochs'
permutations, so nothing is dropped, padded or replayed, and a position in training is one integer.
It touches no pixel. Torch-free.

The tests hold golden values of all of it: another type, mapping of words or order of operations
changes what every run computes.
"""

from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# Parts of the generator's key: streams of different purposes share no word.
PURPOSES = {"order": 1, "augmentation": 2, "colour": 3}
Purpose = Literal["order", "augmentation", "colour"]

FEW = 200_000
"""Up to so many samples, an epoch's words are made at once and kept; else each batch's alone."""
CHUNK = 1 << 16
"""Samples whose words are made at a time where all are needed."""


def raw_words(seed: int, epoch: int, purpose: Purpose, count: int) -> NDArray[np.uint64]:
    """Philox words [count, 4]: a row is a sample's own, whatever is drawn for the others."""
    # A block of Philox is four words and has a number, its counter: sample i has the block i + 1,
    # so nobody has to draw for the samples before it.
    return _stream(seed, epoch, purpose).random_raw(4 * count).reshape(count, 4)


def _stream(seed: int, epoch: int, purpose: Purpose) -> np.random.Philox:
    # Seed, purpose and epoch are the key and not the counter, so no two epochs share a block.
    return np.random.Philox(key=np.array([seed, PURPOSES[purpose] << 48 | epoch], dtype=np.uint64))


def random_words_of(
    seed: int, epochs: NDArray[np.int64], purpose: Purpose, ids: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """The rows [n, 4] that `raw_words` has for these samples, without making all the others.

    This is Philox 4x64-10 itself (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2,
    3"), as numpy has it only for blocks that follow each other: a batch of ImageNet would pay for
    1.3 million samples.
    """
    # Numpy counts up before it makes a block, so sample 0 has counter 1.
    zeros = np.zeros(len(ids), dtype=np.uint64)
    counter = [ids.astype(np.uint64) + np.uint64(1), zeros, zeros, zeros]
    keys = [zeros + np.uint64(seed), epochs.astype(np.uint64) | np.uint64(PURPOSES[purpose] << 48)]
    # Ten rounds; sums and products wrap at 64 bits, as they should.
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
    """The newest orders that were asked for: two of a large dataset, nine of a small one."""

    def __init__(self) -> None:
        self.kept: dict[tuple[int, int, int], NDArray[np.uint32]] = {}
        self.lock = Lock()

    def of(self, seed: int, epoch: int, count: int) -> NDArray[np.uint32]:
        # Held while an order is made: threads that load ahead ask for the same one, and two orders
        # of ImageNet being made at once cost memory for nothing.
        with self.lock:
            key = (seed, epoch, count)
            if key not in self.kept:
                keep = 1 if count > FEW else 8
                # The older ones go before the next is made, for its memory.
                self.kept = {known: self.kept[known] for known in list(self.kept)[-keep:]}
                words = np.empty(count, dtype=np.uint64)
                stream = _stream(seed, epoch, "order")
                for start in range(0, count, CHUNK):
                    size = min(CHUNK, count - start)
                    # The first word of each sample's block. In chunks, as three of four words are
                    # thrown away.
                    words[start : start + size] = stream.random_raw(4 * size)[::4]
                # Stable: equal words, however rare, have one order on every machine.
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
    """Words mapped to 0..bound-1 by their high 32 bits: (high * bound) >> 32."""
    # No floating point, which machines round differently, and no rejection, which would use up a
    # number of words that nobody can foresee. The bias is below bound / 2^32.
    high = words >> np.uint64(32)
    return ((high * np.uint64(bound)) >> np.uint64(32)).astype(np.int64)


@dataclass(frozen=True)
class Batch:
    """Which samples [n] a worker trains on in an iteration."""

    ids: NDArray[np.int64]
    random_words: NDArray[np.uint64]
    """Each sample's own [n, 4], for its augmentation."""
    epochs: NDArray[np.int64]
    """The epoch that each sample is taken in: a batch may reach into the next one."""


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
        # The position alone says which epoch this is and how far: a restart replays nothing.
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
