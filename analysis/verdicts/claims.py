"""Claims C1 to C13 of Sec. 4.2 and I4 of Sec. 4.1: the parts each consists of; and a study's
verdict on a claim.

A claim is reproduced if all its parts hold, contradicted if one is significantly the opposite,
otherwise undecided; it is "not run" where rows are missing, or where its numbers are about the
paper's data and the study is not. The words and the paper's values are in `paper/claims.csv`; the
tests are in `evidence` and `stats`; ImageNet's claims in `imagenet_claims`.
"""

from dataclasses import dataclass
from itertools import pairwise

import pandas as pd

from analysis.paper import reported
from analysis.paper.reported import Statement
from analysis.stats import MIN_SEEDS
from analysis.studies.run_metrics import MEASURED, measure
from analysis.studies.studies import Study
from analysis.verdicts import evidence
from analysis.verdicts.cells import Verdict
from analysis.verdicts.evidence import Claim, EveryRun, Evidence, Higher, Similar, SlowStart, Within
from analysis.verdicts.imagenet_claims import IMAGENET_CLAIMS, NOT_VANISHED
from pipeline.recipe.experiments import Family

PLAIN = ("plain20", "plain32", "plain44", "plain56")
RESNET = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")

CLAIMS: dict[str, Claim] = {
    "C1": Claim((Higher("train", "plain56", "plain20"), Higher("test", "plain56", "plain20"))),
    "C2": Claim(tuple(Higher("test", deep, shallow) for shallow, deep in pairwise(PLAIN))),
    "C3": Claim(
        (
            Higher("plateau", "plain32", "plain20"),
            Higher("train", "plain44", "plain20"),
            Higher("train", "plain44", "plain32"),
            Higher("train", "plain56", "plain44"),
        )
    ),
    "C4": Claim(
        (Within("train", "plain110", above=60), Within("test", "plain110", above=60)), absolute=True
    ),
    "C5": Claim(tuple(Higher("test", shallow, deep) for shallow, deep in pairwise(RESNET))),
    "C6": Claim(
        tuple(Higher("test", plain, f"resnet{plain.removeprefix('plain')}") for plain in PLAIN)
    ),
    "C7": Claim(
        (
            Within("test", "resnet110", above=6.11, below=7.11),
            Within("params", "resnet110", below=2.3e6),
        ),
        absolute=True,
    ),
    "C8": Claim(
        (SlowStart("resnet110-nowarmup"), Similar("test", "resnet110-nowarmup", "resnet110", 0.5)),
        absolute=True,
    ),
    "C9": Claim((Within("warmup_end", "resnet110", above=200, below=800),), absolute=True),
    "C10": Claim((Within("train", "resnet1202", below=0.1),), absolute=True),
    "C11": Claim(
        (
            Higher("test", "resnet1202", "resnet110"),
            Similar("train", "resnet1202", "resnet110", 0.5),
        )
    ),
    "C12": Claim(
        tuple(Higher("response", f"plain{depth}", f"resnet{depth}") for depth in (20, 56))
    ),
    "C13": Claim(
        tuple(
            Higher("response", f"resnet{few}", f"resnet{many}")
            for few, many in ((20, 56), (56, 110))
        )
    ),
    "I4": Claim(
        (
            EveryRun("forward", "plain56", NOT_VANISHED),
            EveryRun("backward", "plain56", NOT_VANISHED),
        )
    ),
}
"""The claims by id; the grids are checked against the experiments that these need."""


@dataclass(frozen=True, eq=False)
class Judgement:
    """A claim, the verdict of one study on it, one sentence why, and the numbers it rests on (one
    row per part).
    """

    statement: Statement
    verdict: Verdict
    reason: str
    numbers: pd.DataFrame

    @property
    def id(self) -> str:
        return self.statement.id


BY_FAMILY: dict[Family, dict[str, Claim]] = {"cifar": CLAIMS, "imagenet": IMAGENET_CLAIMS}
"""The claims that a study of each half of the paper is judged by."""

