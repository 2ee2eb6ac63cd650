"""Tables 2 to 5 (Sec. 4.1): ImageNet errors by ten crops, by several scales, and of ensembles.

`protocol_table` is a frame of raw numbers, two measures (top-1 and top-5) a method; `printed` the
same for people. As in Table 6, failed runs are counted and never averaged, and nothing is compared
unless dataset and recipe are the paper's.
"""

from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

import pandas as pd

from analysis.measured.frames import each
from analysis.paper import reported
from analysis.paper.reported import MARGIN
from analysis.stats import confidence, percent
from analysis.studies.run_metrics import MEASURED, measure
from analysis.studies.studies import Study
from analysis.tables.table_text import MISSING, difference, mean_std_n
from analysis.verdicts.cells import Cell, judge_cell, margin_of
from pipeline.recipe.metrics import protocol_err

NUMERIC = (
    "top-1 (%)",
    "paper, top-1",
    "difference, top-1",
    "top-5 (%)",
    "paper, top-5",
    "difference, top-5",
)
"""The columns of a printed table that are set flush right."""

# The two measures of every ImageNet table: an image is wrong if its label is not among the first k.
TOP_K = (1, 5)
PEER = "a peer: weights made elsewhere by another recipe, evaluated here; no reproduction"


@dataclass(frozen=True)
class TableSpec:
    """What one of the tables is of: its number, its protocol, and its title."""

    number: int
    protocol: str
    title: str


TABLES = (
    TableSpec(2, "ten_crop", "plain and residual networks, ten crops"),
    TableSpec(3, "ten_crop", "single models, ten crops"),
    TableSpec(4, "multi_scale", "single models, fully convolutional at several scales"),
)


def protocol_table(study: Study, spec: TableSpec) -> pd.DataFrame:
    """A line a method and measure: what was measured, the paper's number, the verdict."""
    run_metrics = measure(study)
    paper_table = reported.protocol_table(spec.number)
    # Table 2 prints top-1 errors only.
    printed_k = [k for k in TOP_K if paper_table[f"top{k}"].notna().any()]
    rows = []
    # In the paper's order, quoted methods between its own, as it prints them.
    for method in each(paper_table):
        runs = run_metrics[
            (run_metrics.experiment == method.experiment) & (run_metrics.state == MEASURED)
        ]
        for k in printed_k:
            # A method that the paper only quotes has no experiment, and so no runs.
            values = runs[f"{spec.protocol}_{k}"].dropna().tolist() if method.experiment else []
            paper = float(getattr(method, f"top{k}"))
            cell = _cell(study, spec, method.experiment, k, values, paper)
            rows.append(
                {
                    "method": method.method,
                    "experiment": method.experiment,
                    "measure": f"top{k}",
                    "n": cell.n,
                    "mean": cell.mean,
                    "std": cell.std,
                    "low95": cell.low95,
                    "high95": cell.high95,
                    "paper": paper,
                    "difference": cell.difference if study.comparable else nan,
                    "margin": cell.margin,
                    "verdict": cell.verdict,
                    "why": cell.why if method.experiment else "quoted by the paper, not run here",
                    "comparable": bool(method.experiment) and study.comparable,
                    "paper_note": method.note,
                }
            )
    return pd.DataFrame([*rows, *_peers(study, spec)])


def _peers(study: Study, spec: TableSpec) -> list[dict[str, Any]]:
    """A line a measure for weights made elsewhere and evaluated here; Table 2 has none."""
    peers = study.evaluations[
        (study.evaluations.kind == "peer") & (study.evaluations.protocol == spec.protocol)
    ]
    return [
        {
            "method": peer.name,
            "experiment": "",
            "measure": f"top{k}",
            "n": 1,
            "mean": getattr(peer, f"top{k}_err"),
            "paper": nan,
            "difference": nan,
            "verdict": "not run",
            "why": PEER,
            "comparable": False,
            "paper_note": "",
        }
        for peer in each(peers)
        for k in TOP_K
        if spec.number != 2
    ]


