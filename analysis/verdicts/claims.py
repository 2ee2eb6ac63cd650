"""Claims C1 to C13 (Sec. 4.2) and I4 (Sec. 4.1) as parts, and a study's verdict on a claim.

A claim is reproduced if all its parts hold, contradicted if one is significantly the opposite,
otherwise undecided; it is "not run" where rows are missing, or where its numbers are about the
paper's data and the study is not.

All parts have to hold, each tested at the level: an intersection-union test, whose error rate is
the level without any correction. "Contradicted" takes one part of several and is not corrected for
their number, as the report's page says.

The words and the paper's values are in `paper/claims.csv`; the kinds of parts in `parts`, their
tests in `evidence` and `stats`; ImageNet's claims in `imagenet_claims`.
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
from analysis.verdicts.evidence import Evidence
from analysis.verdicts.imagenet_claims import IMAGENET_CLAIMS, NOT_VANISHED
from analysis.verdicts.parts import Claim, Equivalent, EveryRun, Higher, SlowStart, Within
from pipeline.recipe.experiments import Family

PLAIN = ("plain20", "plain32", "plain44", "plain56")
RESNET = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")

CLAIMS: dict[str, Claim] = {
    # Degradation (Sec. 1, Figure 1): the deeper plain network is worse, on the training set too.
    "C1": Claim((Higher("train", "plain56", "plain20"), Higher("test", "plain56", "plain20"))),
    # Figure 6 left: each deeper plain network is worse than the one before.
    "C2": Claim(tuple(Higher("test", deep, shallow) for shallow, deep in pairwise(PLAIN))),
    # Their training errors are ordered too; between 32 and 20 layers only before the last drop.
    "C3": Claim(
        (
            Higher("plateau", "plain32", "plain20"),
            Higher("train", "plain44", "plain20"),
            Higher("train", "plain44", "plain32"),
            Higher("train", "plain56", "plain44"),
        )
    ),
    # Figure 6: "the error of plain-110 is higher than 60% and not displayed".
    "C4": Claim(
        (Within("train", "plain110", above=60), Within("test", "plain110", above=60)), absolute=True
    ),
    # Residual networks gain from depth up to 110 layers (Table 6).
    "C5": Claim(tuple(Higher("test", shallow, deep) for shallow, deep in pairwise(RESNET))),
    "C6": Claim(
        tuple(Higher("test", plain, f"resnet{plain.removeprefix('plain')}") for plain in PLAIN)
    ),
    # 6.61 ± 0.5 points, and fewer parameters than FitNet (2.5M) and Highway-19 (2.3M).
    "C7": Claim(
        (
            Within("test", "resnet110", above=6.11, below=7.11),
            Within("params", "resnet110", below=2.3e6),
        ),
        absolute=True,
    ),
    # Footnote 5: without warm-up it starts slowly, and ends at a similar error.
    "C8": Claim(
        (
            SlowStart("resnet110-nowarmup"),
            Equivalent("test", "resnet110-nowarmup", "resnet110", 0.5),
        ),
        absolute=True,
    ),
    # "About 400 iterations": within a factor of two.
    "C9": Claim((Within("warmup_end", "resnet110", above=200, below=800),), absolute=True),
    # 1202 layers: the training error is below 0.1 %, yet the test error above that of 110.
    "C10": Claim((Within("train", "resnet1202", below=0.1),), absolute=True),
    "C11": Claim(
        (
            Higher("test", "resnet1202", "resnet110"),
            Equivalent("train", "resnet1202", "resnet110", 0.5),
        )
    ),
    # Figure 7: residual responses are weaker than plain ones, and the weaker the deeper.
    "C12": Claim(
        tuple(Higher("response", f"plain{depth}", f"resnet{depth}") for depth in (20, 56))
    ),
    "C13": Claim(
        tuple(
            Higher("response", f"resnet{few}", f"resnet{many}")
            for few, many in ((20, 56), (56, 110))
        )
    ),
    # Sec. 4.1: with batch norm neither forward nor backward signals vanish.
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
    """A claim, a study's verdict on it with a sentence why, and its numbers, a row a part."""

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
    run_metrics = measure(study)
    claims = BY_FAMILY[study.family]
    return [
        _judge(reported.claims()[name], claim, study, run_metrics) for name, claim in claims.items()
    ]


def claims_table(judgements: list[Judgement]) -> pd.DataFrame:
    """One row per claim: id, statement, source, the paper's values, verdict, reason, note."""
    return pd.DataFrame(
        [
            {
                "id": judgement.id,
                "statement": judgement.statement.statement,
                "source": judgement.statement.source,
                "paper_values": judgement.statement.paper_values,
                "verdict": judgement.verdict,
                "reason": judgement.reason,
                "note": judgement.statement.note,
            }
            for judgement in judgements
        ]
    )


def _judge(
    statement: Statement, claim: Claim, study: Study, run_metrics: pd.DataFrame
) -> Judgement:
    # Numbers of the paper's own data say nothing about another dataset or recipe.
    if claim.absolute and not study.comparable:
        about = f"{study.papers_dataset} with the paper's recipe"
        reason = f"Its numbers are about {about}; here: {study.why_not_comparable}."
        return Judgement(statement, "not run", reason, evidence.frame([]))
    parts = [part.judge(run_metrics, study.level) for part in claim.parts]
    verdict, reason = _verdict(parts, run_metrics, claim.experiments)
    return Judgement(statement, verdict, reason, evidence.frame(parts))


def _verdict(
    parts: list[Evidence], run_metrics: pd.DataFrame, experiments: tuple[str, ...]
) -> tuple[Verdict, str]:
    seeds = (
        run_metrics[run_metrics.state == MEASURED]
        .experiment.value_counts()
        .reindex(experiments, fill_value=0)
    )
    # In this order: what was not run cannot be judged, whatever its other parts say; a part that is
    # significantly the opposite decides before others that are open or lack seeds.
    if absent := [_absence(run_metrics, name) for name in experiments if not seeds[name]]:
        return "not run", f"No finished run of {', '.join(absent)}."
    if opposite := [part for part in parts if part.outcome == "opposite"]:
        return "contradicted", f"{_listed(opposite)}: the opposite of the claim."
    few = seeds[seeds < MIN_SEEDS]
    if len(few):
        counted = ", ".join(f"{name} has {count}" for name, count in few.items())
        return (
            "undecided",
            f"Too few finished seeds: {counted}; at least {MIN_SEEDS} per row are needed.",
        )
    if still_open := [part for part in parts if part.outcome == "open"]:
        return "undecided", f"Not settled: {_listed(still_open)}."
    if len(parts) == 1:
        return "reproduced", f"{_listed(parts)}."
    # Shown is the largest p: a claim is as certain as its least certain part.
    weakest = max((part.p for part in parts if part.p == part.p), default=None)
    every = "Both" if len(parts) == 2 else f"All {len(parts)}"
    return "reproduced", f"{every} parts hold" + (
        f", the weakest at p = {weakest:.3f}." if weakest else "."
    )


def _absence(run_metrics: pd.DataFrame, experiment: str) -> str:
    """The row's name, with what became of its runs if it has any."""
    states = (
        run_metrics.loc[run_metrics.experiment == experiment, "state"].value_counts().sort_index()
    )
    became = ", ".join(f"{count} {state}" for state, count in states.items())
    return f"{experiment} ({became})" if became else experiment


def _listed(parts: list[Evidence]) -> str:
    return "; ".join(f"{part.comparison} ({part.why})" for part in parts)
