"""What follows from the parts of a claim: its verdict, the reason, and p in claim and study.

"Reproduced" asks for every part, each at the level: an intersection-union test, whose error rate is
the level without any correction. "Contradicted" takes one part of several, so its p are corrected
for their number (Holm). Across a study's claims Holm's adjusted p is shown and decides nothing.
Pure functions of evidence: no frames of runs.
"""

from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import inf, nan

import pandas as pd

from analysis import stats
from analysis.paper.reported import Statement
from analysis.stats import LEVEL
from analysis.verdicts import evidence
from analysis.verdicts.evidence import Evidence, outcome_of
from analysis.verdicts.words import AGAINST, Qualifier, Verdict, by_seeds, of_parts


@dataclass(frozen=True)
class Circumstances:
    """What the runs of a study are, as far as it narrows a verdict."""

    shortened: bool = False
    other_dataset: bool = False
    other_recipe: bool = False

    @property
    def qualifiers(self) -> tuple[str, ...]:
        named = {
            Qualifier.ON_THIS_DATASET: self.other_dataset,
            Qualifier.SHORTENED: self.shortened,
            Qualifier.OTHER_RECIPE: self.other_recipe,
        }
        return tuple(name.value for name, holds in named.items() if holds)


@dataclass(frozen=True, eq=False)
class Judgement:
    """A claim, a study's verdict on it with a sentence why, and its numbers, a row a part.

    `p` is that of all parts together (the largest) and `p_against` that of any opposite (Holm over
    the parts); the adjusted ones are Holm's over the claims of the study. `deciding` is the part
    whose effect is shown for the claim, and `n` the seeds of the smallest row that was judged.
    """

    statement: Statement
    verdict: Verdict
    reason: str
    numbers: pd.DataFrame
    qualifiers: tuple[str, ...] = ()
    p: float = nan
    p_against: float = nan
    p_adjusted: float = nan
    p_against_adjusted: float = nan
    n: float = nan
    deciding: Evidence | None = field(default=None, repr=False)

    @property
    def id(self) -> str:
        return self.statement.id

    @property
    def own_qualifiers(self) -> list[str]:
        """Those of this claim alone, not of the whole study: its parts, or that none is judged."""
        of_all = {Qualifier.ON_THIS_DATASET, Qualifier.SHORTENED, Qualifier.OTHER_RECIPE}
        return [words for words in self.qualifiers if words not in of_all]

    @property
    def words(self) -> str:
        """Verdict and qualifiers: `seen here (on this dataset, 2 of 4 parts)`."""
        beside = f" ({', '.join(self.qualifiers)})" if self.qualifiers else ""
        return f"{self.verdict.value}{beside}"


def judge_parts(
    statement: Statement,
    parts: list[Evidence],
    level: Fraction = LEVEL,
    here: Circumstances | None = None,
    missing: str = "",
) -> Judgement:
    """The verdict that follows from a claim's parts.

    `missing` says which rows were not run. Under a shortened schedule the rows' order is described,
    by the permutation test alone: their being unequal, not more.
    """
    here = here or Circumstances()
    counted = all(part.experiment == "" for part in parts)
    shortened = here.shortened and not counted
    if shortened:
        parts = [_as_seen(part, level) for part in parts]
    parts, p_against = _opposites(parts, level)
    judged = [part for part in parts if part.outcome not in ("missing", "not judged")]
    # Without a test of every part that was run there is no p of the whole.
    untested = any(part.outcome == "open" and part.p != part.p for part in judged)
    tested = [] if untested else [part.p for part in judged if part.p == part.p]
    verdict = _verdict(parts, judged, shortened)
    # A claim is as certain as its least certain part, and contradicted by the most certain one.
    against = verdict in AGAINST
    ranked = sorted(
        (part for part in judged if part.effect == part.effect and (against or not untested)),
        key=lambda part: part.p_against if against else -part.p,
    )
    return Judgement(
        statement=statement,
        verdict=verdict,
        reason=_reason(verdict, parts, judged, missing),
        numbers=evidence.frame(parts),
        qualifiers=() if counted else _qualifiers(verdict, parts, judged, here),
        p=max(tested, default=nan),
        p_against=p_against,
        n=_smallest(judged),
        deciding=ranked[0] if ranked else None,
    )


def _as_seen(part: Evidence, level: Fraction) -> Evidence:
    """A part of a shortened schedule: its p are the permutation test's, where it has one."""
    if part.exact != part.exact:
        return part
    outcome = outcome_of(part.exact, part.exact_against, level)
    return replace(part, p=part.exact, p_against=part.exact_against, outcome=outcome)