NOT_JUDGED = {
    "C": "they are judged on pages of CIFAR-10's kind of data",
    "I": "they are judged on pages of ImageNet's kind of data",
    "D": "detection is not part of this reproduction",
    "L": "localization is not part of this reproduction",
}
"""Why the paper's other claims are not run, by the first letter of their ids."""


def not_judged(family: Family) -> dict[str, str]:
    """The claims of the paper that a study of this half does not judge, with why."""
    return {
        name: NOT_JUDGED[name[0]] for name in reported.claims() if name not in BY_FAMILY[family]
    }


def claim_experiments(family: Family = "cifar") -> dict[str, tuple[str, ...]]:
    """The experiments that each claim needs, by claim id."""
    return {name: claim.experiments for name, claim in BY_FAMILY[family].items()}


def judge_claims(study: Study) -> list[Judgement]:
    """The verdict of a study on every claim, in the order of their ids."""
    measures = measure(study)
    claims = BY_FAMILY[study.family]
    return [
        _judge(reported.claims()[name], claim, study, measures) for name, claim in claims.items()
    ]


def summary(judgements: list[Judgement]) -> pd.DataFrame:
    """One row per claim: id, statement, source, the paper's values, verdict, reason, note."""
    return pd.DataFrame(
        [
            {
                "id": one.id,
                "statement": one.statement.statement,
                "source": one.statement.source,
                "paper_values": one.statement.paper_values,
                "verdict": one.verdict,
                "reason": one.reason,
                "note": one.statement.note,
            }
            for one in judgements
        ]
    )


def _judge(statement: Statement, claim: Claim, study: Study, measures: pd.DataFrame) -> Judgement:
    if claim.absolute and not study.comparable:
        about = f"{study.papers_dataset} with the paper's recipe"
        reason = f"Its numbers are about {about}; here: {study.why_not_comparable}."
        return Judgement(statement, "not run", reason, evidence.frame([]))
    found = [part.judge(measures, study.level) for part in claim.parts]
    verdict, reason = _verdict(found, measures, claim.experiments)
    return Judgement(statement, verdict, reason, evidence.frame(found))


def _verdict(
    found: list[Evidence], measures: pd.DataFrame, experiments: tuple[str, ...]
) -> tuple[Verdict, str]:
    seeds = (
        measures[measures.state == MEASURED]
        .experiment.value_counts()
        .reindex(experiments, fill_value=0)
    )
    if absent := [_absence(measures, name) for name in experiments if not seeds[name]]:
        return "not run", f"No finished run of {', '.join(absent)}."
    if opposite := [one for one in found if one.outcome == "opposite"]:
        return "contradicted", f"{_listed(opposite)}: the opposite of the claim."
    few = seeds[seeds < MIN_SEEDS]
    if len(few):
        counted = ", ".join(f"{name} has {count}" for name, count in few.items())
        return (
            "undecided",
            f"Too few finished seeds: {counted}; at least {MIN_SEEDS} per row are needed.",
        )
    if still_open := [one for one in found if one.outcome == "open"]:
        return "undecided", f"Not settled: {_listed(still_open)}."
    if len(found) == 1:
        return "reproduced", f"{_listed(found)}."
    weakest = max((one.p for one in found if one.p == one.p), default=None)
    every = "Both" if len(found) == 2 else f"All {len(found)}"
    return "reproduced", f"{every} parts hold" + (
        f", the weakest at p = {weakest:.3f}." if weakest else "."
    )


def _absence(measures: pd.DataFrame, experiment: str) -> str:
    """The row's name, with what became of its runs if it has any."""
    states = measures.loc[measures.experiment == experiment, "state"].value_counts().sort_index()
    became = ", ".join(f"{count} {state}" for state, count in states.items())
    return f"{experiment} ({became})" if became else experiment


def _listed(found: list[Evidence]) -> str:
    return "; ".join(f"{one.comparison} ({one.why})" for one in found)
