"""ImageNet's tables, figure and claims, on runs invented around the paper's numbers."""

import re
from dataclasses import replace
from html import unescape
from json import dumps

import pandas as pd
import pytest

from analysis.figures import figure_4
from analysis.measured.bundle import merged, pack, unpack
from analysis.measured.frames import check
from analysis.paper import reported
from analysis.report.report import report_files
from analysis.studies.studies import split_studies
from analysis.tables import tables_2_to_5
from analysis.tables.study_tables import study_tables
from analysis.verdicts.claims import judge_claims
from analysis.verdicts.imagenet_claims import IMAGENET_CLAIMS
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.layers import layout
from pipeline.recipe.metrics import TEST_ERR, TRAIN_CLEAN_ERR, TRAIN_ERR, protocol_err
from tests.analysis.measured_runs import frames_of, points, run_row

SPREAD = (-0.03, -0.01, 0.0, 0.01, 0.03)
TRAIN = {"plain18": 31.5, "plain34": 32.6, "resnet18": 29.9, "resnet34-a": 25.0}
EARLY = {
    "plain18": (53.6, 50.7),
    "plain34": (58.7, 55.2),
    "resnet18": (49.7, 47.5),
    "resnet34-a": (47.4, 44.9),
}
IMAGENET = {"dataset": "imagenet", "dataset_id": "1a9e"}


def papers_numbers() -> dict[str, dict[str, float]]:
    """By row, the paper's errors by metric."""
    errors: dict[str, dict[str, float]] = {}
    for spec in tables_2_to_5.TABLES:
        for row in reported.protocol_table(spec.number).itertuples():
            for k, value in ((1, row.top1), (5, row.top5)):
                if row.experiment and value == value:
                    errors.setdefault(row.experiment, {})[protocol_err(spec.protocol, k)] = value
    return errors


def invented(
    shift: dict[str, float] | None = None, seeds: tuple[float, ...] = SPREAD, **changes: object
):
    """Finished runs with the paper's numbers, apart by seed; `shift` moves rows by points."""
    rows, measured = [], []
    for name, errors in papers_numbers().items():
        for seed, off in enumerate(seeds):
            end = EXPERIMENTS[name].iterations
            row = run_row(
                name,
                seed,
                **(
                    IMAGENET
                    | {"iterations": end, "params": layout(EXPERIMENTS[name]).params}
                    | changes
                ),
            )
            rows.append(row)
            moved = off + (shift or {}).get(name, 0.0)
            for metric, value in errors.items():
                measured += points(row["run_id"], metric, {end: value + moved})
            fall = EARLY.get(name, (50.0, 45.0))
            measured += points(
                row["run_id"],
                TEST_ERR,
                {50_000: fall[0] + off, 100_000: fall[1] + off, end: 28 + moved},
            )
            train = TRAIN.get(name, 24.0) + off
            measured += points(
                row["run_id"],
                TRAIN_ERR,
                {100_000: train + 25, 200_000: train + 6, 580_000: train, end: train},
            )
            measured += points(row["run_id"], TRAIN_CLEAN_ERR, {end: train})
    return frames_of(rows, measured)


def study_of(frames):
    (study,) = split_studies(check(*frames))
    return study


def test_tables_hold_every_number_that_the_paper_prints() -> None:
    two, three, four, five = (reported.protocol_table(number) for number in (2, 3, 4, 5))
    assert two.top1.tolist() == [27.94, 28.54, 27.88, 25.03] and two.top5.isna().all()
    assert three.method.tolist()[:3] == ["VGG-16", "GoogLeNet", "PReLU-net"] and len(three) == 10
    assert three.set_index("experiment").top5["resnet152"] == 5.71
    assert four.set_index("experiment").top1["resnet101"] == 19.87 and len(four) == 10
    assert five.top5.tolist() == [7.32, 6.66, 6.8, 4.94, 4.82, 3.57]


