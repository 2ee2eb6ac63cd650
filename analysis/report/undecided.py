"""What more seeds could decide: the cells and claims of measured frames that are undecided now."""

from typing import Any

from analysis.measured.frames import Frames, each
from analysis.studies.studies import split_studies
from analysis.tables.study_tables import study_tables
from analysis.verdicts.claims import judge_claims
from analysis.verdicts.words import Verdict


def named(row: Any) -> str:
    """A row of a table in a word: `ResNet-20`, or `ResNet-34 A, top-5`."""
    if "measure" in row._fields:
        return f"{row.method}, top-{row.measure.removeprefix('top')}"
    return f"{row.method}-{row.layers}"


def undecided(frames: Frames) -> list[str]:
    """The undecided cells and claims, a line each; what has not been run is not among them.

    Such as `C2: Not settled: ...` or `Table 6, ResNet-20: ...`.
    """
    questions = []
    # A grid that runs until it is decided stops as soon as this list is empty.
    for study in split_studies(frames):
        questions += [
            f"{judgement.id}: {judgement.reason}"
            for judgement in judge_claims(study)
            if judgement.verdict is Verdict.UNDECIDED
        ]
        for table in study_tables(study):
            if "verdict" in table.raw:
                rows = table.raw[table.raw.verdict == Verdict.UNDECIDED.value]
                questions += [f"{table.title}, {named(row)}: {row.why}" for row in each(rows)]
    return questions
