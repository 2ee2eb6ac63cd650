"""The only writer to MLflow: publishes runs as their folders in storage say, in batches, off the step path.

It finds a run by its key, reads what the server has and sends only what is missing, each point with the time at which it
was first recorded: publishing twice changes nothing. Only what a checkpoint holds is published, so a resume can neither
lose nor double a point.
"""

import logging
import os
from dataclasses import asdict
from json import dumps
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException

from pipeline.checkpoint import folder, newest_history
from pipeline.datasets import read_manifest
from pipeline.errors import InputError
from pipeline.history import History
from pipeline.layers import layout
from pipeline.runs import Run, read_result
from pipeline.storage import Storage

EXPERIMENT = "resnet-repro"
POLL_SECONDS = 5.0
BATCH = 500
_SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql")

logger = logging.getLogger(__name__)


def check_tracking_uri(uri: str) -> None:
    """Refuse what cannot be a tracking store.

    Raises:
        InputError: the URI's scheme is not one of a database or a server.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme.partition("+")[0] not in _SCHEMES or not rest.strip("/"):
        raise InputError(f"--tracking {uri}: wanted is http://HOST:PORT of an MLflow server, or sqlite:///FILE")


def default_tracking(storage: Storage) -> str:
    """SQLite in the output folder.

    Raises:
        InputError: storage is not a local folder, so that a server has to be named.
    """
    if storage.local is None:
        raise InputError(f"--storage {storage.uri} is not a local folder: name an MLflow server with --tracking")
    return f"sqlite:///{storage.local}/mlflow.db"


def open_store(tracking: str, storage: Storage) -> MlflowClient:
    """A client of the store, with our MLflow experiment in it (made if need be; artifacts beside a local database)."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    client = MlflowClient(tracking)
    if client.get_experiment_by_name(EXPERIMENT) is None:
        local = tracking.startswith("sqlite") and storage.local is not None
        place = (storage.local / "mlartifacts").as_uri() if local and storage.local else None
        try:
            client.create_experiment(EXPERIMENT, artifact_location=place)
        except MlflowException:
            if client.get_experiment_by_name(EXPERIMENT) is None:
                raise
    return client