def test_runs_with_the_papers_numbers_reproduce_every_cell() -> None:
    study = study_of(invented())
    assert (
        study.comparable
        and study.family == "imagenet"
        and study.title == "ImageNet, the paper's recipe"
    )
    tables = {table.name: table for table in study_tables(study)}
    assert list(tables) == ["table_2", "table_3", "table_4", "table_5"]
    for name in ("table_2", "table_3", "table_4"):
        own = tables[name].raw[(tables[name].raw.experiment != "") & tables[name].raw.paper.notna()]
        assert set(own.verdict) == {"reproduced"} and set(own.n) == {5}
    shown = tables["table_3"].printed.set_index("method")
    assert shown.loc["ResNet-152", "top-5 (%)"] == "5.71 ± 0.02 (5)"
    assert shown.loc["ResNet-152", "difference, top-5"] in ("+0.00", "−0.00")
    assert (
        shown.loc["GoogLeNet", "paper, top-1"] == "–"
        and shown.loc["GoogLeNet", "remarks"] == "quoted by the paper"
    )


def test_a_wrong_number_is_contradicted_and_another_dataset_is_not_compared() -> None:
    wrong = study_of(invented({"resnet50": 2.0}))
    raw = tables_2_to_5.protocol_table(wrong, tables_2_to_5.TABLES[1]).set_index(
        ["experiment", "measure"]
    )
    assert (
        raw.verdict["resnet50", "top1"] == "contradicted"
        and raw.verdict["resnet101", "top1"] == "reproduced"
    )
    other = study_of(invented(comparable=False))
    assert (
        not other.comparable and "not read from the official archives" in other.why_not_comparable
    )
    raw = tables_2_to_5.protocol_table(other, tables_2_to_5.TABLES[0])
    assert set(raw.verdict) == {"not run"} and raw.difference.isna().all()
    assert tables_2_to_5.printed(raw)["difference, top-1"].tolist() == ["not comparable"] * 4


def test_claims_on_the_papers_numbers() -> None:
    verdicts = {judgement.id: judgement.verdict for judgement in judge_claims(study_of(invented()))}
    assert verdicts == {
        **dict.fromkeys(
            [
                "I1",
                "I2",
                "I5",
                "I6",
                "I7",
                "I8",
                "I9",
                "I10",
                "I11",
                "I12",
                "I13",
                "I14",
                "I15",
                "I17",
            ],
            "reproduced",
        ),
        **dict.fromkeys(["I3", "I16"], "not run"),
        "I4": "undecided",  # signals were not measured
    }


def outcomes(claim: str, frames) -> list[str]:
    """Of each part of a claim, on the only study of these frames."""
    (judged,) = (one for one in judge_claims(study_of(frames)) if one.id == claim)
    return judged.numbers.outcome.tolist()


def test_throughout_training_is_every_phase_of_constant_rate() -> None:
    runs, metrics = invented()
    assert outcomes("I2", (runs, metrics)) == ["holds"] * 3
    # Before the first drop alone, then between the drops alone, the deeper network is ahead.
    for part, iteration in enumerate((100_000, 200_000)):
        ahead = metrics.copy()
        early = (ahead.metric == TRAIN_ERR) & (ahead.iteration == iteration)
        ahead.loc[early & ahead.run_id.str.startswith("plain34"), "value"] -= 5.0
        expected = ["holds"] * 3
        expected[part] = "opposite"
        assert outcomes("I2", (runs, ahead)) == expected


def with_footnotes(train: dict[str, float], test: dict[str, float]):
    """Runs of footnotes 3 and 4 alone, with these errors in training and by ten crops."""
    rows, measured = [], []
    for name, error in train.items():
        end = EXPERIMENTS[name].iterations
        for seed, off in enumerate(SPREAD):
            row = run_row(name, seed, **(IMAGENET | {"iterations": end}))
            rows.append(row)
            for metric, value in (
                (TEST_ERR, test[name]),
                (TRAIN_CLEAN_ERR, error),
                (protocol_err("ten_crop", 1), test[name]),
            ):
                measured += points(row["run_id"], metric, {end: value + off})
    return frames_of(rows, measured)


@pytest.mark.parametrize(
    ("claim", "shallow", "deep"),
    [("I3", "plain18-3x", "plain34-3x"), ("I16", "plain50", "plain101")],
)
def test_degradation_is_a_higher_training_error_too(claim: str, shallow: str, deep: str) -> None:
    worse = {shallow: 28.0, deep: 29.0}
    assert outcomes(claim, with_footnotes(worse, worse)) == ["holds", "holds"]
    # A network that fits its images better and tests worse overfits: it does not degrade.
    overfits = with_footnotes({shallow: 28.0, deep: 20.0}, worse)
    assert outcomes(claim, overfits) == ["opposite", "holds"]


