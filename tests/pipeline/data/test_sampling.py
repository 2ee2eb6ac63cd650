"""Order and draws are functions of integers: golden values, exact epochs, and any split of the
work.
"""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.sampling import batch_at, bounded, permutation, random_words_of, raw_words
from tests.conftest import examples


def test_golden_words() -> None:
    assert raw_words(0, 0, "order", 2).tolist() == [
        [615374635750745907, 12469478121706349775, 4963474064716879937, 6867822212793236399],
        [17835307334580645080, 3378942746647661589, 1693554607888105243, 13642406741150521656],
    ]
    assert raw_words(7, 3, "augmentation", 1).tolist() == [
        [5683752733477740539, 14118103966592500317, 11210916896104826313, 7070769372069614232]
    ]


def test_golden_permutations() -> None:
    assert permutation(0, 0, 10).tolist() == [0, 9, 2, 7, 4, 8, 6, 5, 3, 1]
    assert permutation(3, 1, 7).tolist() == [6, 4, 2, 5, 1, 0, 3]


def test_below_by_hand() -> None:
    words = np.array([0, 2**64 - 1, 2**63, 2**32 - 1, 2**32 * 1234567890], dtype=np.uint64)
    assert bounded(words, 9).tolist() == [0, 8, 4, 0, 1234567890 * 9 >> 32]


def test_a_samples_words_do_not_depend_on_how_many_samples_there_are() -> None:
    assert np.array_equal(
        raw_words(5, 2, "augmentation", 1000)[:10], raw_words(5, 2, "augmentation", 10)
    )


@pytest.mark.parametrize("seed", [0, 7, 2**63 + 5])
def test_a_samples_words_can_be_made_without_those_before_it(seed: int) -> None:
    ids, epochs = np.array([0, 3, 999, 17, 17]), np.array([2, 0, 2, 2, 5])
    alone = random_words_of(seed, epochs, "colour", ids)
    assert np.array_equal(
        alone, [raw_words(seed, e, "colour", 1000)[i] for i, e in zip(ids, epochs, strict=True)]
    )
    far = np.random.Philox(
        key=np.array([seed, 2 << 48], dtype=np.uint64), counter=1_281_166
    ).random_raw(4)
    assert np.array_equal(
        random_words_of(seed, np.array([0]), "augmentation", np.array([1_281_166]))[0], far
    )


def test_seed_epoch_and_purpose_each_give_other_words() -> None:
    streams = [
        raw_words(0, 0, "order", 8),
        raw_words(1, 0, "order", 8),
        raw_words(0, 1, "order", 8),
    ]
    streams.append(raw_words(0, 0, "augmentation", 8))
    assert len({stream.tobytes() for stream in streams}) == 4


@pytest.mark.parametrize("count", [1, 2, 103, 1437])
def test_each_epoch_is_a_permutation(count: int) -> None:
    for epoch in range(3):
        assert sorted(permutation(1, epoch, count)) == list(range(count))


def test_a_batch_runs_on_over_the_border_of_an_epoch() -> None:
    order = np.concatenate([permutation(4, 0, 10), permutation(4, 1, 10)])
    taken = [batch_at(4, 10, iteration, 4, 0, 4).ids for iteration in range(5)]
    assert np.array_equal(np.concatenate(taken), order)


def test_a_set_smaller_than_a_batch_is_seen_several_times_in_it() -> None:
    batch = batch_at(0, 3, 0, 8, 0, 8)
    assert np.array_equal(
        batch.ids, np.concatenate([permutation(0, epoch, 3) for epoch in range(3)])[:8]
    )
    first, again = batch.random_words[batch.ids == 0][:2]
    assert first.tolist() != again.tolist()


def test_64k_iterations_see_each_image_163_or_164_times() -> None:
    """64,000 x 128 / 50,000 = 163.84 epochs; here 64 x 128 / 50, the same ratio with a thousandth
    of the images.
    """
    seen = Counter(
        int(i) for iteration in range(64) for i in batch_at(0, 50, iteration, 128, 0, 128).ids
    )
    assert 64_000 * 128 / 50_000 == 64 * 128 / 50 == 163.84
    assert Counter(seen.values()) == {164: 42, 163: 8}


@settings(deadline=None, max_examples=examples(60))
@given(
    st.integers(0, 2**32),
    st.integers(1, 60),
    st.integers(0, 40),
    st.integers(1, 5),
    st.sampled_from([1, 2, 4, 8]),
)
def test_workers_parts_together_are_the_single_workers_batch(
    seed: int, count: int, iteration: int, share: int, workers: int
) -> None:
    size = share * workers
    whole = batch_at(seed, count, iteration, size, 0, size)
    parts = [batch_at(seed, count, iteration, size, rank * share, share) for rank in range(workers)]
    assert np.array_equal(np.concatenate([part.ids for part in parts]), whole.ids)
    assert np.array_equal(np.concatenate([part.random_words for part in parts]), whole.random_words)


@settings(deadline=None, max_examples=examples(60))
@given(st.integers(0, 2**63), st.integers(1, 50), st.integers(1, 70), st.integers(1, 12))
def test_iterations_are_slices_of_the_endless_concatenation(
    seed: int, count: int, size: int, iterations: int
) -> None:
    epochs = -(-size * iterations // count)
    order = np.concatenate([permutation(seed, epoch, count) for epoch in range(epochs)])
    for i in range(iterations):
        assert np.array_equal(
            batch_at(seed, count, i, size, 0, size).ids, order[i * size : (i + 1) * size]
        )


def test_crop_offsets_are_uniform() -> None:
    for word in range(3):
        draws = bounded(raw_words(0, 0, "augmentation", 9_000)[:, word], 9)
        counts = np.bincount(draws, minlength=9)
        assert len(counts) == 9
        assert (
            (counts - 1000) ** 2 / 1000
        ).sum() < 26.1  # chi-square, 8 degrees of freedom, p = 0.001
