"""The words of verdicts: one table, used by pages, tables, README and documents alike."""

from enum import StrEnum
from typing import Self

from analysis.stats import ENOUGH_SEEDS


class Verdict(StrEnum):
    """What is said of a claim or of a number of the paper; `meaning` explains it in one line."""

    meaning: str

    def __new__(cls, word: str, meaning: str) -> Self:
        member = str.__new__(cls, word)
        member._value_, member.meaning = word, meaning
        return member

    REPRODUCED = (
        "reproduced",
        "The test holds at its level, in every part of the claim, with five seeds or more a row.",
    )
    SUGGESTIVE = (
        "suggestive",
        "The test holds, but with three or four seeds a row, or only some parts could be judged.",
    )
    SEEN_HERE = (
        "seen here",
        "The rows are ordered so under a shortened schedule, which is not the paper's: no test of "
        "its claim.",
    )
    UNDECIDED = (
        "undecided",
        "Neither the claim nor its opposite was shown; what the seeds could have shown is said.",
    )
    CONTRADICTED = (
        "contradicted",
        "The opposite of the claim, or of a part of it, holds at the level with five seeds or more "
        "a row.",
    )
    SUGGESTIVE_AGAINST = (
        "suggestive against",
        "The opposite holds, but with three or four seeds a row.",
    )
    OPPOSITE_SEEN_HERE = (
        "opposite seen here",
        "The rows are ordered the other way under a shortened schedule, which is not the paper's.",
    )
    NOT_RUN = (
        "not run",
        "No part of it could be judged: its rows, or the paper's data, are missing.",
    )


class Qualifier(StrEnum):
    """What stands beside a verdict and narrows it; `meaning` explains it in one line."""

    meaning: str

    def __new__(cls, word: str, meaning: str) -> Self:
        member = str.__new__(cls, word)
        member._value_, member.meaning = word, meaning
        return member

    ON_THIS_DATASET = ("on this dataset", "The runs are not on the paper's own data.")
    SHORTENED = ("shortened schedule", "The runs had fewer iterations than the paper's.")
    OTHER_RECIPE = ("other recipe", "Other fields of the recipe are not the paper's.")
    PARTS = ("k of n parts", "Only so many of its parts hold, or only so many are the opposite.")
    NOT_JUDGED = (
        "not judged here",
        "It is about the paper's own data and recipe, with which these runs cannot be compared.",
    )


AGAINST = (Verdict.CONTRADICTED, Verdict.SUGGESTIVE_AGAINST, Verdict.OPPOSITE_SEEN_HERE)
"""Verdicts that say the opposite."""


def of_parts(holding: int, parts: int) -> str:
    """`2 of 4 parts`, in place of `Qualifier.PARTS`."""
    return f"{holding} of {parts} parts"


def by_seeds(n: int, against: bool = False) -> Verdict:
    """The word for a test that holds, or whose opposite does, with `n` seeds a row."""
    if against:
        return Verdict.CONTRADICTED if n >= ENOUGH_SEEDS else Verdict.SUGGESTIVE_AGAINST
    return Verdict.REPRODUCED if n >= ENOUGH_SEEDS else Verdict.SUGGESTIVE