class Publisher:
    """One run's published copy. Nothing it does can fail training: what a server refuses is sent again later."""

    def __init__(self, tracking: str, storage: Storage, run: Run, tags: dict[str, str]) -> None:
        self.tracking, self.storage, self.run, self.tags = tracking, storage, run, tags
        self.client: MlflowClient | None = None
        self.run_id = ""
        self.sent: set[tuple[str, int]] = set()
        self._stop = Event()
        self._thread = Thread(target=self._follow, daemon=True)

    def start(self) -> None:
        """Follow the run's folder in the background."""
        self._thread.start()

    def stop(self, status: str, reason: str | None = None) -> None:
        """Publish what is left and the terminal status (MLflow's FINISHED, FAILED or KILLED)."""
        self._stop.set()
        self._thread.join(timeout=60)
        self._try(lambda: self._finish(status, reason))

    def _follow(self) -> None:
        while not self._stop.wait(POLL_SECONDS if self.client else 0):
            self._try(self.publish)
            if self.client is None and self._stop.wait(POLL_SECONDS):
                return

    def _try(self, action: Any) -> None:
        try:
            action()
        except Exception as error:  # whatever a server or a network does, training goes on
            logger.warning("MLflow at %s: %s", self.tracking, error)

    def publish(self) -> None:
        """Send every point of the newest checkpoint that the store does not have."""
        self._open()
        history = newest_history(self.storage, self.run)
        if history is not None:
            self._send_points(history)

    def _open(self) -> None:
        if self.client is not None:
            return
        client = open_store(self.tracking, self.storage)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        parent = _only_run(client, experiment.experiment_id, "parent_key", self._parent_key(), self._parent_tags())
        tags = self._run_tags() | {"mlflow.parentRunId": parent}
        self.run_id = _only_run(client, experiment.experiment_id, "run_key", self.run.key, tags)
        row = [Param(name, str(value)) for name, value in asdict(self.run.experiment).items()]
        params = [*row, Param("seed", str(self.run.seed)), Param("dataset_id", self.run.dataset_id)]
        client.log_batch(self.run_id, params=params, tags=[RunTag(*item) for item in (tags | self.tags).items()])
        client.update_run(self.run_id, status="RUNNING")
        known = client.get_run(self.run_id).data.metrics
        self.sent = {(name, point.step) for name in known for point in client.get_metric_history(self.run_id, name)}
        self.client = client

    def _send_points(self, history: History) -> None:
        assert self.client is not None
        missing = [point for point in history.points if (point.metric, point.iteration) not in self.sent]
        for start in range(0, len(missing), BATCH):
            part = missing[start : start + BATCH]
            self.client.log_batch(self.run_id, [Metric(p.metric, p.value, p.time_ms, p.iteration) for p in part])
            self.sent |= {(point.metric, point.iteration) for point in part}

    def _finish(self, status: str, reason: str | None) -> None:
        self.publish()
        assert self.client is not None
        tags = {"outcome": status} | ({"reason": reason[:500]} if reason else {})
        history, result = newest_history(self.storage, self.run), read_result(self.storage, self.run)
        if history is not None:
            attempt = history.attempts[-1]
            keys = ("commit", "dirty", "device", "hardware", "threads", "world_size")
            tags |= {key: str(attempt[key]) for key in keys if key in attempt}
            tags |= {"versions": dumps(attempt.get("versions", {}), sort_keys=True)}
            tags |= {"warmup_end": str(history.warmup_end)} if history.warmup_end is not None else {}
        self.client.log_batch(self.run_id, tags=[RunTag(*item) for item in tags.items()])
        if result is not None and not _has_artifact(self.client, self.run_id, "result.json"):
            self._send_files(result["iterations"])
        self.client.set_terminated(self.run_id, "FINISHED" if status == "FINISHED" else "FAILED")

    def _send_files(self, iteration: int) -> None:
        assert self.client is not None
        files = {
            "weights.safetensors": f"{folder(self.run, iteration)}/weights.safetensors",
            "result.json": f"{self.run.folder}/result.json",
        }
        with TemporaryDirectory() as place:
            for name, path in files.items():
                content = self.storage.read_if_there(path)
                if content is not None:
                    (Path(place) / name).write_bytes(content)
                    self.client.log_artifact(self.run_id, str(Path(place) / name))

    def _parent_key(self) -> str:
        return f"{self.run.experiment.fingerprint}-{self.run.dataset_id}"

    def _parent_tags(self) -> dict[str, str]:
        return self._row_tags() | {
            "kind": "experiment",
            "mlflow.runName": f"{self.run.experiment.name} on {self._data()}",
        }

    def _run_tags(self) -> dict[str, str]:
        name = f"{self.run.experiment.name} seed {self.run.seed}"
        return self._row_tags() | {"kind": "run", "mlflow.runName": name, "seed": str(self.run.seed)}

    def _data(self) -> str:
        manifest = read_manifest(self.storage, self.run.dataset_id) or {}
        return str(manifest.get("row", {}).get("name", self.run.dataset_key))

    def _row_tags(self) -> dict[str, str]:
        row, manifest = self.run.experiment, read_manifest(self.storage, self.run.dataset_id) or {}
        plan = layout(row, classes=manifest.get("row", {}).get("classes"))
        return {
            "experiment": row.name,
            "fingerprint": row.fingerprint,
            "artifacts": " ".join(row.artifacts),
            "overrides": dumps(row.deviations(), sort_keys=True),
            "iterations": str(row.iterations),
            "params": str(plan.params),
            "dataset": self._data(),
            "dataset_id": self.run.dataset_id,
            "comparable": str(bool(manifest.get("row", {}).get("comparable"))),
        }


def log_report(tracking: str, storage: Storage, out: Path, study: str) -> None:
    """Keep a report's page, tables and figures as artifacts of one MLflow run, found again by `study`."""
    client = open_store(tracking, storage)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    tags = {"kind": "report", "mlflow.runName": f"report {study}"}
    run_id = _only_run(client, experiment.experiment_id, "report_key", study, tags)
    client.log_artifacts(run_id, str(out), "report")
    client.set_terminated(run_id, "FINISHED")


def _only_run(client: MlflowClient, experiment_id: str, key: str, value: str, tags: dict[str, str]) -> str:
    """The MLflow run whose tag `key` is `value`, made if there is none.

    Two that make it at once both look again and keep the older one.
    """

    def found() -> list[Any]:
        query = f"tags.{key} = '{value}'"
        hits = client.search_runs([experiment_id], query, ViewType.ACTIVE_ONLY, max_results=10)
        return sorted(hits, key=lambda hit: (hit.info.start_time, hit.info.run_id))

    hits = found()
    if hits:
        return str(hits[0].info.run_id)
    made = client.create_run(experiment_id, run_name=tags["mlflow.runName"], tags={**tags, key: value}).info.run_id
    oldest = str(found()[0].info.run_id)
    if oldest != made:
        client.delete_run(made)
    return oldest


def _has_artifact(client: MlflowClient, run_id: str, name: str) -> bool:
    return any(file.path == name for file in client.list_artifacts(run_id))
