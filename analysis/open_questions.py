"""What more seeds could decide: the cells and claims of measured frames that are undecided now."""

from analysis.claims import judge_claims
from analysis.frames import Frames, each
from analysis.studies import split_studies
from analysis.tables import table_6


def open_questions(frames: Frames) -> list[str]:
    """Each in a few words, such as `C2: Not settled: ...` or `ResNet-20: ...`; what has not been run is not among them."""
    found = []
    for study in split_studies(frames):
        found += [f"{one.id}: {one.reason}" for one in judge_claims(study) if one.verdict == "undecided"]
        table = table_6(study)
        found += [f"{row.method}-{row.layers}: {row.why}" for row in each(table[table.verdict == "undecided"])]
    return found
