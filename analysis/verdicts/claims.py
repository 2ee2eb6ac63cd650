"""Claims C1 to C13 (Sec. 4.2) and I4 (Sec. 4.1) as parts, and a study's verdict on a claim.

The words and the paper's values are in `paper/claims.csv`; the kinds of parts in `parts`, their
tests in `evidence` and `stats`, what follows from them in `judgement`; ImageNet's claims are in
`imagenet_claims`.
"""

from dataclasses import replace
from itertools import pairwise
from math import inf, nan

import pandas as pd

from analysis.paper import reported
from analysis.paper.reported import Statement
from analysis.studies.run_metrics import DIVERGED_RUN, MEASURED, lost_runs, measure
from analysis.studies.studies import Study
from analysis.verdicts.evidence import Evidence
from analysis.verdicts.imagenet_claims import IMAGENET_CLAIMS, NOT_VANISHED
from analysis.verdicts.judgement import Circumstances, Judgement, adjusted, judge_parts
from analysis.verdicts.parts import (
    Claim,
    Equivalent,
    EveryRun,
    Higher,
    NearPaper,
    SlowStart,
    Within,
)
from analysis.verdicts.words import Qualifier, Verdict
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
    # 6.61 ± 0.16 over five runs, as in its cell, and fewer parameters than FitNet (2.5M) and
    # Highway-19 (2.3M).
    "C7": Claim(
        (
            NearPaper("resnet110", 6.61, runs=5, std=0.16),
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
    """The verdict of a study on every claim, in the order of their ids.

    In a study on other data than the paper's a statement is without its `paper_values`, but where
    layer lists settle it.
    """
    run_metrics = measure(study)
    judged = [
        judge_claim(reported.claims()[name], claim, study, run_metrics)
        for name, claim in BY_FAMILY[study.family].items()
    ]
    if not study.on_papers_data:
        judged = [
            one if one.n == inf else replace(one, statement=replace(one.statement, paper_values=""))
            for one in judged
        ]
    return adjusted(judged)


def judge_claim(
    statement: Statement, claim: Claim, study: Study, run_metrics: pd.DataFrame
) -> Judgement:
    """The verdict of a study on one claim; p are not adjusted for its other claims."""
    level = study.level_of(claim.experiments)
    parts = [part.judge(run_metrics, level) for part in claim.parts]
    if not study.comparable:
        # Numbers of the paper's own data say nothing about another dataset or recipe.
        parts = [
            _not_judged(found) if claim.is_absolute(part) and found.outcome != "missing" else found
            for part, found in zip(claim.parts, parts, strict=True)
        ]
    judgement = judge_parts(
        statement, parts, level, circumstances(study), _absent(run_metrics, claim)
    )
    if judgement.verdict is Verdict.NOT_RUN and claim.absolute and not study.comparable:
        about = f"{study.papers_dataset} with the paper's recipe"
        reason = f"Its numbers are about {about}; here: {study.why_not_comparable}."
        return replace(judgement, reason=reason, qualifiers=(Qualifier.NOT_JUDGED.value,))
    return judgement


def circumstances(study: Study) -> Circumstances:
    """What narrows the verdicts of a study."""
    changed = study.named_overrides().keys() - NO_RECIPE
    return Circumstances(study.shortened, not study.official, bool(changed))


NO_RECIPE = {"iterations", "lr_drops", "eval_every"}
"""Fields that a shortened schedule is named by, or that only say when to measure."""


def _not_judged(part: Evidence) -> Evidence:
    """A part whose numbers are shown and compared with nothing."""
    return replace(
        part,
        p=nan,
        p_against=nan,
        exact=nan,
        exact_against=nan,
        effect=nan,
        low=nan,
        high=nan,
        seen=nan,
        outcome="not judged",
        why="about the paper's own data",
    )


def _absent(run_metrics: pd.DataFrame, claim: Claim) -> str:
    """The rows of a claim without any finished or diverged run, each with what became of it."""
    ran = set(run_metrics[run_metrics.state.isin([MEASURED, DIVERGED_RUN])].experiment)
    absent = []
    for name in claim.experiments:
        if name not in ran:
            became = lost_runs(run_metrics, name)
            absent.append(f"{name} ({became})" if became else name)
    return ", ".join(absent)


def claims_table(judgements: list[Judgement]) -> pd.DataFrame:
    """One row per claim: its words, verdict and why, p, effect with its interval, seeds."""
    return pd.DataFrame(
        [
            {
                "id": judgement.id,
                "statement": judgement.statement.statement,
                "source": judgement.statement.source,
                "paper_values": judgement.statement.paper_values,
                "verdict": judgement.verdict.value,
                "qualifiers": ", ".join(judgement.qualifiers),
                "p": judgement.p,
                "p_adjusted": judgement.p_adjusted,
                "p_against": judgement.p_against,
                "p_against_adjusted": judgement.p_against_adjusted,
                "n": judgement.n,
                **{
                    name: getattr(judgement.deciding, name, nan)
                    for name in ("effect", "low", "high", "seen")
                },
                "reason": judgement.reason,
                "note": judgement.statement.note,
            }
            for judgement in judgements
        ]
    )
