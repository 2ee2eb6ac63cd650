"""The page of a sweep: its table as text, its figure and its runs, apart from the reproduction.

Nothing here is compared with the paper or judged as a claim, and the page says so.
"""

from base64 import b64encode
from typing import Any

import pandas as pd

from analysis.figures import style
from analysis.figures.sweep_figure import sweep_figure
from analysis.measured.frames import each
from analysis.paper.ledger import LEDGER, LEDGER_SWITCHES
from analysis.report.artifact_provenance import artifact_provenance
from analysis.report.overview import overview, run_list, troubled
from analysis.report.pages import INDEX, render
from analysis.studies.sweeps import AS_IT_IS, MeasuredSweep, sweep_table
from analysis.tables.table_text import MISSING, markdown_text, mean_std_n, to_csv, to_markdown


def sweep_files(sweep: MeasuredSweep) -> dict[str, bytes]:
    """The files of one sweep."""
    images = style.images({"sweep": sweep_figure(sweep)})
    table = printed(sweep)
    page = render(
        "sweep.html.j2",
        sweep=sweep,
        study=sweep.study,
        overview=overview(sweep.study, []),
        table=table,
        picture=b64encode(images["sweep.svg"]).decode(),
        runs=runs_shown(sweep),
        troubled=troubled(sweep.study),
    )
    return {
        "sweep.csv": to_csv(sweep_table(sweep)),
        "sweep.md": f"# {markdown_text(sweep.title)}\n\n{to_markdown(table)}".encode(),
        **images,
        "sweep.origin.json": artifact_provenance(sweep.study, set(sweep.study.runs.experiment)),
        INDEX: page,
    }


def printed(sweep: MeasuredSweep) -> pd.DataFrame:
    """The table as text; the ledger's with the two readings of each switch."""
    table = sweep_table(sweep)
    shown = pd.DataFrame(
        {
            "experiment": table.experiment,
            "change": [
                f"{row.change} (no change)" if _by_value(row) else row.change for row in each(table)
            ],
            "error (%)": [_mean_std_n(row) for row in each(table)],
            "best": [f"{row.best:.2f}" if row.n else MISSING for row in each(table)],
            "worth": [_worth(row) for row in each(table)],
        }
    )
    if sweep.name == LEDGER:
        # By field, not by value: a schedule in proportion has other numbers than the switch names.
        readings = {
            (switch.experiment, switch.setting.partition("=")[0]): switch
            for switch in LEDGER_SWITCHES
        }
        switches = [
            readings.get((row.experiment, row.change.partition("=")[0])) for row in each(table)
        ]
        shown["here"] = [switch.papers_reading if switch else "" for switch in switches]
        shown["elsewhere"] = [switch.other_reading if switch else "" for switch in switches]
    return shown


def runs_shown(sweep: MeasuredSweep) -> pd.DataFrame:
    """The list of a sweep's runs, with the change of each."""
    # Runs know their fingerprint; which change that is, only the sweep's cells know.
    changes = dict(zip(sweep.cells.fingerprint, sweep.cells.change, strict=True))
    listed = run_list(sweep.study)
    listed.insert(
        1,
        "change",
        [changes[fingerprint] or AS_IT_IS for fingerprint in sweep.study.runs.fingerprint],
    )
    return listed


def _by_value(row: Any) -> bool:
    # A cell that names a value which is the row's own anyway, such as `lr=0.1`.
    return bool(row.unchanged) and row.change != AS_IT_IS


def _mean_std_n(row: Any) -> str:
    missing = f", {row.unmeasured} without a result" if row.unmeasured else ""
    return mean_std_n(row.mean, row.std, row.n) + missing


def _worth(row: Any) -> str:
    """The difference to the unchanged row in points, with its interval where there is one."""
    if pd.isna(row.difference):
        return MISSING
    interval = f" ({row.low:+.2f} to {row.high:+.2f})" if pd.notna(row.low) else ""
    return f"{row.difference:+.2f}{interval}".replace("-", "−")
