"""The report: a page per study, per run, per sweep, and one of the architectures.

Everything is rendered in memory first and then put in place, the pages last: a report that cannot
be made leaves what was there. The same frames give the same bytes. No statistics here, and nothing
is compared.
"""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from analysis.measured.frames import FINISHED, Frames, check
from analysis.report.architectures import ARCHITECTURES, architecture_files
from analysis.report.artifact_provenance import with_manifest
from analysis.report.headline import headline
from analysis.report.overview import overview
from analysis.report.pages import INDEX, render
from analysis.report.reimplementations import REIMPLEMENTATIONS, reimplementation_files
from analysis.report.report_folder import put_report
from analysis.report.study_pages import Neighbours, hero, study_files
from analysis.report.sweep_pages import sweep_files
from analysis.studies.studies import Study, split_studies
from analysis.studies.sweeps import MeasuredSweep, split_sweeps
from analysis.tables.study_tables import study_tables
from analysis.verdicts import claims
from analysis.verdicts.claims import Judgement
from pipeline.errors import InputError


def write_report(frames: Iterable[pd.DataFrame], out: Path) -> list[str]:
    """Write the report of the frames to the folder `out`; returns the files, relative to it.

    One study is written to `out` itself; of several, each to its own sub-folder, with a page that
    lists them.

    Raises:
        InputError: frames that break the schema, no finished run, or `out` is not a folder that can
            be written, or holds files of somebody else that are in the way.
    """
    checked = check(*frames)
    files = with_manifest(report_files(checked), checked)
    try:
        put_report(files, out)
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
    studies, sweeps = split_studies(frames), split_sweeps(frames)
    # Judged once: the list of studies and each study's page show the same verdicts.
    judged = {study.slug: claims.judge_claims(study) for study in studies}
    files = architecture_files() | reimplementation_files(studies)
    # One study is the report itself; of several each gets a folder, and a page lists them.
    if len(studies) == 1 and not sweeps:
        return files | study_files(studies[0], judged[studies[0].slug])
    files[INDEX] = _index_page(studies, judged, sweeps)
    for previous, study, following in zip(
        [None, *studies], studies, [*studies[1:], None], strict=False
    ):
        of_study = study_files(study, judged[study.slug], Neighbours(previous, following))
        files |= {f"{study.slug}/{name}": content for name, content in of_study.items()}
    for sweep in sweeps:
        files |= {f"{sweep.slug}/{name}": content for name, content in sweep_files(sweep).items()}
    return files


def _index_page(
    studies: list[Study], judged: dict[str, list[Judgement]], sweeps: list[MeasuredSweep]
) -> bytes:
    return render(
        "index.html.j2",
        architectures=ARCHITECTURES,
        reimplementations=REIMPLEMENTATIONS,
        studies=[
            (
                study,
                headline(study, study_tables(study)),
                hero(study),
                overview(study, judged[study.slug]),
            )
            for study in studies
        ],
        sweeps=[(sweep, overview(sweep.study, [])) for sweep in sweeps],
    )
