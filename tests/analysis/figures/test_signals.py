"""The figure of signals: what its curves are, what it says of diverged runs, and claim I4."""

import pandas as pd
import pytest

from analysis.figures.captions import caption_signals
from analysis.figures.signals import FLOOR, figure_signals, rows_shown, signal_curve
from analysis.measured.frames import check
from analysis.report.report import report_files
from analysis.studies.studies import Study, split_studies
from analysis.verdicts import claims
from pipeline.recipe.metrics import CONVOLUTION_VARIANCE, FORWARD_VARIANCE, GRADIENT_NORM


def layer_rows(
    run_id: str, quantity: str, iteration: int, values: list[float]
) -> list[dict[str, object]]:
    return [
        {
            "run_id": run_id,
            "iteration": iteration,
            "quantity": quantity,
            "layer": number,
            "name": f"conv{number}",
            "value": value,
        }
        for number, value in enumerate(values, 1)
    ]


BOTH = (0, 64_000)
"""The start and the end of training."""


def study_of(
    build,
    forward: list[list[float]],
    backward: list[list[float]],
    before_norm: tuple[int, ...] = BOTH,
    **changes: object,
) -> Study:
    """Runs of plain56 with these signals in three layers, the same at the start and at the end.

    Variances are the same before batch norm, where they were taken at the moments `before_norm`.
    """
    runs, metrics = build({"plain56": [13.0 + seed for seed in range(len(forward))]}, **changes)
    rows = []
    for run_id, variances, norms in zip(runs.run_id, forward, backward, strict=True):
        for iteration in BOTH:
            rows += layer_rows(run_id, FORWARD_VARIANCE, iteration, variances)
            if iteration in before_norm:
                rows += layer_rows(run_id, CONVOLUTION_VARIANCE, iteration, variances)
            rows += layer_rows(run_id, GRADIENT_NORM, iteration, norms)
    (study,) = split_studies(check(runs, metrics, pd.DataFrame(rows)))
    return study


def verdict(study: Study) -> str:
    return next(
        judgement.verdict for judgement in claims.judge_claims(study) if judgement.id == "I4"
    )


def test_a_curve_is_the_geometric_mean_over_seeds_with_zeros_on_the_floor(build) -> None:
    study = study_of(build, [[1.0, 0.01, 0.0], [1.0, 1.0, float("inf")]], [[1.0, 1.0, 1.0]] * 2)
    curve = signal_curve(study, "plain56", FORWARD_VARIANCE, False)
    assert curve["mean"].tolist()[:2] == pytest.approx([1.0, 0.1])
    assert curve.low.tolist() == pytest.approx([1.0, 0.01, FLOOR])
    assert curve.n.tolist() == [2, 2, 2]
    assert rows_shown(study) == ["plain56"]


HEALTHY, VANISHED = [1.0, 0.9, 0.5], [1.0, 1e-5, 0.5]


@pytest.mark.parametrize(
    ("forward", "backward", "expected"),
    [
        ([HEALTHY] * 3, [HEALTHY] * 3, "reproduced"),
        ([VANISHED] * 3, [HEALTHY] * 3, "contradicted"),
        ([HEALTHY] * 3, [VANISHED] * 3, "contradicted"),
        ([HEALTHY] * 2 + [VANISHED], [HEALTHY] * 3, "undecided"),
        ([HEALTHY] * 3, [[0.0] * 3] * 3, "contradicted"),
        ([HEALTHY] * 2, [HEALTHY] * 2, "undecided"),
    ],
)
def test_claim_i4_is_about_the_weakest_layer_of_every_run(
    build, forward, backward, expected: str
) -> None:
    assert verdict(study_of(build, forward, backward)) == expected


@pytest.mark.parametrize("before_norm", [(), (64_000,)])
def test_claim_i4_is_undecided_where_variances_before_batch_norm_are_missing(
    build, before_norm: tuple[int, ...]
) -> None:
    # Of an earlier version, or begun by one: after batch norm the variance is 1 whatever came in.
    study = study_of(build, [HEALTHY] * 5, [HEALTHY] * 5, before_norm)
    assert verdict(study) == "undecided"
    (judged,) = (one for one in claims.judge_claims(study) if one.id == "I4")
    assert judged.numbers.outcome.tolist() == ["open", "holds"]
    assert "plain56 has a run without weakest variance before batch norm" in judged.reason


def test_gradients_are_judged_relative_to_the_layer_nearest_to_the_loss(build) -> None:
    small = [[1e-6, 2e-6, 3e-6]] * 3  # as at the end of a training that fits its images
    assert verdict(study_of(build, [HEALTHY] * 3, small)) == "reproduced"


def test_a_run_that_diverged_shows_where_it_began(build) -> None:
    study = study_of(build, [HEALTHY], [HEALTHY], status="DIVERGED", iterations=100_000)
    assert len(signal_curve(study, "plain56", GRADIENT_NORM, False)) == 3
    assert signal_curve(study, "plain56", GRADIENT_NORM, True).empty
    assert "Diverged, and so without an end: plain56 (1 of 1)." in caption_signals(study)
    assert figure_signals(study).axes[0].get_lines()


def test_an_interrupted_run_is_not_called_diverged(build) -> None:
    study = study_of(build, [HEALTHY], [HEALTHY], status="KILLED", iterations=100_000)
    assert "Diverged" not in caption_signals(study)


def test_the_figure_is_in_the_report_where_a_signal_was_measured(build) -> None:
    with_signals, without = study_of(build, [HEALTHY], [HEALTHY]), build({"plain56": [13.0]})
    frames = check(with_signals.runs, with_signals.metrics, with_signals.layers)
    assert "not one of its figures" in report_files(frames)["index.html"].decode()
    assert "signals.png" not in report_files(check(*without))
