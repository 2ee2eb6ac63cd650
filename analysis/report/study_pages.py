"""The page of a study: its claims, tables, figures and runs, and the same as files beside it.

No statistics here, and nothing is compared: what is shown was judged in `analysis.verdicts`.
"""

import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from analysis.figures import captions, figure_4, figure_7, figures_1_and_6, signals, style
from analysis.measured.frames import FINISHED, each
from analysis.paper import reported
from analysis.report.architectures import ARCHITECTURES
from analysis.report.artifact_provenance import artifact_provenance
from analysis.report.headline import headline
from analysis.report.overview import coverage, overview, run_list, troubled
from analysis.report.pages import INDEX, SYMBOLS, render
from analysis.report.reimplementations import REIMPLEMENTATIONS
from analysis.report.run_pages import page_of, run_pages
from analysis.report.verdict_summary import family_sentence, level_sentence, summary
from analysis.stats import INTERIM_SEEDS, LEVEL, percent
from analysis.studies.studies import Study
from analysis.tables.cost import cost_tables
from analysis.tables.study_tables import StudyTable, study_tables
from analysis.tables.table_text import markdown_text, to_csv, to_markdown
from analysis.verdicts import claims, evidence
from analysis.verdicts.judgement import Judgement
from pipeline.recipe.experiments import EXPERIMENTS

StudyFigure = tuple[str, Callable[[Study], Figure], Callable[[Study], str]]
"""A figure's title, what draws it, and what writes its caption."""


@dataclass(frozen=True)
class Neighbours:
    """The studies before and after one in a list of several, which lies one folder up."""

    previous: Study | None
    following: Study | None


def study_files(
    study: Study, judgements: list[Judgement], neighbours: Neighbours | None = None
) -> dict[str, bytes]:
    """The files of one study; with `neighbours`, it is one of several and lies in a folder."""
    tables, costs = study_tables(study), cost_tables(study)
    verdicts = claims.claims_table(judgements)
    images = style.images({name: draw(study) for name, (_, draw, _) in _figures(study).items()})
    page = _study_page(study, judgements, tables, costs, images, neighbours)
    return {
        **{
            name: content
            for table in [*tables, *costs]
            for name, content in table.files(study).items()
        },
        # The same numbers as files: for reading, for spreadsheets, for a paper.
        "claims.csv": to_csv(verdicts),
        "claims.md": _claims_markdown(study, judgements).encode(),
        **images,
        **{
            # Beside each artifact, the runs that it rests on.
            f"{name}.origin.json": artifact_provenance(study, rows)
            for name, rows in _experiments_behind(study, [*tables, *costs]).items()
        },
        **run_pages(study),
        INDEX: page,
    }


def _experiments_behind(study: Study, tables: list[StudyTable]) -> dict[str, set[str]]:
    """The experiments behind each artifact of a study."""
    # By experiment, not by finished run: what is in no average is part of the origin too.
    of_claims = {
        name for names in claims.claim_experiments(study.family).values() for name in names
    }
    of_figures = {
        name: {row for row, experiment in EXPERIMENTS.items() if name in experiment.artifacts}
        for name in _figures(study)
    }
    of_tables = {
        table.name: set(table.raw.experiment) for table in tables if "experiment" in table.raw
    }
    return {**of_tables, "claims": of_claims, **of_figures}


def _figures(study: Study) -> dict[str, StudyFigure]:
    """The figures of a study's page by file name: title, drawing and caption.

    The runs behind a figure are those of the rows that have its name among their `artifacts`.
    """
    # A dataset belongs to one half of the paper, and so do its figures.
    if study.family == "imagenet":
        return {"figure_4": ("Figure 4", figure_4.figure_4, figure_4.caption_4)}
    shown: dict[str, StudyFigure] = {
        "figure_1": ("Figure 1", figures_1_and_6.figure_1, captions.caption_1),
        "figure_6": ("Figure 6", figures_1_and_6.figure_6, captions.caption_6),
        "figure_7": ("Figure 7", figure_7.figure_7, captions.caption_7),
    }
    # Not a figure of the paper, so it is left out where nothing of it was run.
    if signals.rows_shown(study):
        shown["signals"] = ("Signals", signals.figure_signals, captions.caption_signals)
    return shown


