"""Tables 2 to 5 (Sec. 4.1): ImageNet errors by ten crops, by multi-scale testing, and of ensembles,
beside the paper's.

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
    "top-1 (%)", "paper, top-1", "difference, top-1", "top-5 (%)", "paper, top-5", "difference, top-5",
)  # fmt: skip
FIRSTS = (1, 5)
PEER = "a peer: weights made elsewhere by another recipe, evaluated here; no reproduction"


@dataclass(frozen=True)
class TableSpec:
    """What one of the tables is of: its number, the protocol, and its title."""

    number: int
    protocol: str
    title: str


TABLES = (
    TableSpec(2, "ten_crop", "plain and residual networks, ten crops"),
    TableSpec(3, "ten_crop", "single models, ten crops"),
    TableSpec(4, "multi_scale", "single models, fully convolutional at several scales"),
)


def protocol_table(study: Study, about: TableSpec) -> pd.DataFrame:
    """A line a method and measure: n, mean, std, low95, high95 (percent), paper, difference,
    verdict and why.
    """
    measures = measure(study)
    rows, paper_has = [], reported.protocol_table(about.number)
    printed_firsts = [first for first in FIRSTS if paper_has[f"top{first}"].notna().any()]
    for method in each(paper_has):
        runs = measures[(measures.experiment == method.experiment) & (measures.state == MEASURED)]
        for first in printed_firsts:
            values = (
                runs[f"{about.protocol}_{first}"].dropna().tolist() if method.experiment else []
            )
            paper = float(getattr(method, f"top{first}"))
            cell = _cell(study, about, method.experiment, first, values, paper)
            rows.append(
                {
                    "method": method.method,
                    "experiment": method.experiment,
                    "measure": f"top{first}",
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
    return pd.DataFrame([*rows, *_peers(study, about)])


def _peers(study: Study, about: TableSpec) -> list[dict[str, Any]]:
    """A line a measure for weights that were made elsewhere and evaluated here; Table 2 has none."""
    peers = study.evaluations[
        (study.evaluations.kind == "peer") & (study.evaluations.protocol == about.protocol)
    ]
    return [
        {
            "method": peer.name,
            "experiment": "",
            "measure": f"top{first}",
            "n": 1,
            "mean": getattr(peer, f"top{first}_err"),
            "paper": nan,
            "difference": nan,
            "verdict": "not run",
            "why": PEER,
            "comparable": False,
            "paper_note": "",
        }
        for peer in each(peers)
        for first in FIRSTS
        if about.number != 2
    ]


def _cell(
    study: Study, about: TableSpec, experiment: str, first: int, values: list[float], paper: float
) -> Cell:
    reason = "" if study.comparable else study.why_not_comparable
    margin = margin_of(experiment, protocol_err(about.protocol, first))
    return judge_cell(values, paper, margin, level=study.level, not_comparable=reason)


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """A line a method: `mean ± std (n)` beside the paper's number, the difference and the verdict
    of each measure.
    """
    lines = []
    for (method, experiment), both in table.groupby(["method", "experiment"], sort=False):
        line: dict[str, str] = {"method": str(method)}
        for row in each(both):
            name = f"top-{row.measure.removeprefix('top')}"
            line[f"{name} (%)"] = mean_std_n(row.mean, row.std, row.n)
            line[f"paper, {name}"] = f"{row.paper:.2f}" if isfinite(row.paper) else MISSING
            line[f"difference, {name}"] = difference(row)
            line[f"verdict, {name}"] = row.verdict if row.comparable and row.n else MISSING
        ran = both.n.max() > 0
        usual = "" if ran else "not run"
        line["remarks"] = (
            usual if experiment else "peer, evaluated here" if ran else "quoted by the paper"
        )
        lines.append(line)
    return pd.DataFrame(lines)


def notes(study: Study, table: pd.DataFrame) -> list[str]:
    """The notes under a printed table of a study; of each cell that is not reproduced, what is
    known of it.
    """
    lines = [
        "Error of the final network on the validation images in percent: mean ± standard deviation "
        "over seeds (number of "
        "finished runs). Batch-norm statistics are those averaged after training, unless the "
        "recipe's statistics_images is 0.",
    ]
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
    """Table 5 as the paper prints it, top-5 errors in percent on the test server, and the study's
    ensembles below.
    """
    paper = reported.protocol_table(5)
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
    found = study.evaluations[study.evaluations.kind == "ensemble"]
    ours = pd.DataFrame(
        [
            {
                "method": one.name,
                "top-5 (%)": f"{one.top5_err:.2f}",
                "paper, top-5": MISSING,
                "remarks": (
                    f"an ensemble of ours, {one.protocol}, validation images; top-1 "
                    f"{one.top1_err:.2f} %"
                ),
            }
            for one in each(found)
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
