"""What a study says of each of its rows in a few numbers: for MLflow's table of results.

A row's headline numbers are those that the paper prints of it: the final error of Table 6 and
Figure 6 for small images, the errors of Tables 2 to 4 for photographs. Judged by those tables.
"""

from dataclasses import dataclass
from math import isfinite
from typing import Any

from analysis.measured.frames import each
from analysis.studies.studies import Study
from analysis.tables.study_tables import study_tables
from analysis.tables.tables_2_to_5 import TABLES
from pipeline.recipe.metrics import TEST_ERR, protocol_err

PROTOCOLS = {f"table_{spec.number}": spec.protocol for spec in TABLES}


@dataclass(frozen=True)
class RowResult:
    """A number that the paper prints of a row, and what was measured instead, in percent.

    `metric` is ours (`pipeline.recipe.metrics`), `table` where the paper prints it. `paper` is NaN
    where the paper prints no single number, `printed` what it prints; of a study on other data
    neither is known. `verdict` is empty where the study is not compared with the paper, and `why`
    says the reason.
    """

    experiment: str
    metric: str
    table: str
    n: int
    mean: float
    std: float
    paper: float
    printed: str
    verdict: str
    why: str


def row_results(study: Study) -> list[RowResult]:
    """The results of a study's rows, each number of the paper once, in the paper's order."""
    found: dict[tuple[str, str], RowResult] = {}
    trained = set(study.runs.experiment)
    for table in study_tables(study):
        if "verdict" not in table.raw:  # Table 5 is of ensembles
            continue
        for row in each(table.raw[table.raw.experiment.isin(trained)]):
            result = _result(table.name, table.title, row, study.comparable)
            # Tables 2 and 3 share numbers; some cells the paper leaves empty. Of other data no
            # number of the paper is known here.
            if result.printed or not study.on_papers_data:
                found.setdefault((result.experiment, result.metric), result)
    return list(found.values())


def _result(table: str, title: str, row: Any, comparable: bool) -> RowResult:
    number = f"{row.paper:.2f}" if isfinite(row.paper) else ""
    # The plain networks are no rows of Table 6: their numbers were read off a figure.
    plain = table == "table_6" and row.method == "plain"
    return RowResult(
        experiment=row.experiment,
        metric=_metric(table, row),
        table="Figure 6" if plain else title,
        n=int(row.n),
        mean=float(row.mean),
        std=float(row.std),
        paper=float(row.paper),
        printed=getattr(row, "paper_printed", number),
        verdict=str(row.verdict) if comparable else "",
        why=str(row.why),
    )


def _metric(table: str, row: Any) -> str:
    if table not in PROTOCOLS:
        return TEST_ERR
    return protocol_err(PROTOCOLS[table], int(row.measure.removeprefix("top")))
