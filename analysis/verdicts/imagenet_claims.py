"""Claims I1 to I17 (Sec. 3.2, 4.1, Tables 2 to 5, Figure 4): the parts each consists of, for runs
on photographs.

Errors are of ten crops unless a claim is about others. What concerns the architectures alone is
settled by the layer lists.
"""

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import nan

import pandas as pd

from analysis.stats import LEVEL
from analysis.verdicts.evidence import (
    Claim,
    EveryRun,
    Evidence,
    Higher,
    Outcome,
    Similar,
    Within,
    evidence_of,
    format_p,
    ordered,
    values_of,
)
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.layers import layout

NOT_VANISHED = 1e-3
"""Our reading of "healthy": no layer's variance is below a thousandth of the 1 that batch norm
starts with, and no layer's gradient norm below a thousandth of that of the layer nearest to the
loss. Without batch norm and with N(0, 0.01²), 56 layers lose more than float32 can hold.
"""

DEEPER = ("resnet34-b", "resnet50", "resnet101", "resnet152")
IN_BOTH_TABLES = ("resnet34-b", "resnet34-c", "resnet50", "resnet101", "resnet152")
VGG_MULTIPLY_ADDS = {"VGG-16": 15.3e9, "VGG-19": 19.6e9}
"""As the paper quotes them."""

BEST_EARLIER_ENSEMBLE = 4.82
"""Table 5: BN-inception's top-5 error."""


@dataclass(frozen=True)
class LowerBy:
    """One row has a lower error by one protocol than by another."""

    better: str
    worse: str
    experiment: str

    @property
    def experiments(self) -> tuple[str, ...]:
        return (self.experiment,)

    def judge(self, measures: pd.DataFrame, level: Fraction = LEVEL) -> Evidence:
        good_words, good, problem = values_of(measures, self.better, self.experiments)
        words, worse, other = values_of(measures, self.worse, self.experiments)
        text = f"{self.experiment}: {words} > {good_words}"
        if found := problem or other:
            return evidence_of(text, self.experiments, worse, *found)
        first, second = worse[self.experiment], good[self.experiment]
        outcome, p, _ = ordered(first, second, level)
        why = f"p = {format_p(p)}; {sum(second) / len(second):.2f} against {sum(first) / len(first):.2f} %"
        return evidence_of(text, self.experiments, worse, outcome, why, p=p)


@dataclass(frozen=True)
class Counted:
    """Something that follows from the layer lists, whatever was run: `words`, and whether it is so."""

    words: str
    holds: bool

    @property
    def experiments(self) -> tuple[str, ...]:
        return ()

    def judge(self, measures: pd.DataFrame, level: Fraction = LEVEL) -> Evidence:
        outcome: Outcome = "holds" if self.holds else "opposite"
        why = "by the layer lists"
        return Evidence(self.words, "", 0, nan, nan, "", 0, nan, nan, nan, nan, outcome, why)


def _multiply_adds(experiment: str) -> int:
    return layout(EXPERIMENTS[experiment]).multiply_adds


def _params(experiment: str) -> int:
    return layout(EXPERIMENTS[experiment]).params


def _cheaper_than_vgg() -> tuple[Counted, ...]:
    mine = _multiply_adds("resnet152")
    return tuple(
        Counted(
            f"multiply-adds: resnet152 {mine / 1e9:.1f} < {name} {theirs / 1e9:.1f} billion",
            mine < theirs,
        )
        for name, theirs in VGG_MULTIPLY_ADDS.items()
    )


def _same_parameters() -> tuple[Counted, ...]:
    pairs = (("plain18", "resnet18"), ("plain34", "resnet34-a"))
    return tuple(
        Counted(f"parameters: {a} {_params(a):,} = {b} {_params(b):,}", _params(a) == _params(b))
        for a, b in pairs
    )


def _block_costs() -> tuple[Counted, ...]:
    """Multiply-adds per position of the blocks of Figure 5, and of a bottleneck whose identity
    became a projection.
    """
    basic = sum(
        conv.multiply_adds // conv.size_out**2
        for conv in layout(EXPERIMENTS["resnet34-a"]).blocks[0].convs
    )
    second = layout(EXPERIMENTS["resnet50"]).blocks[1]
    bottleneck = sum(conv.multiply_adds // conv.size_out**2 for conv in second.convs)
    projected = bottleneck + second.convs[0].channels_in * second.convs[-1].channels_out
    return (
        Counted(
            f"a position of the basic block {basic:,}, of the bottleneck {bottleneck:,}",
            0.9 < bottleneck / basic < 1.1,
        ),
        Counted(
            f"with a projection {projected:,}, {projected / bottleneck:.2f} times",
            1.9 < projected / bottleneck < 2.1,
        ),
    )


IMAGENET_CLAIMS: dict[str, Claim] = {
    "I1": Claim((Higher("ten_crop_1", "plain34", "plain18"),)),
    "I2": Claim((Higher("plateau", "plain34", "plain18"), Higher("train", "plain34", "plain18"))),
    "I3": Claim((Higher("ten_crop_1", "plain34-3x", "plain18-3x"),)),
    "I4": Claim(
        (
            EveryRun("forward", "plain34", NOT_VANISHED),
            EveryRun("backward", "plain34", NOT_VANISHED),
        )
    ),
    "I5": Claim((Higher("ten_crop_1", "resnet18", "resnet34-a"),)),
    "I6": Claim((Higher("train", "resnet18", "resnet34-a"),)),
    "I7": Claim((Higher("ten_crop_1", "plain34", "resnet34-a"),)),
    "I8": Claim((Similar("ten_crop_1", "plain18", "resnet18", 0.5),)),
    "I9": Claim(
        (Higher("early_5", "plain18", "resnet18"), Higher("early_10", "plain18", "resnet18"))
    ),
    "I10": Claim(
        (
            *(Higher("ten_crop_1", "plain34", f"resnet34-{option}") for option in "abc"),
            Higher("ten_crop_1", "resnet34-a", "resnet34-b"),
            Higher("ten_crop_1", "resnet34-b", "resnet34-c"),
            Similar("ten_crop_1", "resnet34-a", "resnet34-c", 1.0),
        )
    ),
    "I11": Claim(
        tuple(
            Higher(f"{protocol}_{first}", shallow, deep)
            for protocol in ("ten_crop", "multi_scale")
            for first in (1, 5)
            for shallow, deep in pairwise(DEEPER)
        )
    ),
    "I12": Claim(_cheaper_than_vgg()),
    "I13": Claim(
        (Within("multi_scale_5", "resnet152", below=BEST_EARLIER_ENSEMBLE),), absolute=True
    ),
    "I14": Claim(_same_parameters()),
    "I15": Claim(_block_costs()),
    "I16": Claim((Higher("ten_crop_1", "plain50", "plain34"),)),
    "I17": Claim(tuple(LowerBy("multi_scale_1", "ten_crop_1", name) for name in IN_BOTH_TABLES)),
}
"""The claims by id."""
