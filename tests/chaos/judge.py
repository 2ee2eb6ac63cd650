"""Whether a run came through: what it should have measured, what MLflow has of it, and its last
bytes, compared.
"""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

from pipeline.recipe.metrics import IMAGES_PER_SECOND
from pipeline.recipe.schedule import expected_points
from pipeline.runs.checkpoint import newest_checkpoint
from pipeline.runs.history import History
from pipeline.runs.run import Run, read_result
from pipeline.storage import Storage

Values = dict[tuple[str, int], float]


@dataclass(frozen=True)
class Verdict:
    """`lost` and `doubled` count points of the expected set in MLflow; `equal` is about bytes and
    measured values.
    """

    survived: bool
    lost: int
    doubled: int
    equal: bool

    @property
    def good(self) -> bool:
        return self.survived and self.equal and not self.lost and not self.doubled


def judge(
    storage: Storage, reference: Storage, run: Run, server: str, ended: int | None
) -> Verdict:
    """Compare a run with the one that was never disturbed; `ended` is its command's exit code."""
    result = read_result(storage, run)
    published = runs_of(server, run.key)
    finished = [found for found in published if found["info"]["status"] == "FINISHED"]
    points = [point for found in published for point in points_of(server, found)]
    return Verdict(
        survived=ended == 0
        and result is not None
        and result["status"] == "finished"
        and len(finished) == 1,
        lost=lost(run, points),
        doubled=doubled(run, points) + max(0, len(published) - 1),
        equal=same_bytes(storage, reference, run)
        and same_values(dict(_measured(reference, run)), points),
    )


def lost(run: Run, points: list[tuple[str, int, float]]) -> int:
    """Points that the row asks for and that are not there."""
    return len(expected_points(run.experiment) - {(name, step) for name, step, _ in points})


def doubled(run: Run, points: list[tuple[str, int, float]]) -> int:
    """Points that are there more than once, or that the row does not ask for."""
    counted = Counter((name, step) for name, step, _ in points)
    return sum(count - 1 for count in counted.values()) + len(
        counted.keys() - expected_points(run.experiment)
    )


def same_bytes(storage: Storage, reference: Storage, run: Run) -> bool:
    """Whether the last weights (with batch norm's statistics) and momentum are equal."""
    mine, whole = newest_checkpoint(storage, run), newest_checkpoint(reference, run)
    if mine is None or whole is None or mine.iteration != whole.iteration:
        return False
    return all(
        mine.files[name] == whole.files[name]
        for name in ("weights.safetensors", "momentum.safetensors")
    )


def same_values(whole: Values, points: list[tuple[str, int, float]]) -> bool:
    """Whether every value that MLflow has is the undisturbed run's."""
    return all(
        whole.get((name, step)) == value
        for name, step, value in points
        if name != IMAGES_PER_SECOND
    )


def _measured(storage: Storage, run: Run) -> list[tuple[tuple[str, int], float]]:
    newest = newest_checkpoint(storage, run)
    points = History.from_json(newest.files["history.json"]).points if newest else []
    return [((point.metric, point.iteration), point.value) for point in points]


def runs_of(server: str, key: str) -> list[dict[str, Any]]:
    """The MLflow runs with a run key, by the REST API."""
    experiment = _ask(server, "experiments/get-by-name?experiment_name=resnet-repro")["experiment"][
        "experiment_id"
    ]
    query = {
        "experiment_ids": [experiment],
        "filter": f"tags.run_key = '{key}'",
        "max_results": 100,
    }
    return list(_ask(server, "runs/search", query).get("runs", []))


def points_of(server: str, found: dict[str, Any]) -> list[tuple[str, int, float]]:
    """Every point of an MLflow run: (metric, iteration, value), as often as it is there."""
    points = []
    for metric in found["data"].get("metrics", []):
        token = ""
        while True:
            about = f"run_id={found['info']['run_id']}&metric_key={quote(metric['key'])}"
            query = f"metrics/get-history?{about}&max_results=1000"
            page = _ask(server, query + (f"&page_token={quote(token)}" if token else ""))
            points += [
                (metric["key"], int(p["step"]), float(p["value"])) for p in page.get("metrics", [])
            ]
            token = page.get("next_page_token", "")
            if not token:
                break
    return points


def _ask(server: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = Request(f"{server}/api/2.0/mlflow/{path}", data, {"Content-Type": "application/json"})
    with urlopen(request, timeout=30) as answer:
        return dict(json.load(answer))
