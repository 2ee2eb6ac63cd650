"""The links to our views: where the UI is another one they lead to filters instead."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import mlflow
import pytest

from analysis.measured.tags import EXPERIMENT
from jobs.tracking.store import open_store
from jobs.tracking.views import (
    KIND,
    KNOWN_UI,
    PREFIX,
    TRAINING,
    VIEWS,
    _colour,
    curve_name,
    view_pages,
)
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.storage import Storage

VERSIONS = {"known": f"{KNOWN_UI}0", "older": "2.14.1", "newer": "3.18.0", "silent": ""}


@pytest.fixture
def server() -> Iterator[str]:
    """A server that says which version of MLflow it is: the first part of its path."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            version = VERSIONS[self.path.split("/")[1]]
            self.send_response(200 if version else 404)
            self.end_headers()
            self.wfile.write(version.encode())

        def log_message(self, *_: object) -> None: ...

    answers = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    Thread(target=answers.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{answers.server_address[1]}"
    answers.shutdown()
    answers.server_close()


def query(page: str) -> dict[str, list[str]]:
    path = urlsplit(page).fragment
    assert path.startswith("/experiments/7/runs?")
    return parse_qs(path.partition("?")[2])


def test_a_link_opens_a_view_or_else_its_filter(server: str) -> None:
    assert mlflow.__version__.startswith(KNOWN_UI)  # else look at the UI, and at `views`
    for key, (_, state, mode) in VIEWS.items():
        for store in ("sqlite:///file.db", f"{server}/known"):
            opened = query(view_pages(store, "7")[key])
            assert (opened["viewStateShareKey"], opened["compareRunsMode"]) == ([key], [mode])
            assert "searchFilter" not in opened  # with one MLflow looks for no view
        for version in ("older", "newer", "silent"):
            filtered = query(view_pages(f"{server}/{version}", "7")[key])
            assert filtered["searchFilter"] == [state["searchFilter"]]
            assert "viewStateShareKey" not in filtered and filtered["compareRunsMode"] == [mode]


@pytest.mark.parametrize("study", ["cifar10", "cifar10-jpeg (precision=bf16)", "digits (240 it"])
def test_no_two_curves_of_figure_6_have_one_colour(study: str) -> None:
    rows = [name for name, row in EXPERIMENTS.items() if "figure_6" in row.artifacts]
    names = [curve_name(f"{row} on {study}", rank) for rank, row in enumerate(rows)]
    assert len({_colour(name) for name in names}) == len(names) == 11
    assert [name.rstrip() for name in names] == [f"{row} on {study}" for row in rows]


def test_the_views_are_there_and_come_back_after_they_were_changed(storage: Storage) -> None:
    store = f"sqlite:///{storage.uri}/ml.db"
    client = open_store(store, storage)

    def kept() -> dict[str, str]:
        experiment = client.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        return {key: experiment.tags[PREFIX + key] for key in VIEWS}

    first = kept()
    assert [json.loads(view)["name"] for view in first.values()] == ["Curves", "Results"]
    note = client.get_experiment("1").tags["mlflow.note.content"]
    assert note.startswith("[Curves](#/experiments/1/runs?viewStateShareKey=curves")
    # What Postgres keeps of an experiment's tag.
    assert all(len(view) <= 5000 for view in first.values())
    client.set_experiment_tag("1", f"{PREFIX}curves", "not a view")
    client.delete_experiment_tag("1", f"{PREFIX}results")
    open_store(store, storage)
    assert kept() == first
    # Pages about training, not about agents.
    assert client.get_experiment("1").tags[KIND] == TRAINING
