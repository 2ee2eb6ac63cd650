"""Figure 7 and claims C12 and C13 on responses that are plain to see."""

import pandas as pd
import pytest

from analysis.figures.captions import caption_7
from analysis.figures.figure_7 import figure_7, response_curve, rows_shown
from analysis.measured.frames import check
from analysis.paper import reported
from analysis.studies.studies import Study, split_studies
from analysis.verdicts.claims import judge_claims
from pipeline.recipe.metrics import RESPONSE_STD

ROWS = ("plain20", "plain56", "resnet20", "resnet56", "resnet110")


def study_of(build, responses: dict[str, list[float]], seeds: int = 3, **changes: object) -> Study:
    """Finished runs of rows whose layers respond so; each further seed 0.01 higher."""
    runs, metrics = build(
        {name: [9.0 + 0.1 * seed for seed in range(seeds)] for name in responses}, **changes
    )
    rows = [
        {
            "run_id": run.run_id,
            "iteration": run.iterations,
            "quantity": RESPONSE_STD,
            "layer": layer,
            "name": f"conv{layer}",
            "value": value + 0.01 * run.seed,
        }
        for run in runs.itertuples()
        for layer, value in enumerate(responses[run.experiment], 1)
    ]
    (study,) = split_studies(check(runs, metrics, pd.DataFrame(rows)))
    return study


AS_THE_PAPER = {
    "plain20": [2.0, 1.8],
    "plain56": [3.0, 1.4],
    "resnet20": [1.7, 1.5],
    "resnet56": [1.5, 1.0],
    "resnet110": [1.2, 0.9],
}


def verdicts(study: Study) -> dict[str, str]:
    return {
        judgement.id: judgement.verdict
        for judgement in judge_claims(study)
        if judgement.id in ("C12", "C13")
    }


def test_a_curve_is_the_mean_over_seeds_and_the_bottom_panel_is_sorted(build):
    study = study_of(build, {"resnet20": [1.0, 3.0, 2.0]})
    top, bottom = (response_curve(study, "resnet20", panel) for panel in ("top", "bottom"))
    assert top["mean"].tolist() == pytest.approx([1.01, 3.01, 2.01])
    assert bottom["mean"].tolist() == pytest.approx([3.01, 2.01, 1.01])
    assert (top.low.iloc[0], top.high.iloc[0], top.n.iloc[0]) == (1.0, 1.02, 3)


def test_claims_follow_the_means_over_layers(build):
    assert verdicts(study_of(build, AS_THE_PAPER)) == {"C12": "suggestive", "C13": "suggestive"}
    against = AS_THE_PAPER | {"resnet20": [2.5, 2.5], "resnet110": [2.0, 2.0]}
    # Three seeds: one opposite of two parts is 2/20, corrected for their number.
    assert verdicts(study_of(build, against)) == {"C12": "undecided", "C13": "undecided"}


def test_without_the_layers_nothing_is_decided(build):
    runs, metrics = build({name: [9.0, 9.1, 9.2] for name in ROWS})
    (study,) = split_studies(check(runs, metrics))
    assert verdicts(study) == {"C12": "undecided", "C13": "undecided"}
    assert rows_shown(study) == []
    assert [ax.texts[0].get_text() for ax in figure_7(study).axes] == ["not run", "not run"]


def test_the_figure_has_two_panels_with_the_papers_curves_only_where_comparable(build):
    for changes, lines in (({}, 10), ({"dataset": "digits", "comparable": False}, 5)):
        study = study_of(build, AS_THE_PAPER, **changes)
        for ax in figure_7(study).axes:
            assert ax.get_ylabel() == "std"
            assert len(ax.lines) == lines
        assert ("the paper's own" in caption_7(study)) is (lines == 10)


def test_what_was_not_run_is_named(build):
    assert "Absent, for want of a finished run: plain56, resnet56 and resnet110." in caption_7(
        study_of(build, {"plain20": [1.0], "resnet20": [1.0]})
    )


def test_the_papers_digitised_responses():
    top = reported.responses().query("panel == 'top'")
    assert top.experiment.value_counts().to_dict() == {
        "plain20": 19,
        "plain56": 55,
        "resnet20": 19,
        "resnet56": 55,
        "resnet110": 109,
    }
    means = top.groupby("experiment")["std"].mean().to_dict()
    expected = {
        "plain20": 1.82,
        "plain56": 1.52,
        "resnet20": 1.62,
        "resnet56": 1.13,
        "resnet110": 0.99,
    }
    assert means == pytest.approx(expected, abs=0.006)
