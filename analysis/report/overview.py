"""What a study consists of, in words and counts, and the list of its runs.

Runs by state, hardware, versions and commits, for the head and the foot of the report. No
statistics.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from analysis.measured.frames import each
from analysis.paper import reported
from analysis.studies.run_metrics import MEASURED, NO_RESULT, STATES, measure
from analysis.studies.studies import Study
from analysis.tables.study_tables import CountedCell
from analysis.verdicts.judgement import Judgement
from analysis.verdicts.words import Verdict
from pipeline.stored_json import parse

ALWAYS_SHOWN = (
    Verdict.REPRODUCED,
    Verdict.SUGGESTIVE,
    Verdict.UNDECIDED,
    Verdict.CONTRADICTED,
    Verdict.NOT_RUN,
)
"""The verdicts that a study's head counts, also where there is none of them."""


@dataclass(frozen=True)
class Overview:
    """Counts by state and verdict, and each distinct provenance with the runs behind it."""

    states: dict[str, int]
    verdicts: dict[str, int]
    seeds: str
    dates: str
    hardware: list[str]
    versions: list[str]
    commits: list[str]


def overview(study: Study, judgements: list[Judgement]) -> Overview:
    """The head of a study's page."""
    runs = study.runs
    # Distinct seeds of each row: rows need not have the same number.
    per_row = runs.groupby("experiment").seed.nunique()
    low, high = int(per_row.min()), int(per_row.max())
    seeds = f"{low if low == high else f'{low} to {high}'} seed{'s' * (high > 1)} each"
    seeds += f" ({', '.join(map(str, sorted(set(runs.seed))))})" if high > 1 else ""
    counts = {name: sum(judgement.verdict is name for judgement in judgements) for name in Verdict}
    # Words of circumstances that are not this study's would only distract.
    verdicts = {
        name.value: count for name, count in counts.items() if count or name in ALWAYS_SHOWN
    }
    return Overview(
        states={state: int((measure(study).state == state).sum()) for state in STATES},
        verdicts=verdicts,
        seeds=f"{len(per_row)} experiment{'s' * (len(per_row) > 1)} with {seeds}",
        dates=_dates(runs),
        hardware=_counted([hardware_text(run) for run in each(runs)]),
        versions=_counted([versions_text(text) for text in runs.versions]),
        commits=_counted([commit(run) for run in each(runs)]),
    )


def coverage(cells: list[CountedCell], judgements: list[Judgement]) -> str:
    """How much of what the paper prints was run and reproduced, by cells and by claims."""
    # Of all that the paper prints, not of what was planned: a small reproduction looks small.
    printed = {(cell.experiment, cell.metric) for cell in each(reported.cells())}
    # Tables 2 and 3 share two numbers, and the plain networks below Table 6 stand in no table.
    by_number = {(cell.experiment, cell.metric): cell for cell in cells}
    cells_run = [cell for number, cell in by_number.items() if number in printed and cell.run]
    cells_reproduced = [cell for cell in cells_run if cell.verdict == "reproduced"]
    verdicts = [str(one.verdict) for one in judgements if one.verdict is not Verdict.NOT_RUN]
    return (
        f"{len(cells_reproduced)} cells reproduced of {len(cells_run)} run, "
        f"of {len(printed)} errors that Tables 2 to 6 print of the paper's own networks; "
        f"{verdicts.count('reproduced')} claims reproduced of {len(verdicts)} run, "
        f"of {len(reported.claims())}"
    )


def run_list(study: Study) -> pd.DataFrame:
    """One row per run as text: what it is, how it ended, its final test error, where to find it."""
    run_metrics = measure(study)
    runs = study.runs.assign(state=run_metrics.state, test=run_metrics.test)
    return pd.DataFrame(
        {
            "experiment": runs.experiment,
            "seed": runs.seed.astype(str),
            "status": [status_text(run.status, run.state) for run in each(runs)],
            "final test error (%)": [final_text(run.state, run.test) for run in each(runs)],
            "iterations": [f"{count:,}" for count in runs.iterations],
            "duration": [_duration(run.started_ms, run.ended_ms) for run in each(runs)],
            "commit": [commit(run) for run in each(runs)],
            "MLflow run": runs.mlflow_run_id,
        }
    )


def troubled(study: Study) -> pd.DataFrame:
    """The runs that are in no average, with the reason."""
    run_metrics = measure(study)
    runs = run_metrics[run_metrics.state != MEASURED]
    return pd.DataFrame(
        {
            "experiment": runs.experiment,
            "seed": runs.seed.astype(str),
            "status": [status_text(run.status, run.state) for run in each(runs)],
            "reason": [_because(run) for run in each(runs)],
        }
    )


def commit(run: Any) -> str:
    """The commit of a run, short, with what the commit alone does not say.

    That is uncommitted changes, a drift between two attempts, and batch norm in one pass.
    """
    # A commit alone does not say what was trained if any of these holds.
    marks = {
        "uncommitted changes": run.dirty,
        "drift": pd.notna(run.drift),
        "one pass": run.one_pass,
    }
    return " + ".join(
        [run.commit[:10] or "unknown", *(mark for mark, holds in marks.items() if holds)]
    )


def status_text(status: str, state: str) -> str:
    """How a run ended."""
    return f"{status.lower()}, {NO_RESULT}" if state == NO_RESULT else status.lower()


def _because(run: Any) -> str:
    if run.state == NO_RESULT:
        return "finished without a finite final test error"
    return str(run.reason) if pd.notna(run.reason) else "–"


def final_text(state: str, error: float, unit: str = "") -> str:
    """A run's final error, or that there is none."""
    if state == MEASURED:
        return f"{error:.2f}{unit}"
    return "missing" if state == NO_RESULT else "–"


def _duration(started: Any, ended: Any) -> str:
    if pd.isna(started) or pd.isna(ended):
        return "–"
    # Hours may exceed 24: a run of days is still one duration.
    minutes, seconds = divmod(int(ended - started) // 1000, 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def _dates(runs: pd.DataFrame) -> str:
    # Runs without recorded times do not count.
    moments = pd.concat([runs.started_ms, runs.ended_ms]).dropna()
    if moments.empty:
        return "unknown"
    days = [
        f"{datetime.fromtimestamp(int(ms) / 1000, UTC):%Y-%m-%d}"
        for ms in (moments.min(), moments.max())
    ]
    return " to ".join(dict.fromkeys(days)) + " (UTC)"


def hardware_text(run: Any) -> str:
    """What a run was carried out on."""
    workers = "1 worker" if run.world_size == 1 else f"{run.world_size} workers"
    threads = "1 thread" if run.threads == 1 else f"{run.threads} threads"
    return f"{run.hardware}: {run.device}, {workers}, {threads} each"


def versions_text(text: str) -> str:
    """`python 3.11.9, ray 2.49.0`; text that is no JSON object is shown as it is."""
    try:
        versions = parse(text)
    except ValueError:
        return text
    if not isinstance(versions, dict):
        return text
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


def _counted(texts: list[str]) -> list[str]:
    """Each distinct text; with how many runs it stands for where there are several."""
    # Most studies have one machine and one version: then a count would only distract.
    counts = pd.Series(texts).value_counts().sort_index()
    if len(counts) == 1:
        return [str(counts.index[0])]
    return [f"{text} ({count} run{'s' * (count > 1)})" for text, count in counts.items()]
