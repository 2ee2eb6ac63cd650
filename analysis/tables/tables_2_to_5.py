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
from analysis.studies.run_metrics import DIVERGED_RUN, MEASURED, lost_runs, measure
from analysis.studies.studies import Study
from analysis.tables.table_text import MISSING, difference, mean_std_n
from analysis.verdicts.cells import Cell, PaperNumber, RowRuns, judge_cell, margin_of
from analysis.verdicts.evidence import chance_error
from analysis.verdicts.words import Verdict
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
CELL_RULE = (
    "A cell is reproduced where the interval of (our mean − the paper's), widened by the noise of "
    "the paper's single run, lies within ±0.55 points, with five seeds or more (three or four: "
    "suggestive); contradicted where it lies outside. A diverged run blocks reproduced."
)
"""How a cell is judged, in words; a test holds the number against `paper/margins.csv`."""

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
        for k in printed_k:
            paper = float(getattr(method, f"top{k}"))
            cell = _cell(study, spec, run_metrics, method, k)
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
                    "diverged": cell.diverged,
                    "low": cell.low,
                    "high": cell.high,
                    "margin": cell.margin,
                    "p": cell.p,
                    "p_against": cell.p_against,
                    "power": cell.power,
                    "not_excluded": ", ".join(cell.not_excluded),
                    "verdict": cell.verdict.value,
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
            "diverged": 0,
            "not_excluded": "",
            "verdict": Verdict.NOT_RUN.value,
            "why": PEER,
            "comparable": False,
            "paper_note": "",
        }
        for peer in each(peers)
        for k in TOP_K
        if spec.number != 2
    ]


def _cell(study: Study, spec: TableSpec, run_metrics: pd.DataFrame, method: Any, k: int) -> Cell:
    # A method that the paper only quotes has no experiment, and so no runs.
    runs = run_metrics[run_metrics.experiment == method.experiment]
    tested = runs[runs.state == MEASURED][f"{spec.protocol}_{k}"]
    # A finished run without this test cannot be left out: the others would be a selection.
    untested = f"{tested.isna().sum()} finished without this test" if tested.isna().any() else ""
    lost = [lost_runs(run_metrics, method.experiment), untested]
    table = reported.protocol_table(spec.number)
    others = table[(table.experiment != "") & (table.experiment != method.experiment)]
    numbers = zip(others.method, others[f"top{k}"], strict=True)
    return judge_cell(
        RowRuns(
            tested.dropna().tolist(),
            int((runs.state == DIVERGED_RUN).sum()),
            ", ".join(words for words in lost if words),
            chance_error(run_metrics, f"{spec.protocol}_{k}"),
        ),
        PaperNumber(
            float(getattr(method, f"top{k}")),
            margin_of(method.experiment, protocol_err(spec.protocol, k)),
            neighbours={str(name): float(number) for name, number in numbers if isfinite(number)},
        ),
        level=study.level_of([method.experiment]),
        not_comparable="" if study.comparable else study.why_not_comparable,
    )


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
    if not study.on_papers_data:
        return [*lines, study.where_papers_numbers_are]
    # Without a comparison there is no verdict to explain either.
    if not study.comparable:
        return [*lines, f"Not comparable with the paper: {study.why_not_comparable}."]
    lines.append(CELL_RULE)
    lines += [
        f"{row.method}, top-{row.measure.removeprefix('top')}, is {row.verdict}: {row.why}."
        for row in each(table[table.n + table.diverged > 0])
        if row.verdict not in ("not run", "reproduced") or row.not_excluded
    ]
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
