"""Two views of our runs that MLflow's UI opens by a link: the learning curves and the results.

A saved view is a tag of the MLflow experiment, which holds the state of the UI's page. That state
is no interface of MLflow's: where another version serves the UI, links carry filters instead.
"""

from base64 import b64decode, b64encode
from itertools import product
from json import dumps
from typing import Any
from urllib.parse import urlencode
from zlib import compress, crc32, decompress

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Experiment

from jobs.tracking.server_check import is_server, server_version
from pipeline.recipe.metrics import TEST_ERR, TRAIN_ERR, protocol_err
from pipeline.stored_json import parse

KNOWN_UI = "3.17."
"""How the versions of MLflow begin whose UI has the state that is written here."""
PREFIX, COMPRESSED = "mlflow.sharedViewState.", "deflate;"
CREATED_MS = 1_764_000_000_000
"""When the views were made: they are the same in every store."""
CURVE = "curve"
"""Tag of a run: the curve, with a band over seeds, that it is one seed of."""
COLOURS = 29
"""How many colours MLflow's UI has for groups of runs."""
TOLD_APART = (1, 5, 28, 7, 3, 8, 9, 24, 4, 0, 15)
"""Those that differ at a glance: coral, blue, light blue, green, purple, yellow, black, pink,
indigo, brown, orange. The rows of Figure 6 come to four that are far apart.
"""
UNSEEN = (" ", "\N{NO-BREAK SPACE}")
"""What a browser does not show at the end of a name."""
VERDICT = "verdict"
"""Tag of a parent: the verdict on the paper's number."""

RUN_NAME, CREATED = "attributes.`Run Name`", "runDateAndNestInfo"
DURATION = "attributes.`Duration`"
"""The columns that the table of runs always has."""
KIND, TRAINING = "mlflow.experimentKind", "custom_model_development"
"""Tag of the MLflow experiment by which the UI shows pages about training, not about agents."""
FACTS = ("mean", "std", "n", "paper")
"""What a parent says of its row's headline number."""
OTHER_MEASURES = (protocol_err("ten_crop", 5), *(protocol_err("multi_scale", k) for k in (1, 5)))
"""What the paper prints of photographs besides."""


def _curves() -> dict[str, Any]:
    """The page of charts: a curve for each row on a dataset, with a band from seed to seed."""
    section = "curves"
    lines = {TEST_ERR: "Test error (%)", TRAIN_ERR: "Training error (%)"}
    return {
        "searchFilter": 'tags.kind = "run"',
        # By anything but the date: MLflow would fetch the parents too, which are no seeds.
        "orderByKey": f"tags.`{CURVE}`",
        "orderByAsc": True,
        "groupBy": {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "tag", "groupByData": CURVE}],
        },
        "useGroupedValuesInCharts": True,
        "runsHiddenMode": "FIRST_20_RUNS",
        "hideEmptyCharts": True,
        "runListHidden": True,
        # Otherwise sections are sorted by name, and ours is to be the first.
        "isAccordionReordered": True,
        "compareRunSections": [
            {"uuid": section, "name": "Learning curves", "display": True, "isReordered": True}
            | {"deleted": False, "isGenerated": False, "columns": 1, "cardHeight": 400}
        ],
        "compareRunCharts": [
            {"uuid": metric, "type": "LINE", "metricSectionId": section, "displayName": title}
            | {"metricKey": metric, "selectedMetricKeys": [metric], "displayPoints": False}
            | {"xAxisKey": "step", "xAxisScaleType": "linear", "scaleType": "linear"}
            | {"selectedXAxisMetricKey": "", "lineSmoothness": 0, "yAxisKey": "metric"}
            | {"yAxisExpressions": [], "range": {}, "ignoreOutliers": False, "deleted": False}
            | {"useGlobalXaxisKey": True, "useGlobalLineSmoothing": True, "isGenerated": False}
            for metric, title in lines.items()
        ],
    }