def test_footnote_4_compares_networks_that_differ_in_depth_alone() -> None:
    shallow, deep = (EXPERIMENTS[name] for name in ("plain50", "plain101"))
    assert {part.experiments for part in IMAGENET_CLAIMS["I16"].parts} == {("plain101", "plain50")}
    assert replace(deep, name=shallow.name, depth=shallow.depth) == shallow
    # As many parameters as ResNet-101 less its projections: 44,549,160 by the paper's layout.
    projections = sum(
        conv.params
        for block in layout(EXPERIMENTS["resnet101"]).blocks
        if (conv := block.projection) is not None
    )
    assert layout(deep).params == 44_549_160 - projections


@pytest.mark.parametrize(
    ("claim", "shift"),
    [
        ("I1", {"plain34": -2.0}),
        ("I5", {"resnet34-a": 4.0}),
        ("I7", {"resnet34-a": 5.0}),
        ("I8", {"resnet18": 2.0}),
        ("I10", {"resnet34-c": 3.0}),
        ("I10", {"resnet34-b": -5.0, "resnet34-c": -6.0}),
        ("I11", {"resnet152": 3.0}),
        ("I13", {"resnet152": 1.0}),
    ],
)
def test_a_claim_is_contradicted_where_the_runs_say_the_opposite(
    claim: str, shift: dict[str, float]
) -> None:
    verdicts = {
        judgement.id: judgement.verdict for judgement in judge_claims(study_of(invented(shift)))
    }
    assert verdicts[claim] == "contradicted"


def test_early_points_are_the_first_at_or_after_their_share_of_training() -> None:
    runs, metrics = invented()
    metrics["iteration"] = metrics.iteration.replace({50_000: 54_000, 100_000: 108_000})
    verdicts = {
        judgement.id: judgement.verdict for judgement in judge_claims(study_of((runs, metrics)))
    }
    assert verdicts["I9"] == "reproduced"


def test_one_seed_decides_nothing_but_what_the_layer_lists_say() -> None:
    verdicts = {
        judgement.id: judgement.verdict
        for judgement in judge_claims(study_of(invented(seeds=(0.0,))))
    }
    assert {name for name, verdict in verdicts.items() if verdict == "reproduced"} == {
        "I12",
        "I14",
        "I15",
    }
    assert verdicts["I1"] == "undecided"


def test_figure_4_has_the_papers_axes_and_curves() -> None:
    study = study_of(invented())
    left, right = figure_4.figure_4(study).axes
    for ax, names in ((left, ["plain-18", "plain-34"]), (right, ["ResNet-18", "ResNet-34"])):
        assert ax.get_xlim() == (0, 600_000) and ax.get_ylim() == (20, 63)
        assert sorted(text.get_text() for text in ax.texts) == names
        curves = [line for line in ax.lines if len(line.get_xdata()) > 2]
        assert len(curves) == 8  # two rows, two splits, ours and the paper's
        bold = [line for line in curves if line.get_linewidth() == 2.0]
        assert {line.get_ydata()[-1] for line in bold} == {28.0}
    caption = figure_4.caption_4(study)
    assert (
        "not a clean one-crop evaluation" in caption and "axes are not the paper's" not in caption
    )
    theirs = reported.figure_4()
    late = theirs[
        (theirs.experiment == "resnet34-a")
        & (theirs.split == "val")
        & (theirs.iteration >= 500_000)
    ]
    assert late.error.mean() == pytest.approx(28.3, abs=0.06)


def test_a_page_of_a_few_iterations_says_how_it_differs() -> None:
    frames = invented(comparable=False, overrides='{"iterations": 600, "crop": 64}', iterations=600)
    frames[1].loc[
        frames[1].iteration == frames[1].groupby("run_id").iteration.transform("max"), "iteration"
    ] = 600
    study = study_of((frames[0], frames[1][frames[1].iteration <= 600]))
    assert "the x-axis ends at 600 iterations instead of 600,000" in figure_4.caption_4(study)
    assert study.title == "imagenet, crop 64, 600 of 600,000 iterations"


