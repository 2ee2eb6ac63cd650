"""Publishes a run to MLflow as its folder in storage says, in batches, off the step path.

It finds a run by its key, reads what the server has and sends only what is missing, each point with
the time at which it was first recorded: publishing twice changes nothing. Only what a checkpoint
holds is published, so a resume can neither lose nor double a point.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from json import dumps
from math import isnan
from threading import Event, Thread
from time import monotonic, sleep, time
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from analysis.measured.frames import DIVERGED, FINISHED
from analysis.measured.tags import ALONE, ASKED, COMPLETE
from analysis.stats import summarise
from jobs.tracking.registry import register
from jobs.tracking.store import end_parent, experiment_id, only_run, open_store
from pipeline.data.stored import read_manifest
from pipeline.errors import InputError, first_line
from pipeline.recipe.layers import layout
from pipeline.recipe.metrics import TEST_ERR, TRAIN_CLEAN_ERR
from pipeline.recipe.overrides import changes_text
from pipeline.runs.checkpoint import final_weights, newest_history, newest_iteration
from pipeline.runs.history import History
from pipeline.runs.run import Run, read_result
from pipeline.storage import Storage
from pipeline.stored_json import read_json

POLL_SECONDS = 5.0
ENDING_SECONDS = 90.0
"""How long a run that has ended waits for a server that answered before; `sync` sends the rest."""
REQUEST_SECONDS = 20.0
"""A request and its repetition, by the limits of `jobs.tracking.store`."""
BATCH = 500

logger = logging.getLogger(__name__)


class Publisher:
    """One run's published copy, kept up to date by a thread of the run's driver.

    Nothing it does can fail training: what a server refuses is sent by a later try.
    """

    def __init__(self, tracking: str, storage: Storage, run: Run, tags: dict[str, str]) -> None:
        self.tracking, self.storage, self.run, self.tags = tracking, storage, run, tags
        self.client: MlflowClient | None = None
        self.run_id = self.parent = ""
        self.sent: set[tuple[str, int]] = set()
        self._away = False
        self._newest = 0
        """The checkpoint that was published last."""
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
            if not self._complete:
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
        """Send every point of the newest checkpoint that the store does not have."""
        self._open()
        # The history is read only when there is a new checkpoint: it grows, and storage may be far.
        newest = newest_iteration(self.storage, self.run)
        history = newest_history(self.storage, self.run) if newest != self._newest else None
        if history is not None:
            self._send_points(history)
            self._newest = history.iteration

    def _open(self) -> None:
        if self.client is not None:
            return
        # First a client, then the parent, then the run: each is found again if it is there.
        client = open_store(self.tracking, self.storage)
        experiment = experiment_id(client)
        self.parent = self.parent_in(client)
        tags = self._run_tags() | {"mlflow.parentRunId": self.parent}
        self.run_id = only_run(client, experiment, "run_key", self.run.key, tags)
        # Everything that is known before the first iteration: the experiment's fields and the tags.
        fields = asdict(self.run.experiment).items()
        params = [Param(name, str(value)) for name, value in fields if name != "artifacts"]
        params.append(Param("seed", str(self.run.seed)))
        params.append(Param("dataset_id", self.run.dataset_id))
        new_tags = missing_tags(tags | self.tags, client.get_run(self.run_id).data.tags)
        client.log_batch(
            self.run_id, params=params, tags=[RunTag(*item) for item in new_tags.items()]
        )
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

    def parent_in(self, client: MlflowClient) -> str:
        """The run's parent, made if there is none."""
        return only_run(
            client, experiment_id(client), "parent_key", self._parent_key(), self._parent_tags()
        )

    def _send_points(self, history: History) -> None:
        assert self.client is not None
        missing = [
            point for point in history.points if (point.metric, point.iteration) not in self.sent
        ]
        # MLflow takes at most a thousand metrics in a request.
        for start in range(0, len(missing), BATCH):
            part = missing[start : start + BATCH]
            self.client.log_batch(
                self.run_id, [Metric(p.metric, p.value, p.time_ms, p.iteration) for p in part]
            )
            self.sent |= {(point.metric, point.iteration) for point in part}

    def finish(self, status: str, reason: str | None = None) -> None:
        """Publish everything there is and how the run ended, and last that the copy is complete."""
        self.publish()
        assert self.client is not None
        # The points are there now; then how it ended, the files, the parent, and COMPLETE last of
        # all, which `sync` goes by.
        tags = {"outcome": status} | self._ended_tags()
        if reason:
            tags["reason"] = reason[:500]
        elif "reason" in self.client.get_run(self.run_id).data.tags:  # of an attempt before
            self.client.delete_tag(self.run_id, "reason")
        self.client.log_batch(self.run_id, tags=[RunTag(*item) for item in tags.items()])
        self.client.set_terminated(
            self.run_id, status if status in ("FINISHED", "KILLED") else "FAILED"
        )
        result = read_result(self.storage, self.run)
        if result is not None:
            self._send_files(result)
        self._summarise()
        if result is not None:
            self.client.set_tag(self.run_id, COMPLETE, "yes")

    def _ended_tags(self) -> dict[str, str]:
        """What the history says of the whole run; where attempts differ, all that took part."""
        history = newest_history(self.storage, self.run)
        if history is None:
            return {}
        attempts = history.attempts
        tags: dict[str, str] = {}
        # Of numbers that may change between attempts the last one counts; of what may change bytes,
        # all are named.
        for key in ("threads", "world_size"):
            tags |= {key: str(attempts[-1][key])} if key in attempts[-1] else {}
        for key in ("commit", "device", "hardware"):
            tags[key] = " + ".join(
                dict.fromkeys(str(attempt[key]) for attempt in attempts if key in attempt)
            )
        for key in ("dirty", "one_pass", "compiled"):
            tags[key] = str(any(attempt.get(key) for attempt in attempts))
        drifts = dict.fromkeys(attempt["drift"] for attempt in attempts if "drift" in attempt)
        tags |= {"drift": "; ".join(drifts)[:500]} if drifts else {}
        tags["versions"] = dumps(attempts[-1].get("versions", {}), sort_keys=True)
        noted = {
            "warmup_end": history.warmup_end,
            "converging_from": history.converging_from,
            "converging_rule": history.converging_rule,
        }
        return tags | {key: str(value) for key, value in noted.items() if value is not None}

    def _send_files(self, result: dict[str, Any]) -> None:
        assert self.client is not None
        self.client.log_text(self.run_id, dumps(result, indent=1), "result.json")
        # A run that diverged has none, and registers no model.
        weights = final_weights(self.storage, self.run, result)
        if weights is not None:
            register(self.client, self.run_id, self.run, self._manifest(), result, weights)

    def _summarise(self) -> None:
        """Give the parent the mean, deviation and number of its finished seeds, by their folders.

        The step of these metrics is the number of seeds: of two that end at once, whoever knows of
        more is the latest.
        """
        assert self.client is not None
        # By the folders, not by what the server has: seeds that end at once may not be there yet.
        folder = self.run.folder.rpartition("/")[0]
        seeds = [
            int(seed)
            for _, _, seed in (name.partition("seed-") for name in self.storage.names(folder))
            if seed.isdecimal()
        ]
        results = [read_result(self.storage, replace(self.run, seed=seed)) for seed in seeds]
        finals = [
            result["final"]
            for result in results
            if result is not None and result["status"] == "finished"
        ]
        known = self.client.get_run(self.parent).data.metrics
        now, metrics = int(1000 * time()), []
        for name in (TEST_ERR, TRAIN_CLEAN_ERR):
            values = [final[name] for final in finals if name in final]
            summary = summarise(values)
            facts = {"mean": summary.mean, "std": summary.std, "n": summary.n}
            new = {
                f"{name}/{fact}": float(value)
                for fact, value in facts.items()
                if values and not isnan(value)
            }
            # Only what has changed: publishing the same again would add a point to the parent.
            metrics += [
                Metric(key, value, now, len(values))
                for key, value in new.items()
                if known.get(key) != value
            ]
        self.client.log_batch(self.parent, metrics)
        end_parent(self.client, self.parent, "FINISHED")

    def _parent_key(self) -> str:
        return f"{self.run.experiment.fingerprint}-{self.run.dataset_id}"

    def _parent_tags(self) -> dict[str, str]:
        name = self._named(f"on {self._manifest()['row']['name']}")
        return self._experiment_tags() | {"kind": "experiment", "mlflow.runName": name}

    def _run_tags(self) -> dict[str, str]:
        name = self._named(f"seed {self.run.seed}")
        return self._experiment_tags() | {
            "kind": "run",
            "mlflow.runName": name,
            "seed": str(self.run.seed),
        }

    def _named(self, which: str) -> str:
        """What tells runs apart comes first: the UI's column of names is narrow."""
        changes = changes_text(self.run.experiment)
        return f"{self.run.experiment.name} {which}" + (f" ({changes})" if changes else "")

    def _manifest(self) -> dict[str, Any]:
        manifest = read_manifest(self.storage, self.run.dataset_id)
        if manifest is None:
            raise FileNotFoundError(
                f"dataset {self.run.dataset_id} is not in {self.storage.uri} any more"
            )
        return manifest

    def _experiment_tags(self) -> dict[str, str]:
        experiment, dataset = self.run.experiment, self._manifest()["row"]
        plan = layout(experiment, classes=dataset["classes"])
        return {
            "experiment": experiment.name,
            "fingerprint": experiment.fingerprint,
            "artifacts": " ".join(experiment.artifacts),
            "overrides": dumps(experiment.deviations(), sort_keys=True),
            "iterations": str(experiment.iterations),
            "params": str(plan.params),
            "dataset": dataset["name"],
            "dataset_id": self.run.dataset_id,
            "comparable": str(bool(dataset["comparable"])),
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
