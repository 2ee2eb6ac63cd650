"""The train loop: one, for every row of the paper. Differences between experiments are values in
the row.

Build, restore, then step, look, measure and save until the row's iterations are done. Where the
workers come from and who reads the results is none of its business; `Ranks` and `Storage` are all
it knows of the world.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite
from time import time
from typing import Any

import torch
from torch import Tensor

from pipeline.data.photo_shards import Photos
from pipeline.errors import DivergedError, InputError
from pipeline.recipe import metrics
from pipeline.recipe.experiments import Experiment
from pipeline.recipe.layers import layout, response_layers
from pipeline.recipe.schedule import (
    below_chance,
    evaluates_after,
    lr_at,
    measures_signals,
    milestone,
    warmup_ends,
)
from pipeline.runs.history import History
from pipeline.runs.provenance import drift, drift_text
from pipeline.runs.run import PREEMPTED, STOPPED, Run, read_result
from pipeline.storage import Storage
from pipeline.training.feeding.feeds import AnyDataset, Feed, evaluation_splits, training_feed
from pipeline.training.measuring.clock import Clock
from pipeline.training.measuring.evaluate import Views, evaluate
from pipeline.training.measuring.protocols import errors_of
from pipeline.training.measuring.responses import response_stds
from pipeline.training.measuring.signals import signals
from pipeline.training.run_writer import Saver
from pipeline.training.step.networks import build_network
from pipeline.training.step.process_group import Ranks
from pipeline.training.step.train_state import Trainee


@dataclass(frozen=True)
class Settings:
    """How a run is carried out, of which only `one_pass` and an allowed drift can change its
    result, in the last bits.
    """

    checkpoint_seconds: float = 30.0
    provenance: dict[str, Any] = field(default_factory=dict)
    """What is known of this attempt: commit, versions, threads, hardware, ..."""
    one_pass: bool = False
    """All batch-norm groups of a worker in one pass (`pipeline.training.step.train_state`);
    recorded of the attempt where it is so.
    """
    allow_drift: bool = False
    """Continue under another commit, version or kind of hardware than the attempt before; recorded
    where it is so.
    """
    decoders: int = 1
    """Threads that decode photographs for this worker."""
    until: int | None = None
    """Stop after this iteration, saved: for the check of a part of a run
    (`pipeline.training.verify`).
    """
    holder: str = ""
    """The lease under which rank 0 writes (`pipeline.runs.lease`)."""
    leaving: Callable[[], bool] = bool
    """Whether the cluster is about to take this worker away, asked every 25 iterations; by default
    no (`bool()`).
    """


def train(
    run: Run, dataset: AnyDataset, storage: Storage, ranks: Ranks, settings: Settings
) -> dict[str, Any]:
    """Train a run to its end from wherever its folder stands; returns its `result.json`. Every rank
    calls it.

    A run whose loss becomes NaN or infinite ends with status `diverged`: trying again would repeat
    it. One whose workers are about to be taken away saves at once and returns status `preempted`,
    of which nothing is left in its folder; so does one that comes to `until`, with status
    `stopped`.

    Raises:
        InputError: the run would drift (see `pipeline.runs.provenance.drift`).
        StorageLostError: what is to be saved could not be written for too long.
        LostRunError: another driver or worker group has taken the run over.
    """
    result = read_result(storage, run)
    if result is not None:
        return result
    experiment = run.experiment
    network = build_network(experiment, run.seed, dataset.row.classes)
    trainee = Trainee(experiment, network, ranks.device, settings.one_pass)
    saver = Saver(
        storage, run, dataset.row.classes, ranks, settings.checkpoint_seconds, settings.holder
    )
    feed = training_feed(run, dataset, ranks, settings.decoders)
    try:
        history = saver.restore(trainee)
        note_attempt(run, history, ranks, settings)
        if not iterate(run, dataset, feed, ranks, trainee, saver, history, settings):
            return {"status": STOPPED if history.iteration == settings.until else PREEMPTED}
        return saver.finish(history)
    except DivergedError as error:
        return saver.finish(history, "diverged", reason=str(error))
    finally:
        feed.close()
        saver.close()


def note_attempt(run: Run, history: History, ranks: Ranks, settings: Settings) -> None:
    """Record what this attempt is made with; refuse one that would drift, on every rank if on one.

    Raises:
        InputError: something differs from the attempt before, and that is not allowed.
    """
    attempt = dict(settings.provenance)
    kinds = ranks.gather_text(str(attempt.get("hardware", "")))
    if any(kinds):
        attempt["hardware"] = " + ".join(dict.fromkeys(kinds))
    differing = drift(history.attempts[-1], attempt) if history.attempts else {}
    everywhere = [text for text in ranks.gather_text(drift_text(differing)) if text]
    if everywhere and not settings.allow_drift:
        raise InputError(
            f"{run}: iteration {history.iteration:,} was made with other software or hardware "
            f"({everywhere[0]}); "
            "continue it there, or allow what may change its bytes with --allow-drift, which marks "
            "the run"
        )
    attempt |= {"from_iteration": history.iteration, "world_size": ranks.world_size}
    if settings.one_pass:
        attempt["one_pass"] = True
    if everywhere:
        attempt["drift"] = everywhere[0]
    history.attempts.append(attempt)


def iterate(
    run: Run,
    dataset: AnyDataset,
    feed: Feed,
    ranks: Ranks,
    trainee: Trainee,
    saver: Saver,
    history: History,
    settings: Settings,
) -> bool:
    """From `history.iteration` to the row's last: every iteration of the paper's training happens
    here.

    Returns whether it came to the end; False where the state is saved because workers are about to
    be taken away, or because `settings.until` is reached.

    Raises:
        DivergedError: the loss became NaN or infinite.
    """
    experiment = run.experiment
    splits = evaluation_splits(experiment, dataset, ranks.device, settings.decoders)
    window = torch.tensor(history.window, device=ranks.device)
    clock = Clock(experiment.global_batch_size, history.iteration)

    while history.iteration < experiment.iterations:
        iteration = history.iteration
        batch = feed.batch(iteration)
        if ranks.rank == 0 and measures_signals(experiment, iteration):
            history.seconds += clock.pause(ranks.device)
            history.layers += signals(trainee, batch, iteration)
            clock.resume()
        lr = lr_at(experiment, iteration, history.warmup_end)
        window[iteration % metrics.WINDOW] = trainee.step(batch, lr, ranks)
        history.iteration += 1

        if history.iteration % metrics.WINDOW == 0:
            look(experiment, history, window, dataset.row.classes)
        if evaluates_after(experiment, history.iteration):
            history.seconds += clock.pause(ranks.device)
            values = running_values(experiment, history, window) | {metrics.LR: lr}
            values |= scores(
                trainee, splits, ranks, everything=milestone(experiment, history.iteration)
            )
            values |= speeds(experiment, clock, feed, history.iteration)
            if history.iteration == experiment.iterations:
                history.layers.append(responses(trainee, splits["test"], history.iteration, ranks))
                if ranks.rank == 0:
                    history.layers += signals(
                        trainee, feed.batch(history.iteration), history.iteration
                    )
                values |= final_tests(trainee, dataset, feed, ranks, settings.decoders)
            history.record(values, time_ms=int(1000 * time()))
            clock.resume(history.iteration)
        saver.beat(history, clock)
        stops = history.iteration == settings.until
        stops |= history.iteration % metrics.WINDOW == 0 and ranks.any(settings.leaving())
        if saver.due(history) or stops:
            history.seconds += clock.pause(ranks.device)
            saver.save(trainee, history, window)
            clock.resume()
        if stops and history.iteration < experiment.iterations:
            saver.wait()
            return False
    return True


def speeds(experiment: Experiment, clock: Clock, feed: Feed, iteration: int) -> dict[str, float]:
    """How fast training went since the last point and, of photographs, what part of the time it
    waited for them.
    """
    rate, waited, feed.waited = clock.rate(iteration), feed.waited, 0.0
    if experiment.family == "cifar":
        return {metrics.IMAGES_PER_SECOND: rate}
    return {
        metrics.IMAGES_PER_SECOND: rate,
        metrics.DATA_WAIT: 100 * waited / clock.spent if clock.spent else 0.0,
    }


def final_tests(
    trainee: Trainee, dataset: AnyDataset, feed: Feed, ranks: Ranks, threads: int
) -> dict[str, float]:
    """What comes after the last iteration: averaged statistics where the row has them, which stay,
    and its protocols.
    """
    experiment, values = trainee.experiment, dict[str, float]()
    if experiment.statistics_images:
        count = experiment.statistics_images // experiment.global_batch_size
        trainee.average_statistics((feed.batch(iteration) for iteration in range(count)), ranks)
    if isinstance(dataset, Photos):
        for protocol in experiment.protocols:
            errors = errors_of([trainee.network], [experiment], protocol, dataset, ranks, threads)
            values[metrics.protocol_err(protocol, 1)] = errors.top1_err
            values[metrics.protocol_err(protocol, 5)] = errors.top5_err
    return values


def responses(trainee: Trainee, images: Views, iteration: int, ranks: Ranks) -> metrics.LayerValues:
    """Figure 7 for this network: the standard deviation of each 3x3 layer's response to the test
    images.
    """
    layers = response_layers(layout(trainee.experiment))
    stds = response_stds(trainee.network, layers, images, trainee.experiment.precision, ranks)
    return metrics.LayerValues(iteration, metrics.RESPONSE_STD, list(layers), stds)


def look(experiment: Experiment, history: History, window: Tensor, classes: int) -> None:
    """Every 25 iterations: note when warm-up may end and when convergence began, and stop a run
    that diverged.
    """
    losses, each_wrong = window.T.tolist()
    if not all(map(isfinite, losses)):
        raise DivergedError(f"the loss is no longer finite at iteration {history.iteration}")
    wrong = int(sum(each_wrong))
    if history.warmup_end is None and warmup_ends(experiment, history.iteration, wrong):
        history.warmup_end = history.iteration
    if history.converging_from is None and below_chance(experiment, wrong, classes):
        history.converging_from = history.iteration


def running_values(experiment: Experiment, history: History, window: Tensor) -> dict[str, float]:
    """Running training error (percent) and loss over the last 25 iterations, or as many as there
    have been.
    """
    seen = min(history.iteration, metrics.WINDOW)
    losses, wrong = window[:seen].T.tolist()
    if not all(map(isfinite, losses)):
        raise DivergedError(f"the loss is no longer finite at iteration {history.iteration}")
    error = 100 * sum(wrong) / (seen * experiment.global_batch_size)
    return {metrics.TRAIN_ERR: error, metrics.TRAIN_LOSS: sum(losses) / seen}


def scores(
    trainee: Trainee, splits: dict[metrics.Split, Views], ranks: Ranks, everything: bool
) -> dict[str, float]:
    """Errors and losses on the splits; the training set only where `everything` is asked for."""
    names = {
        "test": (metrics.TEST_ERR, metrics.TEST_LOSS),
        "val": (metrics.VAL_ERR, metrics.VAL_LOSS),
        "train": (metrics.TRAIN_CLEAN_ERR, metrics.TRAIN_CLEAN_LOSS),
    }
    values: dict[str, float] = {}
    for split, images in splits.items():
        if split != "train" or everything:
            score = evaluate(trainee.network, images, trainee.experiment.precision, ranks)
            values |= dict(zip(names[split], (score.top1_err, score.loss), strict=True))
    return values
