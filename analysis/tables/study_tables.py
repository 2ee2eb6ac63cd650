"""The tables of a study's page, each as the report shows it and as the files that lie beside it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from analysis.measured.frames import each
from analysis.studies.studies import Study
from analysis.tables import table_6, tables_2_to_5
from analysis.tables.table_text import to_latex, to_markdown


class CountedCell(NamedTuple):
    """An error that the paper prints of one of its own networks: whether it was run here, and the
    verdict.
    """

    run: bool
    verdict: str


@dataclass(frozen=True, eq=False)
class StudyTable:
    """A table: `raw` numbers, `printed` as text whose `numeric` columns are set flush right, and
    notes.

    `linked` are the printed columns whose cells lead to the runs behind them, `rows` the experiment
    of each printed row.
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
        there = set(study.runs.experiment)
        targets = [f"#runs-{name}" if name in there else "" for name in self.rows]
        return dict.fromkeys(self.linked, targets)

    def files(self, study: Study) -> dict[str, bytes]:
        """The table as CSV, Markdown and LaTeX."""
        heading = f"{self.title}: {study.title}"
        notes = "".join(f"- {note}\n" for note in self.notes)
        return {
            f"{self.name}.csv": self.raw.to_csv(index=False).encode(),
            f"{self.name}.md": f"# {heading}\n\n{to_markdown(self.printed)}\n{notes}".encode(),
            f"{self.name}.tex": to_latex(self.printed, heading, self.numeric).encode(),
        }

    def cells(self) -> Iterator[CountedCell]:
        """The cells that `overview.coverage` counts."""
        if "verdict" in self.raw:
            for row in each(self.raw[(self.raw.experiment != "") & self.raw.paper.notna()]):
                yield CountedCell(row.n > 0, row.verdict)


def study_tables(study: Study) -> list[StudyTable]:
    """Table 6 of a study on small images, Tables 2 to 5 of one on photographs."""
    if study.family == "cifar":
        raw = table_6.table_6(study)
        shown, notes = table_6.printed(raw), table_6.notes(study, raw)
        return [
            StudyTable(
                "table_6",
                "Table 6",
                raw,
                shown,
                table_6.NUMERIC,
                notes,
                ("error (%)",),
                raw.experiment.tolist(),
            )
        ]
    made = []
    for about in tables_2_to_5.TABLES:
        raw = tables_2_to_5.protocol_table(study, about)
        shown = tables_2_to_5.printed(raw)
        rows = raw.experiment[raw.measure == "top1"].tolist()  # a peer's is empty
        notes = tables_2_to_5.notes(study, raw)
        made.append(
            StudyTable(
                f"table_{about.number}",
                f"Table {about.number}",
                raw,
                shown,
                tables_2_to_5.NUMERIC,
                [f"{about.title[0].upper()}{about.title[1:]}.", *notes],
                tuple(name for name in ("top-1 (%)", "top-5 (%)") if name in shown),
                rows,
            )
        )
    fifth = tables_2_to_5.table_5(study)
    rows = [""] * len(fifth)
    return [
        *made,
        StudyTable(
            "table_5",
            "Table 5",
            fifth,
            fifth,
            ("top-5 (%)", "paper, top-5"),
            [tables_2_to_5.ENSEMBLES],
            (),
            rows,
        ),
    ]