def _study_page(
    study: Study,
    judgements: list[Judgement],
    tables: list[StudyTable],
    costs: list[StudyTable],
    images: dict[str, bytes],
    neighbours: Neighbours | None,
) -> bytes:
    # Pictures are part of the page: it can be sent on alone.
    figures = [
        (name, title, caption(study), b64encode(images[f"{name}.svg"]).decode())
        for name, (title, _, caption) in _figures(study).items()
    ]
    # The first run of each experiment carries the anchor that the tables' cells lead to.
    experiments = study.runs.experiment
    anchors = [
        "" if repeated else f"runs-{name}"
        for name, repeated in zip(experiments, experiments.duplicated(), strict=True)
    ]
    return render(
        "study.html.j2",
        study=study,
        in_subfolder=neighbours is not None,
        previous=neighbours and neighbours.previous,
        following=neighbours and neighbours.following,
        architectures=ARCHITECTURES,
        reimplementations=REIMPLEMENTATIONS,
        # The head: the result before anything else.
        headline=headline(study, tables),
        hero=hero(study),
        overview=overview(study, judgements),
        coverage=coverage([cell for table in tables for cell in table.cells()], judgements),
        # The claims, and how they were judged.
        level=level_sentence(),
        look_level=percent(float(LEVEL / len(INTERIM_SEEDS))),
        interim_seeds=" and ".join(map(str, INTERIM_SEEDS)) if study.runs.looks.any() else "",
        family=family_sentence(judgements),
        summary=summary(judgements),
        judgements=[(judgement, evidence.printed(judgement.numbers)) for judgement in judgements],
        others=_others(study),
        # The tables and figures.
        tables=[(table, table.links(study)) for table in tables],
        figures=figures,
        # The runs behind them, and what they cost.
        costs=[(table, table.links(study)) for table in costs],
        troubled=troubled(study),
        runs=run_list(study),
        run_links=[page_of(run.experiment, run.seed) for run in each(study.runs)],
        run_anchors=anchors,
    )


def hero(study: Study) -> str:
    """The figure of the first screen: what was trained of the paper's degradation and its cure."""
    if study.family == "imagenet":
        return "figure_4"
    first = {name for panel in figures_1_and_6.FIGURE_1 for name in panel.experiments}
    measured = set(study.runs.loc[study.runs.status == FINISHED, "experiment"])
    # Figure 6 has the cure beside it.
    cured = {name for panel in figures_1_and_6.FIGURE_6[1:] for name in panel.experiments}
    return "figure_1" if first & measured and not cured & measured else "figure_6"


def _others(study: Study) -> str:
    """The claims that the study does not judge, with why, in a clause."""
    # Claims with one reason share a clause; what was not judged is said, never left out.
    reasons: dict[str, list[str]] = {}
    for name, why in claims.not_judged(study.family).items():
        reasons.setdefault(why, []).append(name)
    clauses = [
        f"{_ranges(names)} {'are' if len(names) > 1 else 'is'} not run: {why}"
        for why, names in reasons.items()
    ]
    return (
        "; ".join(clauses)
        + f". Nor are the tables of its appendices: {_ranges(list(reported.appendix()))}"
    )


def _ranges(names: list[str]) -> str:
    """Names that end in a number, neighbours together: `I1–I3, I5–I17`."""
    groups: list[list[str]] = []
    for name in names:
        number = int(re.sub(r"\D", "", name))
        if groups and int(re.sub(r"\D", "", groups[-1][-1])) == number - 1:
            groups[-1].append(name)
        else:
            groups.append([name])
    return ", ".join(f"{group[0]}–{group[-1]}" if len(group) > 1 else group[0] for group in groups)


def _claims_markdown(study: Study, judgements: list[Judgement]) -> str:
    blocks = [f"# Claims: {markdown_text(study.title)}\n"]
    for judgement in judgements:
        claim = judgement.statement
        symbol = SYMBOLS[judgement.verdict]
        blocks.append(
            f"## {judgement.id}: {symbol} {judgement.words}\n\n{claim.statement} ({claim.source})\n"
        )
        here = markdown_text(judgement.reason)
        note = f"- {claim.note}\n" if claim.note else ""
        paper = f"- Paper: {claim.paper_values}\n" if claim.paper_values else ""
        blocks.append(f"{paper}- Here: {here}\n{note}")
        numbers = evidence.printed(judgement.numbers)
        if len(numbers):
            blocks.append(to_markdown(numbers))
    return "\n".join(blocks)
