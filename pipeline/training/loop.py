"""The train loop: one, for every row of the paper. Differences between experiments are values in
the row.

Build, restore, then step, check_window, measure and save until the row's iterations are done. Where
the workers come from and who reads the results is none of its business; `ProcessGroup` and
`Storage` are all it knows of the world.
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
from pipeline.training.run_writer import RunWriter
from pipeline.training.step.networks import build_network
from pipeline.training.step.process_group import ProcessGroup
from pipeline.training.step.train_state import TrainState


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
    preempted: Callable[[], bool] = bool
    """Whether the cluster is about to take this worker away, asked every 25 iterations; by default
    no (`bool()`).
    """


def train(
    run: Run, dataset: AnyDataset, storage: Storage, process_group: ProcessGroup, settings: Settings
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
    network = build_network(experiment, run.seed, dataset.spec.classes)
    train_state = TrainState(experiment, network, process_group.device, settings.one_pass)
    run_writer = RunWriter(
        storage,
        run,
        dataset.spec.classes,
        process_group,
        settings.checkpoint_seconds,
        settings.holder,
    )
    feed = training_feed(run, dataset, process_group, settings.decoders)
    try:
        history = run_writer.restore(train_state)
        note_attempt(run, history, process_group, settings)
        if not iterate(
            run, dataset, feed, process_group, train_state, run_writer, history, settings
        ):
            return {"status": STOPPED if history.iteration == settings.until else PREEMPTED}
        return run_writer.finish(history)
    except DivergedError as error:
        return run_writer.finish(history, "diverged", reason=str(error))
    finally:
        feed.close()
        run_writer.close()


def note_attempt(
    run: Run, history: History, process_group: ProcessGroup, settings: Settings
) -> None:
    """Record what this attempt is made with; refuse one that would drift, on every rank if on one.

    Raises:
        InputError: something differs from the attempt before, and that is not allowed.
    """
    attempt = dict(settings.provenance)
    kinds = process_group.gather_text(str(attempt.get("hardware", "")))
    if any(kinds):
        attempt["hardware"] = " + ".join(dict.fromkeys(kinds))
    differing = drift(history.attempts[-1], attempt) if history.attempts else {}
    everywhere = [text for text in process_group.gather_text(drift_text(differing)) if text]
    if everywhere and not settings.allow_drift:
        raise InputError(
            f"{run}: iteration {history.iteration:,} was made with other software or hardware "
            f"({everywhere[0]}); "
            "continue it there, or allow what may change its bytes with --allow-drift, which marks "
            "the run"
        )
    attempt |= {"from_iteration": history.iteration, "world_size": process_group.world_size}
    if settings.one_pass:
        attempt["one_pass"] = True
    if everywhere:
        attempt["drift"] = everywhere[0]
    history.attempts.append(attempt)


def iterate(
    run: Run,
    dataset: AnyDataset,
    feed: Feed,
    process_group: ProcessGroup,
    train_state: TrainState,
    run_writer: RunWriter,
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
    splits = evaluation_splits(experiment, dataset, process_group.device, settings.decoders)
    window = torch.tensor(history.window, device=process_group.device)
    clock = Clock(experiment.global_batch_size, history.iteration)

    while history.iteration < experiment.iterations:
        iteration = history.iteration
        batch = feed.batch(iteration)
        if process_group.rank == 0 and measures_signals(experiment, iteration):
            history.seconds += clock.pause(process_group.device)
            history.layers += signals(train_state, batch, iteration)
            clock.resume()
        lr = lr_at(experiment, iteration, history.warmup_end)
        window[iteration % metrics.WINDOW] = train_state.step(batch, lr, process_group)
        history.iteration += 1

        if history.iteration % metrics.WINDOW == 0:
            check_window(experiment, history, window, dataset.spec.classes)
        if evaluates_after(experiment, history.iteration):
            history.seconds += clock.pause(process_group.device)
            values = running_values(experiment, history, window) | {metrics.LR: lr}
            values |= scores(
                train_state,
                splits,
                process_group,
                everything=milestone(experiment, history.iteration),
            )
            values |= speeds(experiment, clock, feed, history.iteration)
            if history.iteration == experiment.iterations:
                history.layers.append(
                    responses(train_state, splits["test"], history.iteration, process_group)
                )
                if process_group.rank == 0:
                    history.layers += signals(
                        train_state, feed.batch(history.iteration), history.iteration
                    )
                values |= final_tests(train_state, dataset, feed, process_group, settings.decoders)
            history.record(values, time_ms=int(1000 * time()))
            clock.resume(history.iteration)
        run_writer.beat(history, clock)
        stops = history.iteration == settings.until
        stops |= history.iteration % metrics.WINDOW == 0 and process_group.any(settings.preempted())
        if run_writer.due(history) or stops:
            history.seconds += clock.pause(process_group.device)
            run_writer.save(train_state, history, window)
            clock.resume()
        if stops and history.iteration < experiment.iterations:
            run_writer.wait()
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
    train_state: TrainState,
    dataset: AnyDataset,
    feed: Feed,
    process_group: ProcessGroup,
    threads: int,
) -> dict[str, float]:
    """What comes after the last iteration: averaged statistics where the row has them, which stay,
    and its protocols.
    """
    experiment, values = train_state.experiment, dict[str, float]()
    if experiment.statistics_images:
        count = experiment.statistics_images // experiment.global_batch_size
        train_state.average_statistics(
            (feed.batch(iteration) for iteration in range(count)), process_group
        )
    if isinstance(dataset, Photos):
        for protocol in experiment.protocols:
            errors = errors_of(
                [train_state.network], [experiment], protocol, dataset, process_group, threads
            )
            values[metrics.protocol_err(protocol, 1)] = errors.top1_err
            values[metrics.protocol_err(protocol, 5)] = errors.top5_err
    return values


def responses(
    train_state: TrainState, images: Views, iteration: int, process_group: ProcessGroup
) -> metrics.LayerValues:
    """Figure 7 for this network: the standard deviation of each 3x3 layer's response to the test
    images.
    """
    layers = response_layers(layout(train_state.experiment))
    stds = response_stds(
        train_state.network, layers, images, train_state.experiment.precision, process_group
    )
    return metrics.LayerValues(iteration, metrics.RESPONSE_STD, list(layers), stds)


def check_window(experiment: Experiment, history: History, window: Tensor, classes: int) -> None:
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
    train_state: TrainState,
    splits: dict[metrics.Split, Views],
    process_group: ProcessGroup,
    everything: bool,
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
            score = evaluate(
                train_state.network, images, train_state.experiment.precision, process_group
            )
            values |= dict(zip(names[split], (score.top1_err, score.loss), strict=True))
    return values