def test_the_report_of_imagenet_runs_is_whole() -> None:
    files = report_files(check(*invented()))
    for name in (
        "table_2.csv",
        "table_3.tex",
        "table_4.md",
        "table_5.csv",
        "figure_4.svg",
        "figure_4.origin.json",
        "table_3.origin.json",
        "runs/resnet34-a-seed-1.html",
    ):
        assert name in files, name
    assert not any(name.startswith(("table_6", "figure_1.", "figure_6")) for name in files)
    page = files["index.html"].decode()
    text = unescape(re.sub("<[^>]*>", " ", page))
    assert "ImageNet, the paper's recipe" in text and "26 cells reproduced of 26 run, of 33" in text
    assert "C1–C13 are not run: they are judged on pages of CIFAR-10" in " ".join(text.split())
    recipe = files["runs/resnet34-a-seed-1.html"].decode()
    assert "statistics_images" in recipe and "51,200" in recipe


def evaluated(**changes: object) -> dict[str, object]:
    row = {
        "evaluation": "e1",
        "kind": "peer",
        "name": "torchvision",
        "dataset_id": "1a9e",
        "protocol": "ten_crop",
        "top1_err": 22.0,
        "top5_err": 6.0,
        "count": 50_000,
        "members": "[{}]",
        "commit": "c",
        "dirty": False,
    }
    return row | changes


def test_peers_stand_in_tables_3_and_4_and_ensembles_in_table_5() -> None:
    runs, metrics = invented()
    pair = dumps(["resnet50:0", "resnet101:0"])
    rows = [
        evaluated(),
        evaluated(protocol="multi_scale", top1_err=20.0),
        evaluated(
            evaluation="e2",
            kind="ensemble",
            name="50 + 101",
            members=pair,
            protocol="multi_scale",
            top5_err=4.2,
        ),
        evaluated(
            evaluation="e3", kind="ensemble", name="of other runs", members=dumps(["elsewhere"])
        ),
        evaluated(evaluation="e4", name="on other data", dataset_id="0000"),
    ]
    frames = check(runs, metrics, evaluations=pd.DataFrame(rows))
    (study,) = split_studies(frames)
    tables = {table.name: table.printed.set_index("method") for table in study_tables(study)}
    assert tables["table_3"].loc["torchvision", "top-1 (%)"] == "22.00 (1)"
    assert tables["table_3"].loc["torchvision", "remarks"] == "peer, evaluated here"
    assert tables["table_4"].loc["torchvision", "top-1 (%)"] == "20.00 (1)"
    assert (
        "torchvision" not in tables["table_2"].index
        and "on other data" not in tables["table_3"].index
    )
    assert (
        tables["table_5"].loc["50 + 101", "top-5 (%)"] == "4.20"
        and "of other runs" not in tables["table_5"].index
    )
    assert (
        "26 cells reproduced of 26 run" in report_files(frames)["index.html"].decode()
    )  # a peer is no cell of the paper's
    again = unpack(pack(frames, {}), "here")[0]
    pd.testing.assert_frame_equal(again.evaluations, frames.evaluations)
    both = merged([("one", frames), ("two", frames)])
    assert len(both.evaluations) == len(rows)


def test_of_other_photographs_tables_have_ours_and_what_was_evaluated_here_alone() -> None:
    runs, metrics = invented(dataset="flowers", comparable=False)
    rows = [evaluated()]
    frames = check(runs, metrics, evaluations=pd.DataFrame(rows))
    (study,) = split_studies(frames)
    tables = {table.name: table for table in study_tables(study)}
    assert list(tables) == ["table_2", "table_3", "table_4"]  # no ensemble is a table without rows
    for table in tables.values():
        columns = " ".join([*table.printed])
        assert not re.search("paper|difference|verdict", columns)
        assert table.raw.paper.isna().all() and len(table.rows) == len(table.printed)
    shown = tables["table_3"].printed
    assert shown.method.tolist()[-1] == "torchvision" and "VGG-16" not in set(shown.method)
    assert list(tables["table_3"].raw.columns) == list(
        study_tables(study_of(invented()))[1].raw.columns
    )
    rows.append(evaluated(evaluation="e2", kind="ensemble", name="both", top5_err=4.2))
    rows[1]["members"] = dumps(["resnet50:0", "resnet101:0"])
    (study,) = split_studies(check(runs, metrics, evaluations=pd.DataFrame(rows)))
    assert study_tables(study)[3].printed["method"].tolist() == ["both"]
