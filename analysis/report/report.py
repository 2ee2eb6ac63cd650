"""The report: a page per study with claims, tables and figures, a page per run, per sweep, of the
architectures.

Everything is rendered in memory first and then put in place, the pages last: a report that cannot
be made leaves what was there. The same frames give the same bytes. No statistics here, and nothing
is compared.
"""

import os
import re
from base64 import b64encode
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures import captions, figure_4, signals, style
from analysis.figures import figures_1_and_6 as figures
from analysis.figures.figure_7 import figure_7
from analysis.measured.frames import FINISHED, Frames, check, each
from analysis.paper import reported
from analysis.report import sweep_pages as sweeps
from analysis.report.architectures import architecture_files
from analysis.report.artifact_provenance import (
    MADE,
    artifact_provenance,
    files_in_report,
    with_manifest,
)
from analysis.report.overview import coverage, overview, run_list, troubled
from analysis.report.pages import SYMBOLS, render
from analysis.report.run_pages import page_of, run_pages
from analysis.report.sweep_pages import MeasuredSweep, split_sweeps
from analysis.stats import LEVEL, LOOKS, confidence, percent
from analysis.studies.studies import Study, split_studies
from analysis.tables import table_6 as tables
from analysis.tables.study_tables import ShownTable, study_tables
from analysis.verdicts import claims, evidence
from analysis.verdicts.claims import Judgement
from pipeline.errors import InputError
from pipeline.recipe.experiments import EXPERIMENTS

INDEX = "index.html"


def write_report(frames: Iterable[pd.DataFrame], out: Path) -> list[str]:
    """Write the report of all studies in the frames to the folder `out`; the files written,
    relative to it.

    One study is written to `out` itself; of several, each to its own sub-folder, with a page that
    lists them.

    Raises:
        InputError: frames that break the schema, no finished run, or `out` is not a folder that can
            be written.
    """
    checked = check(*frames)
    files = with_manifest(report_files(checked), checked)
    try:
        _put(files, out)
    except OSError as error:
        raise InputError(f"cannot write the report to {out}: {error.strerror or error}") from error
    return sorted(files)


def report_files(frames: Frames) -> dict[str, bytes]:
    """The report of checked frames as relative path -> content.

    Raises:
        InputError: no run is finished.
    """
    if not (frames.runs.status == FINISHED).any():
        raise InputError(
            f"no finished runs among the {len(frames.runs)} recorded; run `resnet-repro grid demo` "
            "first, or wait for its end"
        )
    studies, swept = split_studies(frames), split_sweeps(frames)
    judged = {study.slug: claims.judge_claims(study) for study in studies}
    files = architecture_files()
    if len(studies) == 1 and not swept:
        return files | study_files(studies[0], judged[studies[0].slug])
    files[INDEX] = _index_page(studies, judged, swept)
    for study in studies:
        of_study = study_files(study, judged[study.slug], several=True)
        files |= {f"{study.slug}/{name}": content for name, content in of_study.items()}
    for sweep in swept:
        files |= {f"{sweep.slug}/{name}": content for name, content in sweep_files(sweep).items()}
    return files


def study_files(
    study: Study, judgements: list[Judgement], several: bool = False
) -> dict[str, bytes]:
    """The files of one study; with `several`, its page links to the list of studies one folder up."""
    shown = study_tables(study)
    verdicts = claims.summary(judgements)
    images = style.images({name: draw(study) for name, (_, draw, _) in _figures(study).items()})
    page = _study_page(study, judgements, shown, images, several)
    return {
        **{name: content for table in shown for name, content in table.files(study).items()},
        "claims.csv": verdicts.to_csv(index=False).encode(),
        "claims.md": _claims_markdown(study, judgements).encode(),
        **images,
        **{
            f"{name}.origin.json": artifact_provenance(study, rows)
            for name, rows in _rests_on(study).items()
        },
        **run_pages(study),
        INDEX: page,
    }


def sweep_files(sweep: MeasuredSweep) -> dict[str, bytes]:
    """The files of one sweep."""
    images = style.images({"sweep": sweeps.figure_sweep(sweep)})
    table = sweeps.printed(sweep)
    page = render(
        "sweep.html.j2",
        sweep=sweep,
        study=sweep.study,
        overview=overview(sweep.study, []),
        table=table,
        picture=b64encode(images["sweep.svg"]).decode(),
        runs=sweeps.runs_shown(sweep),
        troubled=troubled(sweep.study),
    )
    return {
        "sweep.csv": sweeps.sweep_table(sweep).to_csv(index=False).encode(),
        "sweep.md": f"# {sweep.title}\n\n{tables.to_markdown(table)}".encode(),
        **images,
        "sweep.origin.json": artifact_provenance(sweep.study, set(sweep.study.runs.experiment)),
        INDEX: page,
    }


