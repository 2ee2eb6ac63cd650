"""A page per run: its curves, its recipe beside the paper's, its last numbers, and its origin.

Curves are drawn as plain SVG elements of the page: a report has hundreds of them.
"""

from dataclasses import asdict
from math import isfinite
from typing import Any

import pandas as pd

from analysis.measured.frames import each
from analysis.report.overview import commit, final_text, hardware_text, status_text, versions_text
from analysis.report.pages import render
from analysis.studies.run_metrics import MEASURED, measure
from analysis.studies.studies import Study
from analysis.tables.cost import ENERGY, RATE, SECONDS
from analysis.tables.table_text import amount
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.metrics import METRICS, TEST_ERR, TRAIN_ERR
from pipeline.recipe.overrides import recipe_of, value_text
from pipeline.stored_json import parse

FOLDER = "runs"
WIDTH, HEIGHT = 640, 280
LEFT, BOTTOM, TOP, RIGHT = 60, 50, 10, 34
STEPS = (1, 2, 5, 10, 20, 50, 100)


def page_of(experiment: str, seed: int) -> str:
    """Where a run's page lies in its study's folder."""
    return f"{FOLDER}/{experiment}-seed-{seed}.html"


def run_pages(study: Study) -> dict[str, bytes]:
    """The page of each run of a study, by its place in the study's folder."""
    points = {str(run_id): frame for run_id, frame in study.metrics.groupby("run_id")}
    run_metrics = measure(study).set_index("run_id")
    no_points = study.metrics.iloc[:0]
    runs = list(each(study.runs))
    return {
        page_of(run.experiment, run.seed): _page(
            study,
            run,
            points.get(run.run_id, no_points),
            run_metrics.loc[run.run_id],
            _link(previous),
            _link(following),
        )
        for previous, run, following in zip([None, *runs], runs, [*runs[1:], None], strict=False)
    }


def _link(run: Any) -> dict[str, str] | None:
    """A neighbour in the list of runs, as a page beside its own; None at either end."""
    if run is None:
        return None
    return {"page": page_of(run.experiment, run.seed).rpartition("/")[2], "title": _title(run)}


def _title(run: Any) -> str:
    return f"{run.experiment}, seed {run.seed}"


def _page(
    study: Study,
    run: Any,
    points: pd.DataFrame,
    measured: Any,
    previous: dict[str, str] | None,
    following: dict[str, str] | None,
) -> bytes:
    # The last value of each metric, at whatever iteration it was measured.
    newest = points.sort_values("iteration").groupby("metric").tail(1).set_index("metric")
    facts = {
        "Status": status_text(run.status, measured.state)
        + (f": {run.reason}" if pd.notna(run.reason) else ""),
        "Final test error": final_text(measured.state, measured.test, unit=" %"),
        "Dataset": f"{run.dataset} {run.dataset_id}",
        "Run": run.run_id,
        "Commit": commit(run),
        "Drift": run.drift if pd.notna(run.drift) else "",
        "Batch norm": "all groups of a worker in one pass" if run.one_pass else "",
        "Hardware": hardware_text(run),
        "Cost": _cost(measured),
        "Versions": versions_text(run.versions),
        "MLflow run": run.mlflow_run_id,
    }
    units = {name: metric.unit.removeprefix("1") for name, metric in METRICS.items()}
    last = [
        {
            "metric": name,
            "value": f"{amount(newest.value[name], 4)} {units[name]}".strip(),
            "at": f"{newest.iteration[name]:,}",
            "meaning": METRICS[name].meaning,
        }
        for name in METRICS
        if name in newest.index
    ]
    return render(
        "run.html.j2",
        title=_title(run),
        headline=_headline(measured, run),
        previous=previous,
        following=following,
        study=study,
        facts={name: text for name, text in facts.items() if text},
        mlflow_url=run.mlflow_url if pd.notna(run.mlflow_url) else "",
        recipe=_recipe(run),
        last=pd.DataFrame(last, columns=["metric", "value", "at", "meaning"]),
        curves=_curves(points, run.iterations, _drops(run)),
    )


def _recipe(run: Any) -> list[dict[str, str]]:
    """Each field of the row: its value, and the paper's where that is another."""
    paper = EXPERIMENTS.get(run.experiment)
    changed = parse(run.overrides)
    # A row that is not the paper's has no other values to stand beside.
    if paper is None:
        return [
            {"field": name, "value": value_text(value), "paper": ""}
            for name, value in sorted(changed.items())
        ]
    of_paper = asdict(paper)
    changed = {name: value for name, value in changed.items() if name in of_paper}
    rows = [
        {
            "field": name,
            "value": value_text(value),
            "paper": value_text(of_paper[name]) if name in changed else "",
        }
        for name, value in (recipe_of(of_paper | changed) | changed).items()
    ]
    # What makes it another recipe than the paper's comes first.
    return sorted(rows, key=lambda row: not row["paper"])


def _headline(measured: Any, run: Any) -> str:
    """The run's result in one sentence; empty where it has none."""
    if measured.state != MEASURED:
        return ""
    return f"{measured.test:.2f} % test error after {run.iterations:,} iterations."


def _cost(measured: Any) -> str:
    """What the run cost, and how fast it trained; empty where it recorded no cost."""
    if pd.isna(measured.device_seconds):
        return ""
    known = {
        SECONDS: measured.device_seconds,
        ENERGY: measured.joules,
        RATE: measured.images_per_second,
    }
    return ", ".join(f"{amount(value)} {name}" for name, value in known.items() if pd.notna(value))


def _drops(run: Any) -> list[int]:
    """The iterations at which the learning rate drops; none of a row that is not known."""
    paper = EXPERIMENTS.get(run.experiment)
    drops = parse(run.overrides).get("lr_drops", paper.lr_drops if paper else ())
    known = isinstance(drops, list | tuple)
    return [at for at in drops if isinstance(at, int) and 0 < at < run.iterations] if known else []


def _curves(points: pd.DataFrame, iterations: int, drops: list[int]) -> dict[str, Any]:
    """Test and running training error as polylines with an axis; no `lines` without any point."""
    series = {}
    for name in (TEST_ERR, TRAIN_ERR):
        chosen = points[points.metric == name].sort_values("iteration")
        series[name] = [
            (iteration, value)
            for iteration, value in zip(chosen.iteration, chosen.value, strict=True)
            if isfinite(value)
        ]
    values = [value for line in series.values() for _, value in line]
    if not values:
        return {"lines": []}
    # At most five steps of a round size up to the highest error.
    step = next((step for step in STEPS if max(values) <= 5 * step), STEPS[-1])
    top = step * max(1, -(-max(values) // step))

    # Rounded to a tenth of a pixel: the page of a long run stays small.
    def x(iteration: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * iteration / iterations, 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * value / top, 1)

    # Both axes start at zero, and the y-axis ends at a tick.
    ticks = range(0, int(top) + 1, step)
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "lines": [
            {
                "name": name,
                "dashed": name == TRAIN_ERR,
                "points": " ".join(f"{x(iteration)},{y(value)}" for iteration, value in line),
            }
            for name, line in series.items()
            if line
        ],
        "ys": [{"at": y(tick), "text": str(tick)} for tick in ticks],
        "xs": [
            {"at": x(iterations * quarter / 4), "text": f"{iterations * quarter // 4:,}"}
            for quarter in range(5)
        ],
        "drops": [{"at": x(drop), "text": f"{drop:,}"} for drop in drops],
        "top": TOP,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "bottom": HEIGHT - BOTTOM,
    }
