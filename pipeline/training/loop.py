"""The train loop: one, for every row of the paper.

Differences between experiments are values in the row, never branches here. Where the workers come
from and who reads the results is none of its business: `ProcessGroup` and `Storage` are all it
knows of the world.
"""

from contextlib import ExitStack, closing
from typing import Any

import torch

from pipeline.errors import DivergedError
from pipeline.recipe.metrics import WINDOW
from pipeline.recipe.schedule import evaluates_after, lr_at
from pipeline.runs.execution import Attempt, Execution
from pipeline.runs.run import PREEMPTED, STOPPED, Run, read_result
from pipeline.storage import Storage
from pipeline.training.attempts import record_attempt, record_capture
from pipeline.training.feeding.feeds import AnyDataset, training_feed
from pipeline.training.measuring.cost import Cost, DeviceMeter
from pipeline.training.measuring.measurements import Measurements, check_window
from pipeline.training.run_writer import RunWriter
from pipeline.training.step.iteration import Iteration
from pipeline.training.step.networks import build_network
from pipeline.training.step.process_group import ProcessGroup
from pipeline.training.step.train_state import TrainState


def train(
    run: Run,
    dataset: AnyDataset,
    storage: Storage,
    process_group: ProcessGroup,
    execution: Execution | None = None,
    attempt: Attempt | None = None,
    meter: DeviceMeter | None = None,
) -> dict[str, Any]:
    """Train a run to its end from wherever its folder stands, and return its `result.json`.

    Every rank calls it. A run whose loss becomes NaN or infinite ends with status `diverged`:
    trying again would repeat it. Two statuses leave nothing in the folder but a checkpoint:
    `preempted`, where the workers are about to be taken away, and `stopped` at `execution.until`.
    Runs that train at once on one device share its `meter`.

    Raises:
        InputError: the run would drift (see `pipeline.runs.provenance.drift`).
        StorageLostError: what is to be saved could not be written for too long.
        LostRunError: another driver or worker group has taken the run over.
    """
    execution, attempt = execution or Execution(), attempt or Attempt()
    result = read_result(storage, run)
    if result is not None:
        return result

    experiment, classes = run.experiment, dataset.spec.classes
    with ExitStack() as opened:
        with attempt.setting_up():
            # The network with the row's initialisation, its optimizer, and what feeds and saves it.
            network = build_network(experiment, run.seed, classes)
            one_pass, compiled = execution.one_pass, execution.compiled
            train_state = TrainState(experiment, network, process_group.device, one_pass, compiled)
            seconds, holder = execution.checkpoint_seconds, attempt.holder
            run_writer = RunWriter(storage, run, classes, process_group, seconds, holder)
            opened.enter_context(closing(run_writer))
            feed = training_feed(run, dataset, process_group, attempt.decoders)
            opened.enter_context(closing(feed))

            # Continue where the newest checkpoint stands. A position in the data needs no replay.
            history = run_writer.restore(train_state)
            record_attempt(run, history, process_group, execution, attempt)
            window = torch.tensor(history.window, device=process_group.device)
            # Capturing takes seconds, so it comes before the clock starts.
            left = history.iteration < experiment.iterations
            iteration = Iteration(
                train_state, feed, process_group, window, history.iteration, capture=left
            )
            record_capture(history, iteration.captured)
        # From here on the attempt is charged for its devices.
        meter = meter or DeviceMeter.of(process_group.device)
        cost = opened.enter_context(Cost(meter, execution, process_group.world_size))
        measurements = Measurements(
            train_state, dataset, feed, process_group, attempt.decoders, history.iteration
        )
        try:
            while history.iteration < experiment.iterations:
                # At the start and at drops: the layers' signals on the batch that comes next.
                measurements.before_step(history)

                # One iteration on this rank's share of the batch, a function of (seed, iteration)
                # alone. Loss and wrong predictions stay on the device, in a ring of 25.
                lr = lr_at(experiment, history.iteration, history.warmup_end)
                iteration.run(history.iteration, lr)
                history.iteration += 1

                # Every 25 iterations: the end of warm-up, divergence. All ranks see the same.
                if history.iteration % WINDOW == 0:
                    check_window(experiment, history, window, classes)

                # Once in a while: evaluate and record a point of every curve (all ranks take part).
                if evaluates_after(experiment, history.iteration):
                    measurements.record_point(history, window, lr)

                # Rank 0 says how far the run is.
                run_writer.beat(history, measurements.clock)

                # Save: at milestones, when it is time, and before the workers have to leave. Ranks
                # ask together, every 25 iterations, or one would leave while another waits for it.
                stops = history.iteration == execution.until
                if history.iteration % WINDOW == 0:
                    stops |= process_group.any(attempt.preempted())
                if run_writer.due(history) or stops:
                    with measurements.clock_stopped(history):
                        run_writer.save(train_state, history, window, cost)
                if stops and history.iteration < experiment.iterations:
                    run_writer.wait()
                    asked = history.iteration == execution.until
                    return {"status": STOPPED if asked else PREEMPTED}
            return run_writer.finish(history, cost)
        except DivergedError as error:
            return run_writer.finish(history, cost, "diverged", reason=str(error))
