"""What is measured of a run while it trains, and after its last iteration.

The loop says when an iteration is over; everything that is then looked at is here. Training time
stands still meanwhile: rates and `history.seconds` count SGD steps alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from time import time

from torch import Tensor

from pipeline.data.photo_shards import Photos
from pipeline.errors import DivergedError
from pipeline.recipe import metrics
from pipeline.recipe.experiments import Experiment
from pipeline.recipe.layers import layout, response_layers
from pipeline.recipe.metrics import WINDOW
from pipeline.recipe.schedule import (
    CONVERGING_RULE,
    KEPT_LOOKS,
    LOOKS_IN_A_ROW,
    converging_from,
    measures_signals,
    milestone,
    warmup_ends,
)
from pipeline.runs.history import History
from pipeline.training.feeding.feeds import AnyDataset, Feed, evaluation_splits
from pipeline.training.measuring.clock import Clock
from pipeline.training.measuring.evaluate import evaluate
from pipeline.training.measuring.protocols import errors_of
from pipeline.training.measuring.responses import response_stds
from pipeline.training.measuring.signals import signals
from pipeline.training.step.process_group import ProcessGroup
from pipeline.training.step.train_state import TrainState

SCORED_AS = {
    "test": (metrics.TEST_ERR, metrics.TEST_LOSS),
    "val": (metrics.VAL_ERR, metrics.VAL_LOSS),
    "train": (metrics.TRAIN_CLEAN_ERR, metrics.TRAIN_CLEAN_LOSS),
}
"""The metrics of each split's error and loss."""


class Measurements:
    """One worker's part in measuring a run: the splits it is scored on, and its clock."""

    def __init__(
        self,
        train_state: TrainState,
        dataset: AnyDataset,
        feed: Feed,
        process_group: ProcessGroup,
        decoders: int,
        iteration: int,
    ) -> None:
        self.experiment: Experiment = train_state.experiment
        self.train_state, self.dataset, self.feed = train_state, dataset, feed
        self.process_group, self.decoders = process_group, decoders
        self.splits = evaluation_splits(self.experiment, dataset, process_group.device, decoders)
        self.clock = Clock(self.experiment.global_batch_size, iteration)

    @contextmanager
    def clock_stopped(self, history: History, point: int | None = None) -> Iterator[None]:
        """Leave what happens inside out of the training time; a new rate begins at `point`."""
        history.seconds += self.clock.pause(self.process_group.device)
        yield
        self.clock.resume(point)

    def before_step(self, history: History) -> None:
        """The layers' signals on the batch that is trained on next, at the start and at drops."""
        # Rank 0 alone: its first group is the batch's first group, whatever the world size.
        if self.process_group.rank == 0 and measures_signals(self.experiment, history.iteration):
            # Waiting for images is training time, whoever asks first.
            batch = self.feed.batch(history.iteration)
            with self.clock_stopped(history):
                history.layers += signals(self.train_state, batch, history.iteration)

    def record_point(self, history: History, window: Tensor, lr: float) -> None:
        """Score the network, add a point to every curve and, at the run's end, the final tests.

        Every rank takes part. `lr` is the rate of the iteration that was just trained. What is
        recorded here is what `expected_points` of `pipeline.recipe.schedule` says.
        """
        iteration = history.iteration
        with self.clock_stopped(history, point=iteration):
            values = running_values(self.experiment, iteration, window) | {metrics.LR: lr}
            values |= self._scores(everything=milestone(self.experiment, iteration))
            values |= self._speeds(iteration)
            if iteration == self.experiment.iterations:
                history.layers.append(self._responses(iteration))
                if self.process_group.rank == 0:
                    batch = self.feed.batch(iteration)
                    history.layers += signals(self.train_state, batch, iteration)
                # Last, because averaged statistics stay in the network.
                values |= self._final_tests()
            history.record(values, time_ms=int(1000 * time()))

    def _scores(self, everything: bool) -> dict[str, float]:
        """Errors and losses on the splits; on the training set only where `everything` is asked."""
        values: dict[str, float] = {}
        for split, images in self.splits.items():
            if split != "train" or everything:
                score = evaluate(
                    self.train_state.network,
                    images,
                    self.experiment.precision,
                    self.process_group,
                )
                values |= dict(zip(SCORED_AS[split], (score.top1_err, score.loss), strict=True))
        return values

    def _speeds(self, iteration: int) -> dict[str, float]:
        """The training rate since the last point and, of photographs, the share spent waiting."""
        rate, waited, self.feed.waited = self.clock.rate(iteration), self.feed.waited, 0.0
        if self.experiment.family == "cifar":
            return {metrics.IMAGES_PER_SECOND: rate}
        share = 100 * waited / self.clock.spent if self.clock.spent else 0.0
        return {metrics.IMAGES_PER_SECOND: rate, metrics.DATA_WAIT: share}

    def _responses(self, iteration: int) -> metrics.LayerValues:
        """Figure 7: the standard deviation of each 3x3 layer's response to the test images."""
        layers = response_layers(layout(self.experiment))
        stds = response_stds(
            self.train_state.network,
            layers,
            self.splits["test"],
            self.experiment.precision,
            self.process_group,
        )
        return metrics.LayerValues(iteration, metrics.RESPONSE_STD, list(layers), stds)

    def _final_tests(self) -> dict[str, float]:
        """Averaged statistics where the row asks for them, and the row's protocols."""
        experiment, values = self.experiment, dict[str, float]()
        if experiment.statistics_images:
            count = experiment.statistics_images // experiment.global_batch_size
            batches = (self.feed.batch(iteration) for iteration in range(count))
            self.train_state.average_statistics(batches, self.process_group)
        if isinstance(self.dataset, Photos):
            for protocol in experiment.protocols:
                errors = errors_of(
                    [self.train_state.network],
                    [experiment],
                    protocol,
                    self.dataset,
                    self.process_group,
                    self.decoders,
                )
                values[metrics.protocol_err(protocol, 1)] = errors.top1_err
                values[metrics.protocol_err(protocol, 5)] = errors.top5_err
        return values


