"""Publishes a run to MLflow as its folder in storage says, in batches, off the step path.

It finds a run by its key, reads what the server has and sends only what is missing, each point with
the time at which it was first recorded: publishing twice changes nothing. Only what a checkpoint
holds is published, so a resume can neither lose nor double a point.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from json import dumps
from math import inf
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag

from analysis.measured.frames import DIVERGED, FINISHED
from analysis.measured.tags import ALONE, ASKED, COMPLETE, stored_name, stored_tags
from jobs.console.durations import duration
from jobs.console.run_progress import Beat, RunProgress, percent, progress_of
from jobs.tracking.described_runs import (
    COMMIT,
    NOTE,
    RUN_NAME,
    describe,
    is_outdated,
    manifest_of,
    mend,
    run_tags,
    tags_of,
    trained_ms,
)
from jobs.tracking.local_store import send_artifacts
from jobs.tracking.parents import PARENT, parent_in, summarise_seeds
from jobs.tracking.registry import register
from jobs.tracking.store import end_parent, experiment_id, only_run, open_store
from pipeline.errors import InputError, first_line
from pipeline.recipe.metrics import TEST_ERR
from pipeline.runs.checkpoint import final_weights, newest_history, newest_iteration
from pipeline.runs.history import DEVICE_SECONDS, JOULES, History, cost_of
from pipeline.runs.model_card import model_card
from pipeline.runs.run import Run, read_heartbeat, read_result
from pipeline.storage import Storage
from pipeline.stored_json import read_json

POLL_SECONDS = 5.0
ENDING_SECONDS = 90.0
"""How long a run that has ended waits for a server that answered before; `sync` sends the rest."""
REQUEST_SECONDS = 20.0
"""A request and its repetition, by the limits of `jobs.tracking.store`."""
TELL_SECONDS = 60.0
"""How often at the most the tags about progress are sent by themselves, not beside points."""
BATCH = 500
TIME_LEFT = "time_left"
"""Tag of a run that is being trained, and of no other."""
ENDED_STATES = {FINISHED: "finished", DIVERGED: "diverged", "FAILED": "failed", "KILLED": "stopped"}
"""What `resnet-repro status` calls the outcomes of `analysis.measured.frames`."""

logger = logging.getLogger(__name__)


class Publisher:
    """One run's published copy, kept up to date by a thread of the run's driver.

    Nothing it does can fail training: what a server refuses is sent by a later try.
    """

    def __init__(
        self,
        tracking: str,
        storage: Storage,
        run: Run,
        tags: dict[str, str],
        was_interrupted: Callable[[], bool] = bool,
    ) -> None:
        self.tracking, self.storage, self.run, self.tags = tracking, storage, run, tags
        self.client: MlflowClient | None = None
        self.run_id = self.parent = ""
        self.sent: set[tuple[str, int]] = set()
        self._away = False
        self._newest = 0
        """The checkpoint that was published last."""
        self._trained: tuple[int, int] | None = None
        """When training began and when its newest point was recorded (Unix, ms)."""
        self._reached: tuple[int, float | None] = 0, None
        """Its iteration, and the test error in percent."""
        self._told = -inf
        """When tags about progress were sent last (monotonic, seconds)."""
        self._earlier: Beat = None
        """The heartbeat of an attempt before."""
        self._was_interrupted = was_interrupted
        self._stop = Event()
        self._ending: tuple[str, str | None] | None = None
        self._complete = False
        self._thread = Thread(target=self._follow, daemon=True)

    @property
    def started(self) -> bool:
        """Whether the run's folder is, or was, followed."""
        return self._thread.ident is not None

    def start(self) -> None:
        """Follow the run's folder in the background."""
        with suppress(OSError, InputError):
            self._earlier = read_heartbeat(self.storage, self.run)
        self._thread.start()

    def stop(self, status: str, reason: str | None = None) -> bool:
        """Publish what is left and how the run ended; whether that succeeded.

        `status` is an `outcome` of `analysis.measured.frames`.
        """
        # Said before the event, which the thread wakes up to.
        self._ending = status, reason
        self._stop.set()
        if not self.started:
            self.start()
        # In every case bounded: a run that has ended must give its slot in the grid to the next
        # one.
        self._thread.join(timeout=ENDING_SECONDS + REQUEST_SECONDS)
        return self._complete

    def _follow(self) -> None:
        """The one thread that talks to the server, from the first look to the end."""
        self._try(self.publish)
        while not self._stop.wait(POLL_SECONDS):
            # Of an interrupted run another says that it stopped, and is not to be contradicted.
            if not self._complete and not self._was_interrupted():
                self._try(self._publish_to_the_end)
        if self._ending is None:
            return
        # Training has ended. What is left is tried until it is through or the patience is over.
        status, reason = self._ending
        deadline = monotonic() + ENDING_SECONDS
        while not self._complete:
            self._complete = self._try(lambda: self.finish(status, reason))
            # A server that never answered is not waited for: training has ended, and the user is
            # at the terminal.
            if not self.run_id or monotonic() > deadline:
                return
            if not self._complete:
                sleep(POLL_SECONDS)

    def _publish_to_the_end(self) -> None:
        """Publish, and how the run ended if it has: a pack's others may go on for hours."""
        result = read_result(self.storage, self.run)
        if result is None:
            return self.publish()
        self.finish(outcome_of(result), result.get("reason"))
        self._complete = True

    def _try(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except Exception as error:  # whatever a server or a network does, training goes on
            # Said once an outage, not every five seconds.
            if not self._away:
                logger.warning(
                    "MLflow at %s: %s; training goes on", self.tracking, first_line(error)
                )
            self._away = True
            self.client = None  # the next try begins by asking again what the server has
            return False
        self._away = False
        return True

    def publish(self) -> None:
        """Send every point of the newest checkpoint that the store does not have, and how far the
        run is.
        """
        client = self._open()
        self._send_new(client, self._progress_tags)
        if monotonic() - self._told >= TELL_SECONDS:
            client.log_batch(self.run_id, tags=self._progress_tags())

    def _send_new(self, client: MlflowClient, tags: Callable[[], list[RunTag]]) -> None:
        """Send what a new checkpoint brings, and with it the tags."""
        # The history is read only when there is a new checkpoint: it grows, and storage may be far.
        newest = newest_iteration(self.storage, self.run)
        history = newest_history(self.storage, self.run) if newest != self._newest else None
        if history is not None:
            self._reached = history.iteration, history.last().get(TEST_ERR)
            self._send_points(client, history, tags)
            self._newest, self._trained = history.iteration, trained_ms(self.run, history)

    def _progress_tags(self) -> list[RunTag]:
        self._told = monotonic()
        iteration, error = self._reached
        progress = progress_of(self.storage, self.run, iteration, error, self._earlier)
        return [RunTag(*item) for item in progress_tags(progress).items()]

    def _open(self) -> MlflowClient:
        if self.client is not None:
            return self.client
        # First a client, then the parent, then the run: each is found again if it is there.
        client = open_store(self.tracking, self.storage)
        experiment = experiment_id(client)
        self.parent = parent_in(client, self.storage, self.run)
        manifest = manifest_of(self.storage, self.run)
        tags = run_tags(self.run, manifest) | {PARENT: self.parent}
        # A run that is published later, by `sync` or from another machine, began when it did.
        self.run_id = only_run(client, experiment, "run_key", self.run.key, tags, self._began_ms)
        copy = client.get_run(self.run_id)
        if is_outdated(copy):
            mend(client, copy, self.run, manifest)
            copy = client.get_run(self.run_id)
        # Everything that is known before the first iteration: the row's fields and the tags.
        new_tags = missing_tags(tags | self.tags, tags_of(copy))
        if RUN_NAME in copy.data.tags:  # a run that was renamed in the UI keeps its name
            new_tags.pop(RUN_NAME, None)
        describe(client, self.run_id, self.run, manifest, new_tags)
        for run_id in (self.run_id, self.parent):
            client.update_run(run_id, status="RUNNING")
        # What the server has decides what is sent, not what this process remembers: an earlier
        # attempt or another command may have sent some of it.
        metrics = client.get_run(self.run_id).data.metrics
        self.sent = {
            (name, point.step)
            for name in metrics
            for point in client.get_metric_history(self.run_id, name)
        }
        self.client, self._newest = client, 0
        return client

    def _began_ms(self) -> int | None:
        trained = trained_ms(self.run, newest_history(self.storage, self.run))
        return trained[0] if trained else None

    def _send_points(
        self, client: MlflowClient, history: History, tags: Callable[[], list[RunTag]]
    ) -> None:
        missing = [
            point for point in history.points if (point.metric, point.iteration) not in self.sent
        ]
        # MLflow takes at most a thousand metrics in a request.
        for start in range(0, len(missing), BATCH):
            part = missing[start : start + BATCH]
            points = [Metric(p.metric, p.value, p.time_ms, p.iteration) for p in part]
            client.log_batch(self.run_id, points, tags=tags())
            self.sent |= {(point.metric, point.iteration) for point in part}

    def finish(self, status: str, reason: str | None = None) -> None:
        """Publish everything there is and how the run ended, and last that the copy is complete."""
        client = self._open()
        self._send_new(client, list)
        # The points are there now; then how it ended, the files, the parent, and COMPLETE last of
        # all, which `sync` goes by.
        tags = {"outcome": status} | self._ended_tags(status)
        kept = client.get_run(self.run_id).data.tags
        if reason:
            tags["reason"] = reason[:500]
        # What an attempt before had: a reason, and a cost that is no longer known of the whole run.
        outdated = {TIME_LEFT, DEVICE_SECONDS, JOULES, "reason"} - tags.keys()
        for name in outdated & kept.keys():
            client.delete_tag(self.run_id, name)
        client.log_batch(self.run_id, tags=[RunTag(*item) for item in stored_tags(tags).items()])
        result = read_result(self.storage, self.run)
        # What nobody follows, and `sync` sends later, ended with its newest point.
        later = result is not None or not self.started
        client.set_terminated(
            self.run_id,
            status if status in ("FINISHED", "KILLED") else "FAILED",
            self._trained[1] if later and self._trained else None,
        )
        if result is not None:
            self._send_files(client, result, kept)
        summarise_seeds(client, self.storage, self.run, self.parent)
        end_parent(client, self.parent, "FINISHED")
        if result is not None:
            client.set_tag(self.run_id, stored_name(COMPLETE), "yes")

    def _ended_tags(self, status: str) -> dict[str, str]:
        """What the history says of the whole run; where attempts differ, all that took part."""
        history = newest_history(self.storage, self.run)
        if history is None:
            return progress_tags(RunProgress(self.run, ENDED_STATES[status], 0, 0.0, None))
        error = history.last().get(TEST_ERR)
        ended = RunProgress(self.run, ENDED_STATES[status], history.iteration, 0.0, error)
        tags = progress_tags(ended)
        attempts = history.attempts
        # Of numbers that may change between attempts the last one counts; of what may change bytes,
        # all are named.
        for key in ("threads", "world_size"):
            tags |= {key: str(attempts[-1][key])} if key in attempts[-1] else {}
        for key in ("commit", "device", "hardware"):
            tags[key] = " + ".join(
                dict.fromkeys(str(attempt[key]) for attempt in attempts if key in attempt)
            )
        if "commit" in attempts[-1]:
            tags[COMMIT] = str(attempts[-1]["commit"])
        for key in ("dirty", "one_pass", "compiled"):
            tags[key] = str(any(attempt.get(key) for attempt in attempts))
        drifts = dict.fromkeys(attempt["drift"] for attempt in attempts if "drift" in attempt)
        tags |= {"drift": "; ".join(drifts)[:500]} if drifts else {}
        tags["versions"] = dumps(attempts[-1].get("versions", {}), sort_keys=True)
        noted: dict[str, float | None] = {
            "warmup_end": history.warmup_end,
            "converging_from": history.converging_from,
            "converging_rule": history.converging_rule,
        }
        # What came after the last checkpoint is in the result alone.
        result = read_result(self.storage, self.run) or {}
        noted |= cost_of(result.get("attempts", attempts))
        return tags | {key: str(value) for key, value in noted.items() if value is not None}

    def _send_files(
        self, client: MlflowClient, result: dict[str, Any], kept: Mapping[str, str]
    ) -> None:
        files = {"result.json": dumps(result, indent=1).encode()}
        send_artifacts(client, self.run_id, files)
        # A run that diverged has none, and registers no model.
        weights = final_weights(self.storage, self.run, result)
        if weights is not None:
            manifest = manifest_of(self.storage, self.run)
            card = model_card(self.run, manifest, result)
            if NOTE not in kept:  # what a person has written there stays
                client.set_tag(self.run_id, NOTE, card)
            register(client, self.run_id, self.run, manifest, result, weights, card)


def progress_tags(progress: RunProgress) -> dict[str, str]:
    """How far a run is, as tags that people read in the UI's columns."""
    error, left = progress.test_err, duration(progress.seconds_left)
    return {
        "state": progress.state,
        "iteration": f"{progress.iteration:,} of {progress.run.experiment.iterations:,}",
        "progress_at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        **({"test_err": percent(error)} if error is not None else {}),
        **({TIME_LEFT: left} if left else {}),
    }


def outcome_of(result: dict[str, Any]) -> str:
    """The `outcome` of a run that has ended, by its `result.json` (`analysis.measured.frames`)."""
    return FINISHED if result["status"] == "finished" else DIVERGED


def remember_tags(storage: Storage, run: Run, tags: dict[str, str]) -> None:
    """Keep what a run was asked for in its folder, so that `sync` can publish it from there."""
    known = remembered_tags(storage, run)
    new = missing_tags(tags, known)
    if new:
        storage.write(f"{run.folder}/asked.json", dumps(known | new, indent=1).encode())


def remembered_tags(storage: Storage, run: Run) -> dict[str, str]:
    """The tags that a run was asked for with; none where that is not known."""
    try:
        tags = read_json(storage, f"{run.folder}/asked.json", dict[str, str])
    except InputError:
        return {}
    return tags or {}


def missing_tags(tags: dict[str, str], known: dict[str, str]) -> dict[str, str]:
    """The tags that are not known yet; a run that was asked for outside a sweep once stays so."""
    return {
        name: value
        for name, value in tags.items()
        if known.get(name) != value and not (name == ASKED and known.get(name) == ALONE)
    }