def _opposites(parts: list[Evidence], level: Fraction) -> tuple[list[Evidence], float]:
    """The parts with only those opposites that remain after Holm over all parts tested; and p."""
    adjusted = stats.holm([part.p_against for part in parts])
    kept = []
    for part, p in zip(parts, adjusted, strict=True):
        # What was counted, not tested, has no p, and needs no correction.
        if part.outcome == "opposite" and p == p and not stats.at_most(p, level):
            why = f"{part.why}; the reverse is {evidence.format_p(p)} among {len(parts)} parts"
            part = replace(part, outcome="open", why=why)
        kept.append(part)
    return kept, min((p for p in adjusted if p == p), default=nan)


def _verdict(parts: list[Evidence], judged: list[Evidence], shortened: bool) -> Verdict:
    # An opposite part decides before others that are open, lack seeds or were not run.
    if opposite := [part for part in judged if part.outcome == "opposite"]:
        if shortened:
            return Verdict.OPPOSITE_SEEN_HERE
        # The opposite with the most seeds, if several were found.
        return by_seeds(int(max(map(_seeds, opposite))), against=True)
    if not judged:
        return Verdict.NOT_RUN
    if any(part.outcome == "open" for part in judged):
        return Verdict.UNDECIDED
    if shortened:
        return Verdict.SEEN_HERE
    # Where parts are missing, the others support the claim and do not reproduce it.
    whole = len(judged) == len(parts)
    return by_seeds(int(min(_smallest(judged), 10**6))) if whole else Verdict.SUGGESTIVE


def _qualifiers(
    verdict: Verdict, parts: list[Evidence], judged: list[Evidence], here: Circumstances
) -> tuple[str, ...]:
    """What narrows the verdict: what the runs are, and how many parts it is about."""
    if not judged:
        named = any(part.outcome == "not judged" for part in parts)
        return (Qualifier.NOT_JUDGED.value,) if named else ()
    decided = "opposite" if verdict in AGAINST else "holds"
    count = sum(part.outcome == decided for part in judged)
    partly = len(judged) < len(parts) or (verdict in AGAINST and count < len(parts))
    return (*here.qualifiers, *([of_parts(count, len(parts))] if partly else []))


def _seeds(part: Evidence) -> float:
    """Seeds of a part's smaller row; what the layer lists say has no need of any."""
    if not part.experiment:
        return 10**6
    return min(part.n, part.n_against) if part.against else part.n


def _smallest(judged: list[Evidence]) -> float:
    trained = [_seeds(part) for part in judged if part.experiment]
    return min(trained, default=inf if judged else nan)


def _reason(verdict: Verdict, parts: list[Evidence], judged: list[Evidence], missing: str) -> str:
    not_run = f" Not run: {missing}." if missing else ""
    if verdict is Verdict.NOT_RUN:
        return f"No finished run of {missing}." if missing else "No part can be judged here."
    if verdict in AGAINST:
        opposite = [part for part in judged if part.outcome == "opposite"]
        return f"{_listed(opposite)}: the opposite of the claim.{not_run}"
    if verdict is Verdict.UNDECIDED:
        still_open = [part for part in judged if part.outcome == "open"]
        return f"Not settled: {_listed(still_open)}.{not_run}"
    if len(parts) == 1:
        return f"{_listed(parts)}."
    count = len(judged)
    if count < len(parts):
        others = "" if missing else " The others are about the paper's own data."
        return f"{count} of {len(parts)} parts hold: {_listed(judged)}.{not_run}{others}"
    # Shown is the largest p: a claim is as certain as its least certain part.
    weakest = max((part.p for part in parts if part.p == part.p), default=None)
    every = "Both" if len(parts) == 2 else f"All {len(parts)}"
    named = "" if weakest is None else f", the weakest at p = {evidence.format_p(weakest)}"
    return f"{every} parts hold{named}."


def _listed(parts: list[Evidence]) -> str:
    return "; ".join(f"{part.comparison} ({part.why})" for part in parts)


def adjusted(judgements: list[Judgement]) -> list[Judgement]:
    """The judgements of one study with Holm's adjusted p over all of its claims."""
    support = stats.holm([judgement.p for judgement in judgements])
    against = stats.holm([judgement.p_against for judgement in judgements])
    return [
        replace(judgement, p_adjusted=p, p_against_adjusted=q)
        for judgement, p, q in zip(judgements, support, against, strict=True)
    ]
