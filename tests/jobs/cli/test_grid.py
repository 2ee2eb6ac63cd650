"""`resnet-repro grid` from rows to a verdict: real Ray Tune and Train, a real MLflow server, and
the report.
"""

import re
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from analysis.measured.frames import load
from pipeline.data.stored import write_dataset
from pipeline.recipe.metrics import TEST_ERR
from pipeline.recipe.overrides import experiment_named
from pipeline.runs.run import Run, start_run
from pipeline.storage import Storage
from pipeline.training.loop import train
from pipeline.training.step.process_group import single_process
from tests.conftest import Cli
from tests.pipeline.training.small_runs import digits_once

pytestmark = pytest.mark.ray

GRID = (
    "plain20",
    "resnet20",
    "--data",
    "digits",
    "--seeds",
    "2",
    "--iterations",
    "20",
    "--set",
    "depth=8",
    "--set",
    "eval_every=5",
)


@pytest.fixture(scope="module")
def told(cli: Cli, server: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The storage of a finished grid, and what its command printed."""
    place = tmp_path_factory.mktemp("grid")
    done = cli("grid", *GRID, "--storage", str(place), "--tracking", server, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return place, done.stdout


@pytest.fixture(scope="module")
def grid(told: tuple[Path, str]) -> Path:
    """The storage of a finished grid."""
    return told[0]


def test_its_log_begins_with_ray_and_threads_and_ends_with_the_result(
    told: tuple[Path, str], server: str
) -> None:
    place, said = told
    lines = said.splitlines()
    moment = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  "
    begins = [line for line in lines if re.fullmatch(f"{moment}starting Ray", line)]
    threads = r"\d+ runs at once, each on 1 CPU thread \(chosen; --threads says it\)"
    chosen = [line for line in lines if re.fullmatch(moment + threads, line)]
    assert len(begins) == len(chosen) == 1 and lines.index(begins[0]) < lines.index(chosen[0])
    ends = rf"{moment}(plain|resnet)20 seed [01]: finished, train .* %, test .* %; \d of 4 runs.*"
    assert len([line for line in lines if re.fullmatch(ends, line)]) == 4, said
    assert "test errors so far: plain20 " in said and len(set(lines)) == len(lines)

    table = pd.read_csv(place / "report" / "table_6.csv").set_index("experiment")
    result, *rows, claims, undecided, report, ui, views = lines[-8:]
    assert result == "result: test error (%) on digits, mean ± std (seeds)"
    assert claims.startswith("claims of the paper, by these runs on digits, ")
    assert undecided.strip().startswith("undecided: C6, C12 (3 seeds a row are the ")
    for row, name in zip(rows, ("plain20", "resnet20"), strict=True):
        mean, std = table["mean"][name], table["std"][name]
        assert row.split() == [name, f"{mean:.2f}", "±", f"{std:.2f}", "(2)"]
    assert report.startswith(f"report: {place}/report/index.html")
    page = f"{server}/#/experiments/1/runs?viewStateShareKey="
    assert ui.startswith(f"runs in the MLflow UI: {page}curves")
    assert views.startswith(f"the results there: {page}results")


def test_the_report_holds_table_figures_and_claims(grid: Path) -> None:
    table = pd.read_csv(grid / "report" / "table_6.csv")
    measured = table[table.n > 0]
    assert set(measured.experiment) == {"plain20", "resnet20"} and set(measured.n) == {2}
    for name in ("index.html", "figure_1.svg", "figure_1.png", "figure_6.svg", "claims.md"):
        assert (grid / "report" / name).stat().st_size > 500


def test_mlflow_holds_each_point_once_under_its_parent(grid: Path, server: str) -> None:
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("resnet-repro")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'run'")
    parents = client.search_runs([experiment.experiment_id], "tags.kind = 'experiment'")
    assert len(runs) == 4 and len(parents) == 2
    for run in runs:
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] in {parent.info.run_id for parent in parents}
        assert run.data.params["lr"] == "0.1" and run.data.tags["commit"]
        steps = [point.step for point in client.get_metric_history(run.info.run_id, TEST_ERR)]
        assert steps == [5, 10, 15, 20]
        assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
            "result.json",
            "model",
        }


def test_mlflow_is_a_place_to_look(grid: Path, server: str, cli: Cli) -> None:
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("resnet-repro")
    assert experiment is not None
    table = pd.read_csv(grid / "report" / "table_6.csv").set_index("experiment")
    for parent in client.search_runs([experiment.experiment_id], "tags.kind = 'experiment'"):
        name, metrics = parent.data.tags["experiment"], parent.data.metrics
        assert (
            parent.info.run_name == f"{name} on digits (20 iterations, depth=8, eval_every=5)"
            and parent.info.status == "FINISHED"
        )
        assert metrics["mean"] == round(table.loc[name, "mean"], 2)
        assert metrics["std"] == round(table.loc[name, "std"], 2)
        assert metrics["n"] == 2
        assert parent.data.tags["verdict"] == "not compared" and "paper" not in metrics
        assert "dataset is digits, not CIFAR-10" in parent.data.tags["mlflow.note.content"]
    seeds = client.search_runs(
        [experiment.experiment_id], "tags.kind = 'run' and tags.experiment = 'resnet20'"
    )
    assert sorted(run.info.run_name for run in seeds) == ["resnet20 seed 0", "resnet20 seed 1"]
    assert all(len(run.data.metrics) <= 25 for run in seeds)


def test_final_models_are_registered_and_score_what_their_cards_say(
    grid: Path, server: str, cli: Cli
) -> None:
    client = MlflowClient(server)
    (model,) = client.search_registered_models("name LIKE 'resnet20-digits-%'")
    assert set(model.aliases) == {"seed-0", "seed-1", "median"}
    versions = client.search_model_versions(f"name = '{model.name}'")
    assert sorted(version.tags["seed"] for version in versions) == ["0", "1"]
    version = versions[0]
    assert f"Test error: {version.tags['test_err']} %" in version.description
    files = Path(client.download_artifacts(version.run_id, "model", str(grid)))
    assert (files / "README.md").read_text() == version.description
    options = ("--as", "resnet20", "--data", "digits", "--set", "depth=8", "--storage", grid)
    result, report, ui = cli(
        "evaluate", files / "weights.safetensors", *options
    ).stdout.splitlines()
    assert result.startswith(f"{version.tags['test_err']} % of 360")
    assert report.startswith("report: ") and report.endswith(f" report --storage {grid}")
    assert ui.startswith("runs in the MLflow UI: ") and ui.endswith(f" ui --storage {grid}")


@pytest.mark.slow
def test_a_sweep_is_reported_apart_from_the_reproduction(cli: Cli, grid: Path, server: str) -> None:
    options = (*GRID[1:], "--set", "lr=0.05,0.1", "--storage", str(grid), "--tracking", server)
    done = cli("grid", *options, timeout=400)
    assert done.returncode == 0 and "4 runs on digits-186de2c6, 2 finished before" in done.stdout, (
        done.stdout + done.stderr
    )
    (page,) = (grid / "report").glob("sweep-lr-*/index.html")
    assert "Apart from the reproduction" in page.read_text()
    table = pd.read_csv(page.parent / "sweep.csv")
    assert table.change.tolist() == ["lr=0.05", "lr=0.1"] and table.n.tolist() == [2, 2]
    assert table.unchanged.tolist() == [False, True]
    assert table.difference[0] == pytest.approx(table["mean"][0] - table["mean"][1])
    (study,) = (grid / "report").glob("digits-*/table_6.csv")
    of_study = pd.read_csv(study).set_index("experiment")
    assert of_study["mean"]["resnet20"] == pytest.approx(table["mean"][1])
    # The report is about the whole storage; the grid has one of its own within.
    assert of_study.n[["plain20", "resnet20"]].tolist() == [2, 2]
    (own,) = (grid / "report" / "resnet20").glob("digits-*/table_6.csv")
    assert pd.read_csv(own).set_index("experiment").n[["plain20", "resnet20"]].tolist() == [0, 2]
    for folder in (grid / "report", grid / "report" / "resnet20"):
        assert cli("audit", folder).returncode == 0


def test_the_same_command_again_trains_nothing_and_doubles_nothing(
    cli: Cli, grid: Path, server: str
) -> None:
    before = load(grid / "export")
    done = cli("grid", *GRID, "--storage", str(grid), "--tracking", server)
    assert done.returncode == 0 and "4 runs on digits-186de2c6, 4 finished before" in done.stdout
    pd.testing.assert_frame_equal(before[1], load(grid / "export")[1])


def test_the_report_comes_from_the_exported_files_alone_too(
    cli: Cli, grid: Path, server: str, tmp_path: Path
) -> None:
    told = cli(
        "report", "--storage", str(grid), "--tracking", server, "--out", str(tmp_path / "told")
    )
    offline = cli("report", "--from", str(grid / "export"), "--out", str(tmp_path / "offline"))
    assert told.returncode == offline.returncode == 0, told.stderr + offline.stderr
    made = [
        file.relative_to(tmp_path / "told")
        for file in (tmp_path / "told").rglob("*")
        if file.is_file()
    ]
    assert len([name for name in made if name.name == "table_6.csv"]) == 1
    for name in made:
        assert (tmp_path / "told" / name).read_bytes() == (tmp_path / "offline" / name).read_bytes()


@pytest.mark.slow
def test_a_diverging_run_does_not_stop_the_others_and_is_reported(cli: Cli, tmp_path: Path) -> None:
    rows = (
        "plain20",
        "resnet20",
        "--data",
        "digits",
        "--iterations",
        "20",
        "--set",
        "depth=8",
        "--set",
        "eval_every=20",
    )
    bad = ("--set", "norm=none", "--set", "lr=1e6")
    for _ in range(2):  # the second time there is nothing left to train, and as much to say
        done = cli("grid", *rows, *bad, "--storage", tmp_path, timeout=400)
        assert done.returncode == 1
        assert done.stderr.count("diverged: the loss is no longer finite") == 2
        assert "2 of 2 runs diverged, which trying again would repeat" in done.stderr


@pytest.mark.slow
def test_until_decided_asks_for_more_seeds_and_splits_the_level(cli: Cli, tmp_path: Path) -> None:
    """Both rows become the same network, so that no number of seeds can part them; most runs are
    there already.
    """
    settings = ("depth=8", "eval_every=4")
    options = (
        "--data",
        "digits",
        "--iterations",
        "8",
        *(word for one in settings for word in ("--set", one)),
        "--storage",
        tmp_path,
    )
    storage, dataset = Storage(str(tmp_path)), digits_once()
    write_dataset(storage, dataset, {"kind": "embedded"})
    for name in ("plain20", "plain56"):
        for seed in (*range(4), *range(5, 9)):
            run = Run(experiment_named(name, settings, 8), dataset.id, dataset.key, seed)
            start_run(storage, run, 1)
            train(run, dataset, storage, single_process())
    done = cli("grid", "plain20", "plain56", "--until-decided", *options, timeout=580)
    assert done.returncode == 0, done.stdout + done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("undecided with")]
    assert [line.split(":")[0] for line in said] == ["undecided with 5 seeds"]
    assert all("C1" in line for line in said)
    page = (tmp_path / "report" / "index.html").read_text()
    assert "looked at with 5 and 10 seeds, each time at 2.5 %" in page
    assert (
        pd.read_csv(tmp_path / "report" / "table_6.csv").set_index("experiment").n["plain56"] == 10
    )


@pytest.mark.slow
def test_until_decided_chooses_the_seeds_itself(cli: Cli, tmp_path: Path) -> None:
    done = cli("grid", "figure1", "--until-decided", "--seeds", "4", "--storage", tmp_path)
    assert done.returncode == 2 and "looks at 5, 10 seeds; leave --seeds out" in done.stderr
