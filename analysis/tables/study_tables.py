"""The tables of a study's page, each as the report shows it and as the files that lie beside it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import nan
from typing import NamedTuple

import pandas as pd

from analysis.measured.frames import each
from analysis.studies.studies import Study
from analysis.tables import table_6, tables_2_to_5
from analysis.tables.table_text import MISSING, markdown_text, to_csv, to_latex, to_markdown


class CountedCell(NamedTuple):
    """An error that a table shows of a row: was it run here, and the verdict.

    `metric` is what the paper's tables call it (`reported.cells`).
    """

    experiment: str
    metric: str
    run: bool
    verdict: str


METRICS = {"table_2": "10crop", "table_3": "10crop", "table_4": "multiscale", "table_6": "test"}
"""What stands before the slash in the metrics of a table of the paper."""


@dataclass(frozen=True, eq=False)
class StudyTable:
    """A table of a study's page: `raw` numbers, the same `printed` as text, and notes.

    `numeric` columns are set flush right, the cells of `linked` ones lead to the runs behind them;
    `rows` is the experiment of each printed row.
    """

    name: str
    title: str
    raw: pd.DataFrame
    printed: pd.DataFrame
    numeric: tuple[str, ...]
    notes: list[str]
    linked: tuple[str, ...]
    rows: list[str]

    def links(self, study: Study) -> dict[str, list[str]]:
        """Where each cell of the linked columns leads; empty for a row without runs."""
        with_runs = set(study.runs.experiment)
        targets = [f"#runs-{name}" if name in with_runs else "" for name in self.rows]
        return dict.fromkeys(self.linked, targets)

    def files(self, study: Study) -> dict[str, bytes]:
        """The table as CSV, Markdown and LaTeX."""
        # Each file says by itself of which study it is: it will be sent on without its page.
        heading = f"{self.title}: {study.title}"
        notes = "".join(f"- {markdown_text(note)}\n" for note in self.notes)
        markdown = f"# {markdown_text(heading)}\n\n{to_markdown(self.printed)}\n{notes}"
        return {
            f"{self.name}.csv": to_csv(self.raw),
            f"{self.name}.md": markdown.encode(),
            f"{self.name}.tex": to_latex(self.printed, heading, self.numeric).encode(),
        }

    def cells(self) -> Iterator[CountedCell]:
        """The cells that `overview.coverage` counts."""
        # Table 5 has no verdicts; what the paper quotes of others is no cell of ours.
        if "verdict" in self.raw:
            for row in each(self.raw[self.raw.experiment != ""]):
                # Table 6 has one measure, and no column for it.
                measure = getattr(row, "measure", "top1")
                metric = f"{METRICS[self.name]}/{measure}_err"
                yield CountedCell(row.experiment, metric, row.n > 0, row.verdict)


@lru_cache(maxsize=16)
def study_tables(study: Study) -> list[StudyTable]:
    """Table 6 of a study on small images, Tables 2 to 5 of one on photographs.

    Computed once per study: treat them as read-only.
    """
    if study.family == "cifar":
        tables = [_table_6(study)]
    else:
        protocols = (_protocol_table(study, spec) for spec in tables_2_to_5.TABLES)
        tables = [*protocols, _table_5(study)]
    if not study.on_papers_data:
        tables = [_without_paper(table) for table in tables]
    return [table for table in tables if len(table.printed)]


def _without_paper(table: StudyTable) -> StudyTable:
    """A table of other data, without the paper's numbers and the methods that it quotes."""
    raw, columns = table.raw, [str(name) for name in table.printed]
    errors = [name for name in columns if name.endswith("(%)") and not name.startswith("paper")]
    measured = (table.printed[errors] != MISSING).any(axis=1)
    own = [bool(name) or found for name, found in zip(table.rows, measured, strict=True)]
    # Without a number of the paper there is no verdict on one either.
    without = ("paper", "difference", "verdict")
    printed = table.printed.loc[own, [name for name in columns if not name.startswith(without)]]
    # Table 5 has the same as raw numbers; the others keep their columns, for programs.
    if "experiment" in raw:
        raw = raw[(raw.experiment != "") | (raw.n > 0)].reset_index(drop=True)
        unknown = [str(name) for name in raw if str(name).startswith(("paper", "difference"))]
        raw = raw.assign(**{name: nan if raw[name].dtype == float else "" for name in unknown})
    return replace(
        table,
        raw=raw if "experiment" in raw else printed,
        printed=printed,
        rows=[name for name, kept in zip(table.rows, own, strict=True) if kept],
    )


def _table_6(study: Study) -> StudyTable:
    raw = table_6.table_6(study)
    return StudyTable(
        name="table_6",
        title="Table 6",
        raw=raw,
        printed=table_6.printed(raw),
        numeric=table_6.NUMERIC,
        notes=table_6.notes(study, raw),
        linked=("error (%)",),
        rows=raw.experiment.tolist(),
    )


def _protocol_table(study: Study, spec: tables_2_to_5.TableSpec) -> StudyTable:
    raw = tables_2_to_5.protocol_table(study, spec)
    printed = tables_2_to_5.printed(raw)
    title = f"{spec.title[0].upper()}{spec.title[1:]}."
    return StudyTable(
        name=f"table_{spec.number}",
        title=f"Table {spec.number}",
        raw=raw,
        printed=printed,
        numeric=tables_2_to_5.NUMERIC,
        notes=[title, *tables_2_to_5.notes(study, raw)],
        # Table 2 has no top-5 column.
        linked=tuple(name for name in ("top-1 (%)", "top-5 (%)") if name in printed),
        # A printed row is a method, which the raw table has a line a measure of. A peer's
        # experiment is empty, so its cells lead nowhere.
        rows=raw.experiment[raw.measure == "top1"].tolist(),
    )


def _table_5(study: Study) -> StudyTable:
    table = tables_2_to_5.table_5(study)
    return StudyTable(
        name="table_5",
        title="Table 5",
        raw=table,
        printed=table,
        numeric=("top-5 (%)", "paper, top-5"),
        notes=[tables_2_to_5.ENSEMBLES],
        linked=(),
        rows=[""] * len(table),
    )
