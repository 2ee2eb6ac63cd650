"""Claims I1 to I17 (Sec. 3.2 and 4.1, Tables 2 to 5, Figure 4) as parts, for photographs.

Errors are of ten crops unless a claim is about others. What concerns the architectures alone is
settled by the layer lists.
"""

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import pandas as pd

from analysis.stats import LEVEL
from analysis.verdicts.evidence import (
    Evidence,
    Outcome,
    evidence_of,
    format_p,
    judge_ordering,
    values_of,
)
from analysis.verdicts.parts import Claim, Equivalent, EveryRun, Higher, Within
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.layers import layout

NOT_VANISHED = 1e-3
"""Our reading of "healthy" signals (Sec. 4.1), as the least that any layer may carry.

No layer's variance before batch norm is below 0.001: a hundred times the epsilon that batch norm
adds to it, below which it would no longer make it 1. And no layer's gradient norm is below a
thousandth of that of the layer nearest to the loss. Without batch norm and with N(0, 0.01²), 56
layers lose more than float32 can hold.
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

    def judge(self, run_metrics: pd.DataFrame, level: Fraction = LEVEL) -> Evidence:
        better_words, better, better_problem = values_of(run_metrics, self.better, self.experiments)
        worse_words, worse, worse_problem = values_of(run_metrics, self.worse, self.experiments)
        text = f"{self.experiment}: {worse_words} > {better_words}"
        if problem := better_problem or worse_problem:
            return evidence_of(text, self.experiments, worse, *problem)

        # The same runs under two protocols. They are not paired here, which errs on the safe side
        # where, as with test errors, a run that is better by one is better by the other.
        first, second = worse[self.experiment], better[self.experiment]
        outcome, p, _ = judge_ordering(first, second, level)
        means = f"{sum(second) / len(second):.2f} against {sum(first) / len(first):.2f} %"
        why = f"p = {format_p(p)}; {means}"
        return evidence_of(text, self.experiments, worse, outcome, why, p=p)


@dataclass(frozen=True)
class Counted:
    """A count that follows from the layer lists: `words`, and whether the claim `holds`."""

    words: str
    holds: bool

    @property
    def experiments(self) -> tuple[str, ...]:
        return ()

    def judge(self, run_metrics: pd.DataFrame, level: Fraction = LEVEL) -> Evidence:
        outcome: Outcome = "holds" if self.holds else "opposite"
        why = "by the layer lists"
        return evidence_of(self.words, ("",), {"": []}, outcome, why)


def _multiply_adds(experiment: str) -> int:
    return layout(EXPERIMENTS[experiment]).multiply_adds


def _params(experiment: str) -> int:
    return layout(EXPERIMENTS[experiment]).params


def _cheaper_than_vgg() -> tuple[Counted, ...]:
    resnet = _multiply_adds("resnet152")
    return tuple(
        Counted(
            f"multiply-adds: resnet152 {resnet / 1e9:.1f} < {name} {vgg / 1e9:.1f} billion",
            resnet < vgg,
        )
        for name, vgg in VGG_MULTIPLY_ADDS.items()
    )


def _same_parameters() -> tuple[Counted, ...]:
    pairs = (("plain18", "resnet18"), ("plain34", "resnet34-a"))
    return tuple(
        Counted(f"parameters: {a} {_params(a):,} = {b} {_params(b):,}", _params(a) == _params(b))
        for a, b in pairs
    )


def _block_costs() -> tuple[Counted, ...]:
    """Multiply-adds per position of Figure 5's blocks, and of a bottleneck with a projection."""
    # Per position of the block's map, so that its size does not matter.
    basic = sum(
        conv.multiply_adds // conv.size_out**2
        for conv in layout(EXPERIMENTS["resnet34-a"]).blocks[0].convs
    )
    second = layout(EXPERIMENTS["resnet50"]).blocks[1]
    bottleneck = sum(conv.multiply_adds // conv.size_out**2 for conv in second.convs)
    # The projection joins the two ends of highest dimension: Sec. 4.1 says it doubles the cost.
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
    # Degradation on ImageNet (Table 2): the deeper plain network is worse, from the start and on
    # the training set, and thrice the iterations do not help (footnote 3).
    "I1": Claim((Higher("ten_crop_1", "plain34", "plain18"),)),
    "I2": Claim(
        tuple(
            Higher(quantity, "plain34", "plain18")
            for quantity in ("first_phase", "plateau", "train")
        )
    ),
    "I3": Claim(
        tuple(Higher(quantity, "plain34-3x", "plain18-3x") for quantity in ("train", "ten_crop_1"))
    ),
    # It is not for want of signals: batch norm keeps them healthy.
    "I4": Claim(
        (
            EveryRun("forward", "plain34", NOT_VANISHED),
            EveryRun("backward", "plain34", NOT_VANISHED),
        )
    ),
    # The residual networks reverse it, and converge faster (Table 2, Figure 4).
    "I5": Claim((Higher("ten_crop_1", "resnet18", "resnet34-a"),)),
    "I6": Claim((Higher("train", "resnet18", "resnet34-a"),)),
    "I7": Claim((Higher("ten_crop_1", "plain34", "resnet34-a"),)),
    "I8": Claim((Equivalent("ten_crop_1", "plain18", "resnet18", 0.5),)),
    "I9": Claim(
        (Higher("early_5", "plain18", "resnet18"), Higher("early_10", "plain18", "resnet18"))
    ),
    # Options A, B and C are all better than plain; among them little differs (Table 3).
    "I10": Claim(
        (
            *(Higher("ten_crop_1", "plain34", f"resnet34-{option}") for option in "abc"),
            Higher("ten_crop_1", "resnet34-a", "resnet34-b"),
            Higher("ten_crop_1", "resnet34-b", "resnet34-c"),
            Equivalent("ten_crop_1", "resnet34-a", "resnet34-c", 1.0),
        )
    ),
    # The deeper the better, by both protocols and measures (Tables 3 and 4).
    "I11": Claim(
        tuple(
            Higher(f"{protocol}_{k}", shallow, deep)
            for protocol in ("ten_crop", "multi_scale")
            for k in (1, 5)
            for shallow, deep in pairwise(DEEPER)
        )
    ),
    # Counts: cheaper than VGG, no extra parameters, bottlenecks of similar cost (Table 1, Figure
    # 5).
    "I12": Claim(_cheaper_than_vgg()),
    "I13": Claim(
        (Within("multi_scale_5", "resnet152", below=BEST_EARLIER_ENSEMBLE),), absolute=True
    ),
    "I14": Claim(_same_parameters()),
    "I15": Claim(_block_costs()),
    # Footnote 4: of plain networks with bottleneck blocks the deeper one is worse too.
    "I16": Claim(
        tuple(Higher(quantity, "plain101", "plain50") for quantity in ("train", "ten_crop_1"))
    ),
    # Testing at several scales is better than ten crops for every network in both tables.
    "I17": Claim(tuple(LowerBy("multi_scale_1", "ten_crop_1", name) for name in IN_BOTH_TABLES)),
}
"""The claims by id."""