def check_window(experiment: Experiment, history: History, window: Tensor, classes: int) -> None:
    """Every 25 iterations: whether warm-up may end, whether the run converges, whether it diverged.

    `window` [25, 2] holds loss and wrong predictions of the last iterations, over all ranks.

    Raises:
        DivergedError: a loss is NaN or infinite.
    """
    # The one place between evaluations where the host reads the device: a synchronisation point.
    losses, wrong_each = window.T.tolist()
    _check_finite(losses, history.iteration)
    wrong = int(sum(wrong_each))
    if history.warmup_end is None and warmup_ends(experiment, history.iteration, wrong):
        history.warmup_end = history.iteration
    if history.converging_rule == CONVERGING_RULE:
        _check_convergence(experiment, history, wrong, classes)


def _check_convergence(experiment: Experiment, history: History, wrong: int, classes: int) -> None:
    """Note one look's wrong predictions, and whether the run has begun to converge by them."""
    if history.converging_from is None or len(history.wrong_counts) < KEPT_LOOKS:
        # A new list: the one before may be on its way into a checkpoint.
        history.wrong_counts = [*history.wrong_counts, wrong]
    if history.converging_from is None:
        # Only the last looks are asked: had those before them passed, it would be noted already.
        last_looks = history.wrong_counts[-LOOKS_IN_A_ROW:]
        if converging_from(experiment, last_looks, classes) is not None:
            history.converging_from = history.iteration - WINDOW * (LOOKS_IN_A_ROW - 1)


def running_values(experiment: Experiment, iteration: int, window: Tensor) -> dict[str, float]:
    """Running training error (percent) and loss over the last 25 iterations, or as many as ran.

    Raises:
        DivergedError: a loss is NaN or infinite.
    """
    seen = min(iteration, WINDOW)
    losses, wrong_each = window[:seen].T.tolist()
    _check_finite(losses, iteration)
    error = 100 * sum(wrong_each) / (seen * experiment.global_batch_size)
    return {metrics.TRAIN_ERR: error, metrics.TRAIN_LOSS: sum(losses) / seen}


def _check_finite(losses: list[float], iteration: int) -> None:
    if not all(map(isfinite, losses)):
        raise DivergedError(f"the loss is no longer finite at iteration {iteration}")
