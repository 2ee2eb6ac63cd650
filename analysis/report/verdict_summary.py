"""The claims of a study's page in one table, and the sentences on how often such verdicts err."""

from math import inf
from textwrap import wrap

import pandas as pd

from analysis.stats import ENOUGH_SEEDS, LEVEL, MIN_SEEDS, percent
from analysis.verdicts.evidence import effect_text, format_p, number_text
from analysis.verdicts.judgement import Judgement
from analysis.verdicts.words import AGAINST, Verdict

MEASURED_BOUND = "5.6 %"
"""The most often that an ordering of rows that are equal was found, in simulations of all kinds.

Of spreads from 1 to 100 times as large, and of 3 to 10 seeds; a test holds it.
"""


def level_sentence() -> str:
    """The level of every test, and what it comes to."""
    return (
        f"Each test is one-sided at {percent(float(LEVEL))}; of orderings of rows that scatter "
        f"unequally at most {MEASURED_BOUND} err, as simulated. {MIN_SEEDS} seeds a row are the "
        f"fewest that can suggest a verdict, {ENOUGH_SEEDS} that can reproduce or contradict."
    )


def family_sentence(judgements: list[Judgement]) -> str:
    """What many claims at once come to: the false verdicts to expect, and what Holm's p leave."""
    tested = [judgement for judgement in judgements if judgement.p == judgement.p]
    if not tested:
        return "No claim was tested."
    expected = float(LEVEL) * len(tested)
    holding = sum(judgement.p <= float(LEVEL) for judgement in tested)
    left = sum(judgement.p_adjusted <= float(LEVEL) for judgement in tested)
    claims = "claim was" if len(tested) == 1 else "claims were"
    return (
        f"{len(tested)} {claims} tested: if none were true, {expected:.2g} would be expected to "
        f"hold by chance, and as many to be contradicted if all were. {holding} of them hold, and "
        f"{left} if p is adjusted for their number (Holm), which is shown and decides nothing."
    )


def summary(judgements: list[Judgement]) -> pd.DataFrame:
    """A line a claim that could be judged: verdict, p, effect with its interval, n, power."""
    judged = [one for one in judgements if one.n == one.n]
    return pd.DataFrame(
        [
            {
                "claim": one.id,
                "verdict": _word(one),
                "p": _p(one, one.p, one.p_against),
                "adjusted p": _p(one, one.p_adjusted, one.p_against_adjusted),
                "effect (interval)": _effect(one),
                "n": f"{one.n:.0f}" if one.n < float("inf") else "–",
                "80 % power": number_text(one.deciding.seen) if one.deciding else "–",
            }
            for one in judged
        ]
    )


def claim_lines(judgements: list[Judgement], width: int) -> list[str]:
    """What a study's runs say of the paper's claims, for a terminal; empty where they say nothing.

    Such as `C1 seen here: A plain network of 56 layers has ...`; what is undecided in one line.
    """
    # What layer lists settle is known without any run.
    tested = [one for one in judgements if 0 < one.n < inf]
    decided = [one for one in tested if one.verdict is not Verdict.UNDECIDED]
    texts = [f"{one.id} {_word(one)}: {one.statement.statement}" for one in decided]
    few = f" ({MIN_SEEDS} seeds a row are the fewest that can suggest a verdict)"
    for why, enough in (("", True), (few, False)):
        left = [
            one.id
            for one in tested
            if one.verdict is Verdict.UNDECIDED and (one.n >= MIN_SEEDS) is enough
        ]
        if left:
            texts.append(f"undecided: {', '.join(left)}{why}")
    return [
        line
        for text in texts
        for line in wrap(text, width, initial_indent="  ", subsequent_indent="    ")
    ]


def _word(judgement: Judgement) -> str:
    """The verdict with the parts it is about; what holds of the whole study is said once above."""
    return ", ".join([judgement.verdict.value, *judgement.own_qualifiers])


def _p(judgement: Judgement, support: float, against: float) -> str:
    if judgement.verdict in AGAINST:
        return f"{format_p(against)} against"
    return format_p(support)


def _effect(judgement: Judgement) -> str:
    part = judgement.deciding
    return effect_text(part.effect, part.low, part.high) if part else "–"
