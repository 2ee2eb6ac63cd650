"""Table 6 (Sec. 4.2): the paper's rows with what was measured beside them, plain nets below.

`table_6` is a frame of raw numbers, `printed` the same rounded for people. Runs that failed or did
not finish are counted and never averaged; nothing is compared with the paper unless it is the same
dataset and recipe.
"""

from dataclasses import dataclass
from math import nan
from typing import Any

import pandas as pd

from analysis.measured.frames import each
from analysis.paper import reported
from analysis.studies.run_metrics import (
    DIVERGED_RUN,
    FAILED_RUN,
    MEASURED,
    NO_RESULT,
    UNFINISHED_RUN,
    lost_runs,
    measure,
)
from analysis.studies.studies import Study
from analysis.tables.table_text import MISSING, difference, mean_std_n
from analysis.verdicts.cells import PaperNumber, RowRuns, judge_cell, margin_of
from analysis.verdicts.evidence import chance_error
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.layers import layout
from pipeline.recipe.metrics import TEST_ERR

# Figure 6 shows all of them but the last, whose error "is higher than 60% and not displayed".
PLAIN = ("plain20", "plain32", "plain44", "plain56", "plain110")
DIGITISED = "digitised from Figure 6, ±0.05 points"
PLAIN_110 = "the paper gives no number, only > 60 %"

CELL_RULE = (
    "A cell is reproduced where the interval of (our mean − the paper's), widened by the noise of "
    "the runs that the paper's number is of, lies within the row's margin, with five seeds or "
    "more (three or four: suggestive); contradicted where it lies outside. A diverged run blocks "
    "reproduced. Margins: ±0.55 points; ±0.6 for plain networks, whose numbers are digitised; "
    "±0.3 for ResNet-110, of which the paper had five runs."
)
"""How a cell is judged, in words; a test holds the numbers against `paper/margins.csv`."""

NUMERIC = ("layers", "params", "error (%)", "95 % interval", "min–max", "paper (%)", "difference")
"""The columns of the printed table that are set flush right."""


@dataclass(frozen=True)
class Reference:
    """What the paper says about a row; `number` (percent, NaN if it gives none) is compared."""

    method: str
    layers: int | None
    experiment: str
    params: str
    number: float
    printed: str
    note: str
    runs: int = 1
    std: float = nan

    @property
    def name(self) -> str:
        """`ResNet-20`."""
        return f"{self.method}-{self.layers}"


def table_6(study: Study) -> pd.DataFrame:
    """Table 6 of a study as raw numbers: errors in percent, `std` with n - 1, counts of runs.

    `difference` is mean - paper in points, and NaN where the two are not comparable; `reason` then
    says why.
    """
    # A row of the paper that was not run stays in the table: what is missing is a result too.
    run_metrics = measure(study)
    return pd.DataFrame([_row(reference, study, run_metrics) for reference in references()]).astype(
        {"layers": "Int64"}
    )


def references() -> list[Reference]:
    """The paper's side of the table: its rows in order, then the plain networks of Figure 6."""
    table = [
        Reference(
            method=row.method,
            layers=row.layers,
            experiment=row.experiment,
            params=row.params,
            number=row.reference,
            printed=row.printed,
            note=row.note,
            runs=row.runs,
            std=row.std,
        )
        for row in reported.table_6()
    ]
    # Table 6 has no plain networks: their reference is the end of a digitised curve.
    return table + [_plain_reference(name) for name in PLAIN]


def _plain_reference(name: str) -> Reference:
    final = reported.plain_final(name)
    text, note = (f"{final:.2f}", DIGITISED) if final == final else ("> 60", PLAIN_110)
    return Reference("plain", EXPERIMENTS[name].depth, name, "", final, text, note)


def _row(reference: Reference, study: Study, run_metrics: pd.DataFrame) -> dict[str, object]:
    runs = run_metrics[run_metrics.experiment == reference.experiment]
    # Only finished runs with a final error are averaged; the others are counted beside.
    measured = runs[runs.state == MEASURED]
    states = runs.state.value_counts()
    reason = _reason(reference, study, len(measured))
    cell = judge_cell(
        RowRuns(
            measured.test.tolist(),
            int(states.get(DIVERGED_RUN, 0)),
            lost_runs(run_metrics, reference.experiment),
            chance_error(run_metrics, "test"),
        ),
        PaperNumber(
            reference.number,
            margin_of(reference.experiment, TEST_ERR),
            reference.runs,
            reference.std,
            _neighbours(reference),
        ),
        level=study.level_of([reference.experiment]),
        not_comparable="" if study.comparable else study.why_not_comparable,
    )
    return {
        "method": reference.method,
        "layers": reference.layers,
        "experiment": reference.experiment,
        # The runs' own count, not the paper's: the table is of what was trained.
        "params": float(runs.params.iloc[0]) if len(runs) else nan,
        "n": cell.n,
        "mean": cell.mean,
        "std": cell.std,
        "low95": cell.low95,
        "high95": cell.high95,
        "best": cell.best,
        "worst": cell.worst,
        "diverged": cell.diverged,
        "failed": int(states.get(FAILED_RUN, 0)),
        "unfinished": int(states.get(UNFINISHED_RUN, 0)),
        "no_final_error": int(states.get(NO_RESULT, 0)),
        "paper": reference.number,
        "paper_printed": reference.printed,
        "paper_params": reference.params,
        "paper_note": reference.note,
        # Empty wherever it would not mean anything: `reason` and `comparable` say why.
        "difference": nan if reason else cell.difference,
        "low": cell.low,
        "high": cell.high,
        "margin": cell.margin,
        "p": cell.p,
        "p_against": cell.p_against,
        "power": cell.power,
        "not_excluded": ", ".join(cell.not_excluded),
        "verdict": cell.verdict.value,
        "why": cell.why if reference.experiment else reason,
        "comparable": bool(reference.experiment) and study.comparable,
        "reason": reason,
    }