def _results() -> dict[str, Any]:
    """The table of parents: mean, deviation and number of seeds, the paper's number, verdict."""
    verdict, facts = f"tags.`{VERDICT}`", [f"metrics.`{fact}`" for fact in FACTS]
    others = [f"metrics.`{measure}/{fact}`" for measure in OTHER_MEASURES for fact in FACTS]
    columns = [*facts, verdict, *others]
    return {
        "searchFilter": 'tags.kind = "experiment"',
        "orderByKey": "tags.`mlflow.runName`",
        "orderByAsc": True,
        "groupBy": None,
        "selectedColumns": columns,
        # Narrow, so that all of it is seen beside MLflow's own panels; the date cannot be moved.
        "columnOrder": [RUN_NAME, CREATED, *columns, DURATION],
        "columnWidths": {RUN_NAME: 180, CREATED: 130, verdict: 130}
        | dict.fromkeys(facts, 72)
        | dict.fromkeys(others, 210),
    }


def curve_name(row: str, rank: int) -> str:
    """What the seeds of a row are grouped by: its name, in another colour than its neighbours have.

    `rank` is the row's among those that are trained together. MLflow takes the colour from a
    checksum of the name, by which two of four rows would often look alike, so spaces that nobody
    sees stand behind the name. Another version of the UI may colour it in any other way.
    """
    # What is behind the row's own name is common to the rows of a study, and moves them alike.
    first = crc32(row.partition(" ")[2].encode())
    wanted = TOLD_APART[(first + rank) % len(TOLD_APART)]
    # Eight places have more than enough combinations for every colour.
    for length in range(9):
        for spaces in product(UNSEEN, repeat=length):
            if _colour(name := row + "".join(spaces)) == wanted:
                return name
    return row


def _colour(curve: str) -> int:
    """The colour that MLflow's UI gives to a group of runs: Fletcher's checksum of its name."""
    total = weighted = 0
    for letter in f"tag.{CURVE}.{curve}":
        total = (total + ord(letter)) % 255
        weighted = (weighted + total) % 255
    return (total | weighted << 8) % COLOURS


VIEWS = {"curves": ("Curves", _curves(), "CHART"), "results": ("Results", _results(), "TABLE")}
"""By the id in the link: the view's name, the page's state, and which of its modes it is for."""


def keep_views(client: MlflowClient, experiment: Experiment) -> None:
    """Have the views in our MLflow experiment, as they are here."""
    if KIND not in experiment.tags:
        client.set_experiment_tag(experiment.experiment_id, KIND, TRAINING)
    for key, (name, state, _) in VIEWS.items():
        if _state(experiment.tags.get(PREFIX + key, "")) != state:
            packed = COMPRESSED + b64encode(compress(dumps(state).encode())).decode()
            view = {"name": name, "createdAt": CREATED_MS, "updatedAt": CREATED_MS, "state": packed}
            client.set_experiment_tag(experiment.experiment_id, PREFIX + key, dumps(view))


def _state(tag: str) -> Any:
    """The state that a view's tag holds; None for anything else."""
    try:
        return parse(decompress(b64decode(parse(tag)["state"].removeprefix(COMPRESSED))))
    except Exception:  # whatever a person or another version has put there
        return None


def view_pages(tracking: str, experiment_id: str) -> dict[str, str]:
    """The paths of the views in the UI of a store, by their ids."""
    known = (server_version(tracking) if is_server(tracking) else mlflow.__version__).startswith(
        KNOWN_UI
    )
    return {key: view_page(experiment_id, key, known) for key in VIEWS}


def view_page(experiment_id: str, key: str, known: bool = True) -> str:
    """The path of a view in the UI; where that is not `known`, of the runs that the view is of."""
    _, state, mode = VIEWS[key]
    # Never both: a page that is given a filter does not look for a view.
    facets = {name: state[name] for name in ("searchFilter", "orderByKey")}
    asked = {"viewStateShareKey": key} if known else facets | {"orderByAsc": "true"}
    query = urlencode(asked | {"compareRunsMode": mode, "workflowType": "machine_learning"})
    return f"/#/experiments/{experiment_id}/runs?{query}"