def _cell(
    study: Study, spec: TableSpec, experiment: str, k: int, values: list[float], paper: float
) -> Cell:
    reason = "" if study.comparable else study.why_not_comparable
    # Half a point, unless `paper/margins.csv` has another for this row and metric.
    margin = margin_of(experiment, protocol_err(spec.protocol, k))
    return judge_cell(values, paper, margin, level=study.level, not_comparable=reason)


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """A line a method: of each measure the error, the paper's, difference and verdict."""
    lines = []
    # The raw table's two lines of a method, top-1 and top-5, become one.
    for (method, experiment), both in table.groupby(["method", "experiment"], sort=False):
        line: dict[str, str] = {"method": str(method)}
        for row in each(both):
            name = f"top-{row.measure.removeprefix('top')}"
            line[f"{name} (%)"] = mean_std_n(row.mean, row.std, row.n)
            line[f"paper, {name}"] = f"{row.paper:.2f}" if isfinite(row.paper) else MISSING
            line[f"difference, {name}"] = difference(row)
            line[f"verdict, {name}"] = row.verdict if row.comparable and row.n else MISSING
        ran = both.n.max() > 0
        if experiment:
            line["remarks"] = "" if ran else "not run"
        else:
            line["remarks"] = "peer, evaluated here" if ran else "quoted by the paper"
        lines.append(line)
    return pd.DataFrame(lines)


def notes(study: Study, table: pd.DataFrame) -> list[str]:
    """The notes under a printed table, and what is known of each cell that is not reproduced."""
    lines = [
        "Error of the final network on the validation images in percent: mean ± standard deviation "
        "over seeds (number of "
        "finished runs). Batch-norm statistics are those averaged after training, unless the "
        "recipe's statistics_images is 0.",
    ]
    # Without a comparison there is no verdict to explain either.
    if not study.comparable:
        return [*lines, f"Not comparable with the paper: {study.why_not_comparable}."]
    lines.append(
        f"A cell is reproduced where the {percent(confidence(study.level))} interval of (our mean "
        "− the paper's number) lies "
        f"within ±{MARGIN:g} points, contradicted where it lies outside. The paper had one run of "
        "each."
    )
    for row in each(table[table.verdict.isin(["contradicted", "undecided"])]):
        lines.append(
            f"{row.method}, top-{row.measure.removeprefix('top')}, is {row.verdict}: {row.why}."
        )
    return lines


def table_5(study: Study) -> pd.DataFrame:
    """Table 5 as the paper prints it (top-5 errors in percent), and the study's ensembles below.

    The paper's are of the test server, ours of the validation images: they are not compared.
    """
    paper = reported.protocol_table(5)
    # Ours stand below in the same columns, so that nobody reads one for the other.
    theirs = pd.DataFrame(
        {
            "method": paper.method,
            "top-5 (%)": MISSING,
            "paper, top-5": [f"{value:.2f}" for value in paper.top5],
            "remarks": [
                "quoted by the paper" if "quoted" in note else "cannot be run"
                for note in paper.note
            ],
        }
    )
    ensembles = study.evaluations[study.evaluations.kind == "ensemble"]
    ours = pd.DataFrame(
        [
            {
                "method": ensemble.name,
                "top-5 (%)": f"{ensemble.top5_err:.2f}",
                "paper, top-5": MISSING,
                "remarks": (
                    f"an ensemble of ours, {ensemble.protocol}, validation images; top-1 "
                    f"{ensemble.top1_err:.2f} %"
                ),
            }
            for ensemble in each(ensembles)
        ],
        columns=list(theirs.columns),
    )
    return pd.concat([theirs, ours], ignore_index=True)


ENSEMBLES = (
    "The paper's ensemble is of six models, of which it names two (152 layers), on the test "
    "server, which takes no more "
    "submissions: that number cannot be run again. `resnet-repro evaluate --ensemble --keep NAME` "
    "scores any runs together on "
    "the validation images, and they stand here."
)
