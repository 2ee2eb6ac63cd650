"""The page across studies: the paper, ours where it is comparable, and what others published.

Only runs on the paper's own data by its own recipe stand here. Nothing is judged: others' numbers
are of other recipes, mostly of single runs, and say so.
"""

import pandas as pd

from analysis.measured.frames import each
from analysis.paper import reported
from analysis.report.pages import render
from analysis.studies.studies import Study
from analysis.tables.cost import measured_costs
from analysis.tables.study_tables import METRICS, study_tables
from analysis.tables.table_6 import references
from analysis.tables.table_text import MISSING, amount, mean_std_n

REIMPLEMENTATIONS = "reimplementations.html"

OURS = "ours (%)"
PAPER = "paper (%)"
HOURS = "ours (GPU hours a run)"


def reimplementation_files(studies: list[Study]) -> dict[str, bytes]:
    """The page, of the comparable ones among the studies."""
    comparable = [study for study in studies if study.comparable]
    tables = [
        ("cifar", "CIFAR-10: test error", _table(_paper_cifar(), "test/top1_err", comparable)),
        (
            "imagenet",
            "ImageNet: top-1 error by ten crops",
            _table(_paper_imagenet(), "10crop/top1_err", comparable),
        ),
    ]
    return {
        REIMPLEMENTATIONS: render(
            "reimplementations.html.j2",
            tables=[(name, title, table, _origins(table)) for name, title, table in tables],
            measured=[study.title for study in comparable],
            hours=HOURS,
            missing=MISSING,
        )
    }


def _paper_cifar() -> dict[str, tuple[str, str]]:
    """The networks of Figure 6 and Table 6 by experiment: their names, and the paper's numbers."""
    own = [row for row in references() if row.experiment]
    # Plain networks first, as the paper tells it.
    ordered = sorted(own, key=lambda row: row.method != "plain")
    return {row.experiment: (row.name, row.printed) for row in ordered}


def _paper_imagenet() -> dict[str, tuple[str, str]]:
    numbers: dict[str, tuple[str, str]] = {}
    for number in (2, 3):
        for row in each(reported.protocol_table(number)):
            if row.experiment:
                numbers.setdefault(row.experiment, (row.method, f"{row.top1:.2f}"))
    return numbers


def _table(paper: dict[str, tuple[str, str]], metric: str, studies: list[Study]) -> pd.DataFrame:
    """A line a network: the paper's number, ours, what it cost, and that of each other."""
    ours, others, hours = _ours(metric, studies), reported.reimplementations(), _hours(studies)
    others = others[others.metric == metric]
    names = reported.reimplementation_sources()
    published = {
        names[str(source)].name: dict(zip(rows.experiment, rows.value, strict=True))
        for source, rows in others.groupby("source", sort=False)
    }
    return pd.DataFrame(
        [
            {"network": name, PAPER: printed, OURS: ours.get(experiment, MISSING)}
            | {HOURS: hours.get(experiment, MISSING)}
            | {source: values.get(experiment, MISSING) for source, values in published.items()}
            for experiment, (name, printed) in paper.items()
        ]
    )


def _ours(metric: str, studies: list[Study]) -> dict[str, str]:
    """Our errors of a metric by experiment: `mean ± std (n)`."""
    found: dict[str, str] = {}
    for study in studies:
        for table in study_tables(study):
            if METRICS.get(table.name) != metric.partition("/")[0]:
                continue
            raw = table.raw[table.raw.measure == "top1"] if "measure" in table.raw else table.raw
            for row in each(raw[(raw.experiment != "") & (raw.n > 0)]):
                found.setdefault(row.experiment, mean_std_n(row.mean, row.std, row.n))
    return found


def _hours(studies: list[Study]) -> dict[str, str]:
    """What a run of ours cost by experiment, of each kind of GPU: `0.52 (NVIDIA H100), 2.1 (...)`.

    Medians; only runs of the first study that has any of it.
    """
    found: dict[str, str] = {}
    for study in studies:
        runs = measured_costs(study)
        for experiment, alike in runs[runs.gpu].groupby("experiment"):
            medians = alike.groupby("device").device_seconds.median() / 3600
            texts = [f"{amount(hours)} ({device})" for device, hours in medians.items()]
            found.setdefault(str(experiment), ", ".join(texts))
    return found


def _origins(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Where the numbers of each column are from."""
    sources = reported.reimplementation_sources().values()
    return [(source.name, source.origin) for source in sources if source.name in table]