def _rests_on(study: Study) -> dict[str, set[str]]:
    """The experiments behind each artifact of a study."""
    of_claims = {
        name for names in claims.claim_experiments(study.family).values() for name in names
    }
    shown = {
        name: {row for row, e in EXPERIMENTS.items() if name in e.artifacts}
        for name in _figures(study)
    }
    of_tables = {
        table.name: set(table.raw.experiment)
        for table in study_tables(study)
        if "experiment" in table.raw
    }
    return {**of_tables, "claims": of_claims, **shown}


def _figures(
    study: Study,
) -> dict[str, tuple[str, Callable[[Study], Figure], Callable[[Study], str]]]:
    """The figures of a study's page by file name: title, drawing and caption."""
    if study.family == "imagenet":
        return {"figure_4": ("Figure 4", figure_4.figure_4, figure_4.caption_4)}
    shown: dict[str, tuple[str, Callable[[Study], Figure], Callable[[Study], str]]] = {
        "figure_1": ("Figure 1", figures.figure_1, captions.caption_1),
        "figure_6": ("Figure 6", figures.figure_6, captions.caption_6),
        "figure_7": ("Figure 7", figure_7, captions.caption_7),
    }
    if signals.rows_shown(study):
        shown["signals"] = ("Signals", signals.figure_signals, captions.caption_signals)
    return shown


def _study_page(
    study: Study,
    judgements: list[Judgement],
    shown_tables: list[ShownTable],
    images: dict[str, bytes],
    several: bool,
) -> bytes:
    shown = [
        (name, title, caption(study), b64encode(images[f"{name}.svg"]).decode())
        for name, (title, _, caption) in _figures(study).items()
    ]
    return render(
        "study.html.j2",
        study=study,
        overview=overview(study, judgements),
        coverage=coverage([cell for table in shown_tables for cell in table.cells()], judgements),
        others=_others(study),
        level=percent(float(study.level)),
        interval=percent(confidence(study.level)),
        looks=", ".join(map(str, LOOKS)) if study.level != LEVEL else "",
        judgements=[(one, evidence.printed(one.numbers)) for one in judgements],
        tables=[(table, table.links(study)) for table in shown_tables],
        figures=shown,
        runs=run_list(study),
        run_links=[page_of(run.experiment, run.seed) for run in each(study.runs)],
        run_anchors=[
            "" if again else f"runs-{name}"
            for name, again in zip(
                study.runs.experiment, study.runs.experiment.duplicated(), strict=True
            )
        ],
        troubled=troubled(study),
        several=several,
    )


def _others(study: Study) -> str:
    """The claims that the study does not judge, with why, in a clause."""
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
    found: list[list[str]] = []
    for name in names:
        number = int(re.sub(r"\D", "", name))
        if found and int(re.sub(r"\D", "", found[-1][-1])) == number - 1:
            found[-1].append(name)
        else:
            found.append([name])
    return ", ".join(f"{group[0]}–{group[-1]}" if len(group) > 1 else group[0] for group in found)


def _index_page(
    studies: list[Study], judged: dict[str, list[Judgement]], swept: list[MeasuredSweep]
) -> bytes:
    return render(
        "index.html.j2",
        studies=[(study, overview(study, judged[study.slug])) for study in studies],
        sweeps=[(sweep, overview(sweep.study, [])) for sweep in swept],
    )


def _claims_markdown(study: Study, judgements: list[Judgement]) -> str:
    blocks = [f"# Claims: {study.title}\n"]
    for one in judgements:
        said = one.statement
        blocks.append(
            f"## {one.id}: {SYMBOLS[one.verdict]} {one.verdict}\n\n{said.statement} "
            f"({said.source})\n"
        )
        note = f"- {said.note}\n" if said.note else ""
        blocks.append(f"- Paper: {said.paper_values}\n- Here: {one.reason}\n{note}")
        numbers = evidence.printed(one.numbers)
        if len(numbers):
            blocks.append(tables.to_markdown(numbers))
    return "\n".join(blocks)


def _put(files: dict[str, bytes], out: Path) -> None:
    """Write beside the target, then move file by file, so that each is whole; the top page goes
    last.

    Files of the report that was there which this one does not have are removed, nothing else is
    touched.
    """
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name in files):
        raise ValueError("a report's files lie in its folder")
    out.mkdir(parents=True, exist_ok=True)
    before = files_in_report(out)
    with TemporaryDirectory(dir=out, prefix=".report-") as temporary:
        for name, content in files.items():
            target = Path(temporary, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        for name in sorted(files, key=lambda name: (name == MADE, name == INDEX)):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(Path(temporary, name), out / name)
    for name in before - set(files):
        (out / name).unlink(missing_ok=True)