def _neighbours(reference: Reference) -> dict[str, float]:
    """The numbers of the paper's other networks of the same kind, plain or residual."""
    return {
        other.name: other.number
        for other in references()
        if other.experiment
        and other.method == reference.method
        and other.experiment != reference.experiment
    }


def _reason(reference: Reference, study: Study, n: int) -> str:
    """Why there is no difference to show; empty if there is one."""
    if not reference.experiment:
        return "quoted by the paper, not run here"
    if n == 0:
        return "no finished run"
    if not study.comparable:
        return f"not comparable: {study.why_not_comparable}"
    return PLAIN_110 if reference.number != reference.number else ""


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text: `mean ± std (n)` with two decimals as in the paper, and remarks."""
    return pd.DataFrame(
        {
            "method": table.method,
            "layers": [MISSING if pd.isna(layers) else str(layers) for layers in table.layers],
            "params": [_params(row) for row in each(table)],
            "error (%)": [mean_std_n(row.mean, row.std, row.n) for row in each(table)],
            "95 % interval": [_interval(row.low95, row.high95) for row in each(table)],
            # Of a single run it would say the error twice.
            "min–max": [
                _interval(row.best, row.worst) if row.n > 1 else MISSING for row in each(table)
            ],
            "paper (%)": table.paper_printed
            + table.paper_note.map(lambda note: "†" if note == DIGITISED else ""),
            "difference": [difference(row) for row in each(table)],
            "verdict": [_verdict(row) for row in each(table)],
            "remarks": [_remarks(row) for row in each(table)],
        }
    )


def _interval(low: float, high: float) -> str:
    return MISSING if pd.isna(low) else f"{low:.2f}–{high:.2f}"


def _verdict(row: Any) -> str:
    return row.verdict if row.n and row.comparable else MISSING


def _params(row: Any) -> str:
    """As the paper rounds it: the runs' count, or that of the row, or what the paper quotes."""
    if not row.experiment:
        return row.paper_params or MISSING
    ran = pd.notna(row.params)
    count = row.params if ran else layout(EXPERIMENTS[row.experiment]).params
    return f"{count / 1e6:.2f}M" if count < 1e6 else f"{count / 1e6:.1f}M"


def _remarks(row: Any) -> str:
    if not row.experiment:
        return "quoted by the paper"
    counts = {
        "diverged": row.diverged,
        "failed": row.failed,
        "unfinished": row.unfinished,
        "finished without a final error": row.no_final_error,
    }
    words = [f"{count} {what}" for what, count in counts.items() if count]
    return ", ".join(words or ([] if row.n else ["not run"]))


def notes(study: Study, table: pd.DataFrame) -> list[str]:
    """The notes under the printed table, and what is known of each cell that is not reproduced."""
    # What the columns are, and where the paper's number is not one run's final error.
    lines = [
        "Test error of the final iterate in percent: mean ± standard deviation over seeds (number "
        "of finished runs), the "
        "95 % interval of the mean, and the lowest and highest seed. Diverged, failed and "
        "unfinished runs are counted, not averaged.",
    ]
    if not study.on_papers_data:
        return [*lines, study.where_papers_numbers_are]
    lines += [
        "The paper's column is Table 6 as printed; ResNet-110 there is the best of five runs "
        "(mean±std), and the "
        "difference is taken to its mean, elsewhere to the single number.",
        f"† The paper shows plain networks only as curves: {DIGITISED}, last iteration. Of "
        "plain-110 it says > 60 %.",
    ]
    if study.comparable:
        lines.append(CELL_RULE)
        # A verdict other than a plain "reproduced" gets its interval in words.
        lines += [
            f"{row.method}-{row.layers} is {row.verdict}: {row.why}."
            for row in each(table[table.n + table.diverged > 0])
            if row.verdict not in ("not run", "reproduced") or row.not_excluded
        ]
    else:
        lines.append(f"Not comparable with the paper: {study.why_not_comparable}.")
    return lines
