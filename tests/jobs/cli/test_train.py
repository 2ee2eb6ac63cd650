"""`resnet-repro train` on real Ray: the same bytes with 1 and 2 workers, and after SIGKILL at a
random moment.
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient

from analysis.measured.tags import known_tags
from pipeline.recipe.metrics import IMAGES_PER_SECOND
from pipeline.recipe.overrides import experiment_named
from pipeline.runs.checkpoint import Checkpoint, iterations, newest_checkpoint, newest_history
from pipeline.runs.run import Run, read_result
from pipeline.storage import Storage
from tests.conftest import Cli
from tests.jobs.conftest import kill_all

pytestmark = pytest.mark.ray

ITERATIONS = 120
SETTINGS = ("depth=8", "eval_every=10")
DATASET = "186de2c683d404c1"


def tiny_run() -> Run:
    return Run(
        experiment_named("resnet20", SETTINGS, ITERATIONS), DATASET, f"digits-{DATASET[:8]}", 0
    )


def command(storage: Path, workers: int) -> list[str]:
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    options = [
        "--iterations",
        str(ITERATIONS),
        "--workers",
        str(workers),
        "--threads",
        "1",
        "--checkpoint-seconds",
        "0",
    ]
    return [
        "train",
        "resnet20",
        "--data",
        "digits",
        *settings,
        *options,
        "--device",
        "cpu",
        "--storage",
        str(storage),
    ]


def ended(folder: Path) -> tuple[Checkpoint, list[tuple[int, str, float]]]:
    """The final checkpoint, and what was measured apart from speed."""
    storage, run = Storage(str(folder)), tiny_run()
    checkpoint, history = newest_checkpoint(storage, run), newest_history(storage, run)
    assert checkpoint is not None and history is not None and checkpoint.iteration == ITERATIONS
    points = [
        (p.iteration, p.metric, p.value) for p in history.points if p.metric != IMAGES_PER_SECOND
    ]
    return checkpoint, points


def assert_same(first: Path, second: Path) -> None:
    (one, measured), (two, again) = ended(first), ended(second)
    for name in ("weights.safetensors", "momentum.safetensors"):
        assert one.files[name] == two.files[name], name
    assert measured == again


@pytest.fixture(scope="module")
def uninterrupted(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("uninterrupted")
    done = cli(*command(place, workers=1))
    assert done.returncode == 0, done.stderr
    begun, ray, threads, *_ = done.stdout.splitlines()
    assert begun.startswith("training resnet20") and ray.endswith("  starting Ray")
    assert threads.endswith("  training on 1 CPU thread") and "waiting" not in done.stdout
    return place


def test_two_workers_end_with_the_bytes_of_one(
    cli: Cli, uninterrupted: Path, tmp_path: Path
) -> None:
    done = cli(*command(tmp_path, workers=2))
    assert done.returncode == 0, done.stderr
    assert_same(uninterrupted, tmp_path)


def test_a_finished_run_says_so_and_is_not_trained_again(cli: Cli, uninterrupted: Path) -> None:
    before = read_result(Storage(str(uninterrupted)), tiny_run())
    started = time.monotonic()
    done = cli(*command(uninterrupted, workers=1))
    assert done.returncode == 0
    result, report, ui = done.stdout.splitlines()
    assert re.match(r"result: \d+\.\d\d % test error after 120 iterations; .* is finished", result)
    assert report.endswith(f" report --storage {uninterrupted}")
    assert re.match("runs in the MLflow UI: .* ui --storage", ui)
    assert read_result(Storage(str(uninterrupted)), tiny_run()) == before
    assert time.monotonic() - started < 60


def test_killed_at_a_random_moment_and_continued_on_fewer_workers_ends_with_the_same_bytes(
    cli: Cli, uninterrupted: Path, tmp_path: Path
) -> None:
    storage, run = Storage(str(tmp_path)), tiny_run()
    line = [sys.executable, "-m", "jobs.cli", *command(tmp_path, workers=2)]
    process = subprocess.Popen(
        line, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not iterations(storage, run) and time.monotonic() < deadline:
        time.sleep(0.05)
    moment = random.Random(time.time_ns()).uniform(0.1, 2.0)
    time.sleep(moment)
    kill_all(process)
    reached = max(iterations(storage, run))
    assert read_result(storage, run) is None and 0 < reached < ITERATIONS, (
        f"killed after {moment} s at {reached}"
    )
    for left in list((tmp_path / "ray").iterdir()):  # a snapshot that was cut while Ray wrote it
        (left / "checkpoint_manager_snapshot.json").write_bytes(b"")
    done = cli(*command(tmp_path, workers=1))
    assert done.returncode == 0, done.stderr
    history = newest_history(storage, run)
    assert history is not None and history.attempts[-1]["from_iteration"] > 0
    assert_same(uninterrupted, tmp_path)


@pytest.mark.slow
def test_elastic_it_takes_both_cpus_and_ends_with_the_same_bytes(
    cli: Cli, uninterrupted: Path, tmp_path: Path
) -> None:
    line = command(tmp_path, workers=1)
    line[line.index("--workers") + 1] = "1:4"
    done = cli(*line)
    assert done.returncode == 0, done.stderr
    result = read_result(Storage(str(tmp_path)), tiny_run())
    assert (
        result is not None and result["attempts"][0]["world_size"] == 2
    )  # both CPUs, and both groups of images
    # Of GPUs' kernels: on a CPU there is nothing to choose.
    assert result["attempts"][0]["deterministic"] is False
    assert_same(uninterrupted, tmp_path)


def test_a_second_copy_of_a_command_says_who_holds_the_run(cli: Cli, tmp_path: Path) -> None:
    line = [word if word != str(ITERATIONS) else "50000" for word in command(tmp_path, workers=1)]
    first = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *line],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )
    try:
        deadline = time.monotonic() + 120
        while (
            not list(tmp_path.glob("runs/*/*/*/checkpoints/*/manifest.json"))
            and time.monotonic() < deadline
        ):
            time.sleep(0.1)
        second = cli(*line)
        assert second.returncode == 2
        assert (
            f"is being trained by process {first.pid} on {os.uname().nodename}"
            in second.stderr.splitlines()[-1]
        )
        assert first.poll() is None
        client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
        experiment = client.get_experiment_by_name("resnet-repro")
        assert experiment is not None
        (run,) = client.search_runs([experiment.experiment_id], "tags.kind = 'run'")
        assert (
            run.info.status == "RUNNING" and "reason" not in run.data.tags
        )  # the refused command says nothing of it
        first.send_signal(signal.SIGINT)
        _, said = first.communicate(timeout=60)
        assert first.returncode == 130, said.decode()
        assert not list(tmp_path.glob("runs/*/*/*/lease.json"))
    finally:  # 50,000 iterations would go on beside the tests that follow
        first.kill()


@pytest.mark.slow
def test_how_a_run_was_computed_is_recorded_and_published(cli: Cli, tmp_path: Path) -> None:
    done = cli(*command(tmp_path, workers=1), "--one-pass", "--compile")
    assert done.returncode == 0, done.stderr
    result = read_result(Storage(str(tmp_path)), tiny_run())
    assert result is not None
    (attempt,) = result["attempts"]
    assert attempt["one_pass"] is True and attempt["compiled"] is True
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("resnet-repro")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "tags.kind = 'run'")
    tags = known_tags(run.data.tags)
    assert (tags["one_pass"], tags["compiled"]) == ("True", "True")
    (parent,) = client.search_runs([experiment.experiment_id], "tags.kind = 'experiment'")
    assert parent.data.tags["verdict"] == "not compared" and parent.data.metrics["n"] == 1
