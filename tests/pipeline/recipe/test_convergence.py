"""When a run counts as converging (footnote 5): how often chance alone passes, and what does."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.data.catalogue.table import DATASETS
from pipeline.recipe.experiments import EXPERIMENTS, Experiment
from pipeline.recipe.metrics import WINDOW
from pipeline.recipe.schedule import LOOKS_IN_A_ROW, beats_guessing, converging_from

RESNET110 = EXPERIMENTS["resnet110-nowarmup"]
EPOCH = 50_000 / 128


def highest_passing(experiment: Experiment, classes: int) -> int:
    """The most wrong predictions of one look that beat guessing."""
    images = WINDOW * experiment.global_batch_size
    return max(wrong for wrong in range(images) if beats_guessing(experiment, wrong, classes))


def flagged(wrong_counts: NDArray[np.int64], highest: int, in_a_row: int) -> NDArray[np.bool_]:
    """Which of the runs [runs, looks] have that many looks in a row at or below `highest`."""
    passed = wrong_counts <= highest
    looks = passed.shape[1] - in_a_row + 1
    together = np.logical_and.reduce([passed[:, i : i + looks] for i in range(in_a_row)])
    return together.any(1)


# Every number of classes of a dataset here with every batch of a row, over the longest schedule of
# such rows; and the batches that a user may set: one batch-norm group, and one of tests.
@pytest.mark.parametrize(
    ("name", "batch", "classes", "runs"),
    [
        ("resnet110", 128, 10, 2_000),
        ("resnet110", 128, 100, 2_000),
        ("resnet110", 64, 10, 2_000),
        ("resnet110", 16, 10, 2_000),
        ("resnet110", 16, 100, 2_000),
        ("plain34-3x", 256, 1_000, 400),
    ],
)
def test_fewer_than_one_guessing_network_in_a_hundred_is_flagged_over_its_whole_run(
    name: str, batch: int, classes: int, runs: int
) -> None:
    experiment = replace(EXPERIMENTS[name], global_batch_size=batch, bn_group=min(batch, 32))
    looks, images = experiment.iterations // WINDOW, WINDOW * batch
    guesses = np.random.default_rng(0).binomial(images, 1 - 1 / classes, (runs, looks))
    highest = highest_passing(experiment, classes)
    # None of 400 runs: were one in a hundred flagged, that would happen once in fifty times.
    assert not flagged(guesses, highest, LOOKS_IN_A_ROW).any()
    # One look alone would flag most of them: it is the row of looks that decides.
    assert flagged(guesses, highest, 1).mean() > 0.9


def test_all_datasets_and_rows_are_among_the_simulated() -> None:
    assert {known.spec.classes for known in DATASETS.values()} == {10, 100, 1_000}
    assert {row.global_batch_size for row in EXPERIMENTS.values()} == {128, 256}
    assert max(row.iterations for row in EXPERIMENTS.values()) == 1_800_000


def test_the_first_version_of_the_rule_fired_by_chance() -> None:
    # One look a point below 90 %: more than a third of runs within an epoch, nine of ten in five.
    guesses = np.random.default_rng(0).binomial(3_200, 0.9, (20_000, 78))
    by_epoch = [flagged(guesses[:, : int(n * EPOCH / WINDOW)], 2_847, 1).mean() for n in (1, 5)]
    assert by_epoch == pytest.approx([0.36, 0.90], abs=0.02)


def test_labels_that_are_not_balanced_do_not_flag_a_constant_answer() -> None:
    # Digits has 183 images of its most frequent class among 1,797: an error of 89.8 %.
    highest = highest_passing(RESNET110, 10)
    guesses = np.random.default_rng(0).binomial(3_200, 1 - 183 / 1_797, (2_000, 2_560))
    assert not flagged(guesses, highest, LOOKS_IN_A_ROW).any()


def test_of_3200_images_fewer_than_88_41_percent_may_be_wrong() -> None:
    # 90 % less three times sqrt(0.9 * 0.1 / 3200) = 0.530 points: 88.409 %, 2829.09 images.
    assert beats_guessing(RESNET110, 2_829, 10) and not beats_guessing(RESNET110, 2_830, 10)


def test_four_looks_in_a_row_count_from_the_first_of_them() -> None:
    good, bad = 2_700, 2_880
    assert converging_from(RESNET110, [], 10) is None
    assert converging_from(RESNET110, [good] * 3, 10) is None
    assert converging_from(RESNET110, [good] * 4, 10) == 25
    assert converging_from(RESNET110, [bad, good, good, good, bad, *[good] * 5], 10) == 150
    # Worse than guessing is no convergence, however far from it.
    assert converging_from(RESNET110, [3_200] * 10, 10) is None


def test_a_network_that_learns_is_seen_when_it_begins_to() -> None:
    # Two epochs and a half at 90 %, then three points fewer every 25 iterations.
    looks = np.arange(80)
    error = np.clip(0.9 - 0.03 * (looks - 39), 0.1, 0.9)
    runs = np.random.default_rng(0).binomial(3_200, error, (500, len(looks)))
    found = [converging_from(RESNET110, counts, 10) for counts in runs.tolist()]
    # Look number 41 is the first with an error below 88.4 %, after 1,025 iterations.
    assert all(start is not None and 1_000 <= start <= 1_050 for start in found)
    assert min(start for start in found if start) > 2 * EPOCH
