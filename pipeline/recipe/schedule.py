"""When things happen in a run: its learning rates, its evaluations, and the end of warm-up.

Torch-free: pure functions of the row, the iteration and the iteration at which warm-up ended (Sec.
4.2 and 3.4).
"""

from pipeline.recipe import metrics
from pipeline.recipe.experiments import Experiment
from pipeline.recipe.metrics import WINDOW


def lr_at(experiment: Experiment, iteration: int, warmup_end: int | None) -> float:
    """Learning rate of SGD step number `iteration`, counted from 0.

    `warmup_end` is the first step after warm-up, None before it ended.

    The rate is divided by ten at each drop. Warm-up never raises it, and iterations keep counting
    through it.
    """
    drops = sum(iteration >= drop for drop in experiment.lr_drops)
    scheduled = experiment.lr / 10**drops
    if experiment.warmup_lr is None or (warmup_end is not None and iteration >= warmup_end):
        return scheduled
    # A warm-up that lasts beyond a drop must not train faster than the schedule.
    return min(experiment.warmup_lr, scheduled)


def warmup_ends(experiment: Experiment, iteration: int, wrong: int) -> bool:
    """Whether warm-up ends after `iteration` steps, of whose last 25 `wrong` images were wrong.

    Looked at every 25 iterations, in integers over all workers: 3,200 images of CIFAR (Sec. 4.2:
    "until the training error is below 80 % (about 400 iterations)").
    """
    if experiment.warmup_lr is None or iteration % WINDOW:
        return False
    # Multiplied out, in integers where the percentage is whole: every worker decides the same.
    return 100 * wrong < experiment.warmup_until_err * WINDOW * experiment.global_batch_size


CONVERGING_RULE = 2
"""The version of `converging_from`, recorded with what it found.

Version 1 took the first look one point below guessing: by chance alone that is one run in three
within an epoch. What it found says nothing.
"""

LOOKS_IN_A_ROW = 4
"""Consecutive looks that have to beat guessing before a run converges."""

KEPT_LOOKS = 400
"""Looks whose counts are recorded in any case: 10,000 iterations, 25 epochs of CIFAR-10."""


def beats_guessing(experiment: Experiment, wrong: int, classes: int) -> bool:
    """Whether the error of the last 25 iterations is three standard errors below guessing.

    For CIFAR-10's 3,200 images: below 88.4 %. Guessing is independent of the labels.
    """
    images = WINDOW * experiment.global_batch_size
    # All times `classes`, so that integers decide, on every worker alike. Of n guesses n / classes
    # are right on average, with a variance of n (classes - 1) / classes^2.
    ahead = (images - wrong) * classes - images
    return ahead > 0 and ahead**2 > 9 * images * (classes - 1)


def converging_from(experiment: Experiment, wrong_counts: list[int], classes: int) -> int | None:
    """The iteration of the first look from which on a run beat guessing, None if it never did.

    `wrong_counts` are the wrong predictions of each look from the first one on, one look every 25
    iterations. Four looks in a row have to beat guessing, and the first of them counts. Footnote 5:
    "starts converging (<90% error) after several epochs". A network that guesses passes in less
    than one run of a thousand, whatever the classes, the batch or the length of the run (simulated
    in a test).
    """
    in_a_row = 0
    for look, wrong in enumerate(wrong_counts, 1):
        in_a_row = in_a_row + 1 if beats_guessing(experiment, wrong, classes) else 0
        if in_a_row == LOOKS_IN_A_ROW:
            return WINDOW * (look - LOOKS_IN_A_ROW + 1)
    return None


def evaluates_after(experiment: Experiment, iteration: int) -> bool:
    """Whether the test error is taken after `iteration` steps: at `eval_every` and milestones."""
    return iteration % experiment.eval_every == 0 or milestone(experiment, iteration)


def milestone(experiment: Experiment, iteration: int) -> bool:
    """Whether `iteration` steps end a constant-rate phase: clean errors are taken there.

    Their checkpoints are kept as well.
    """
    return iteration in experiment.lr_drops or iteration == experiment.iterations


def expected_points(experiment: Experiment, iterations: int | None = None) -> set[tuple[str, int]]:
    """Every (metric, iteration) that a run has measured when finished, or at `iterations`."""
    # At every evaluation.
    often = [metrics.TRAIN_ERR, metrics.TRAIN_LOSS, metrics.LR, metrics.IMAGES_PER_SECOND]
    often += [metrics.TEST_ERR, metrics.TEST_LOSS]
    often += [metrics.VAL_ERR, metrics.VAL_LOSS] if experiment.holdout else []
    often += [metrics.DATA_WAIT] if experiment.family == "imagenet" else []
    # At milestones alone: the whole training set takes long.
    rare = [metrics.TRAIN_CLEAN_ERR, metrics.TRAIN_CLEAN_LOSS]
    # Of the finished network.
    once = [metrics.protocol_err(protocol, k) for protocol in experiment.protocols for k in (1, 5)]

    end = experiment.iterations if iterations is None else iterations
    points = {(name, end) for name in once} if end == experiment.iterations else set()
    for iteration in range(1, end + 1):
        if evaluates_after(experiment, iteration):
            names = often + rare if milestone(experiment, iteration) else often
            points |= {(name, iteration) for name in names}
    return points


def measures_signals(experiment: Experiment, iteration: int) -> bool:
    """Whether the layers' signals are taken after `iteration` steps: at 0 and at milestones."""
    return iteration == 0 or milestone(experiment, iteration)
