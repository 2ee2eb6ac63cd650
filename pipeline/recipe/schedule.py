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


def below_chance(experiment: Experiment, wrong: int, classes: int) -> bool:
    """Whether the error of the last 25 iterations is below guessing by more than one point.

    One point is twice the standard error of 3,200 images at 90 %. Footnote 5: "starts converging
    (<90 % error)".
    """
    return 100 * wrong < (100 - 100 / classes - 1) * WINDOW * experiment.global_batch_size


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
