"""`resnet-repro submit` and `jobs` against a real Ray cluster with token authentication."""

import json
import os
import re
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.execution.submission import job_name, packed
from jobs.requests.submitted_commands import check_command
from pipeline.errors import InputError
from pipeline.runs.provenance import COMMIT_FILE, source_commit
from pipeline.runs.run import read_result, stored_runs
from pipeline.storage import Storage
from tests.jobs.conftest import free_port, kill_all

TRAIN = (
    "train",
    "resnet20",
    "--data",
    "digits",
    "--set",
    "depth=8",
    "--set",
    "eval_every=10",
    "--device",
    "cpu",
    "--threads",
    "1",
)
Submit = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Submit]:
    """`cluster("submit", ...)`: the command line against a head of its own, with the cluster's
    token.
    """
    place = tmp_path_factory.mktemp("cluster")
    token = place / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    with_token = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    environment = {
        **os.environ,
        **with_token,
        "ONLY_THERE": "a secret of the cluster's",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # as where a venv is active
    dashboard = free_port()
    line = [
        Path(sys.executable).with_name("ray"),
        "start",
        "--head",
        "--block",
        "--port",
        free_port(),
        "--num-cpus",
        2,
    ]
    line += [
        "--node-ip-address",
        "127.0.0.1",
        "--dashboard-host",
        "127.0.0.1",
        "--dashboard-port",
        dashboard,
    ]
    line += [
        "--dashboard-agent-listen-port",
        free_port(),
        "--dashboard-agent-grpc-port",
        free_port(),
        "--ray-client-server-port",
        free_port(),
        "--disable-usage-stats",
    ]
    with open(place / "head.log", "w") as log:
        head = subprocess.Popen(
            [*map(str, line)], env=environment, stdout=log, stderr=log, start_new_session=True
        )

    def call(
        *arguments: str | Path, timeout: float = 180, **changed: str
    ) -> subprocess.CompletedProcess[str]:
        words = [*map(str, arguments)]
        at = 2 if words[0] in ("jobs", "bench") else 1
        words[at:at] = ["--dashboard", f"http://127.0.0.1:{dashboard}"]
        own = {**os.environ, **with_token, "COLUMNS": "200", **changed}
        own.pop("RAY_ADDRESS", None)
        program = [sys.executable, "-m", "jobs.cli", *words]
        return subprocess.run(
            program, env=own, capture_output=True, text=True, timeout=timeout, check=False
        )

    try:
        deadline = time.monotonic() + 90
        while (there := call("jobs", "list", "--json")).returncode and time.monotonic() < deadline:
            time.sleep(1)
        assert there.returncode == 0, there.stderr + (place / "head.log").read_text()
        yield call
    finally:
        kill_all(head)


@pytest.mark.ray
def test_a_submitted_run_ends_like_any_other_and_is_found_again(
    cluster: Submit, tmp_path: Path
) -> None:
    command = (*TRAIN, "--iterations", "20", "--storage", tmp_path / "s")
    done = cluster("submit", "--need", "ONLY_THERE", *command)
    assert done.returncode == 0, done.stdout + done.stderr
    name = job_name([*map(str, command)])
    assert f"{name}.1: submitted" in done.stdout and f"{name}.1: succeeded" in done.stdout
    assert "finished," in done.stdout  # the command's own output
    (run,) = stored_runs(Storage(str(tmp_path / "s")))
    result = read_result(Storage(str(tmp_path / "s")), run)
    assert result is not None and result["attempts"][0]["commit"] == source_commit()["commit"]
    again = cluster("submit", *command)
    assert (
        again.returncode == 0
        and f"{name}.2: submitted" in again.stdout
        and "finished," in again.stdout
    )
    listed = json.loads(cluster("jobs", "list", "--json").stdout)
    assert [job["state"] for job in listed if job["job"].startswith(name)] == [
        "SUCCEEDED",
        "SUCCEEDED",
    ]
    # In a pipe each job is a line, with its whole command.
    table = cluster("jobs", "list").stdout
    assert any(f"{name}.1" in line and shlex.join(map(str, command)) in line
               for line in table.splitlines()), table  # fmt: skip
    told = (
        json.dumps(listed)
        + cluster("jobs", "logs", name).stdout
        + cluster("jobs", "status", name).stdout
    )
    assert "a secret of the cluster's" not in told and "succeeded" in told


@pytest.mark.slow
@pytest.mark.ray
def test_a_job_is_joined_stopped_and_continued(cluster: Submit, tmp_path: Path) -> None:
    command = (
        *TRAIN,
        "--iterations",
        "3000",
        "--checkpoint-seconds",
        "0.5",
        "--storage",
        tmp_path / "s",
    )
    name = job_name([*map(str, command)])
    sent = cluster("submit", "--detach", *command)
    assert sent.returncode == 0 and f"{name}.1: submitted" in sent.stdout
    joined = cluster("submit", "--detach", *command)
    assert joined.returncode == 0 and f"{name}.1: is running already" in joined.stdout
    deadline = time.monotonic() + 90
    while not list(tmp_path.glob("s/runs/*/*/*/progress.json")) and time.monotonic() < deadline:
        time.sleep(0.3)
    status = json.loads(cluster("jobs", "status", name, "--json").stdout)[0]
    assert status["state"] == "RUNNING" and status["seconds_since_life"] < 60
    shown = cluster("jobs", "status", name).stdout
    assert re.search(r"resnet20 on digits.* seed 0 +running +[\d,]+/3,000", shown), shown
    (listed,) = json.loads(cluster("jobs", "list", "--json").stdout)[-1:]
    assert [run["state"] for run in listed["runs"]] == ["running"]
    stopped = cluster("jobs", "stop", name)
    assert f"{name}.1: stopped" in stopped.stdout
    assert "has ended already" in cluster("jobs", "stop", name).stdout


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.ray
def test_bench_submit_compares_with_bare_jobs(cluster: Submit) -> None:
    done = cluster("bench", "submit", "--rounds", "1", timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    ratio = "submit train / bare Ray job (expected: at most 1.5)"
    for what in ("submit train", "bare Ray job", "bare Ray Train job", ratio):
        found = re.search(rf"^ {re.escape(what)} +([\d.]+)", done.stdout, re.MULTILINE)
        assert found is not None and 0 < float(found[1]) < 100, done.stdout


@pytest.mark.ray
def test_what_goes_wrong_is_one_line(cluster: Submit, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    here = ("--storage", tmp_path / "s")
    for arguments, changed, says in (
        (("submit", "train", "resnet20"), {}, "--storage (not given) is on this machine"),
        (
            ("submit", "train", "resnet20", "--storage", "results"),
            {},
            "--storage results is on this machine",
        ),
        (
            ("submit", "train", "resnet20", "--data", tmp_path / "images", *here),
            {},
            "which the nodes do not have",
        ),
        (("submit", "ui", *here), {}, "expected one of train, grid"),
        (
            ("submit", "report", "--tracking", "http://me:word@10.0.0.5:5000", *here),
            {},
            "would be stored with the job",
        ),
        (("submit", "train", "resnet20", "--sed", "1", *here), {}, "No such option: --sed"),
        (("jobs", "logs", "nothing"), {}, "the cluster knows no such job"),
        (
            ("jobs", "list"),
            {"RAY_AUTH_TOKEN_PATH": "", "RAY_AUTH_TOKEN": "f" * 64},
            "wants another token",
        ),
    ):
        done = cluster(*arguments, **changed)
        assert done.returncode == 2, (arguments, done.stdout, done.stderr)
        assert says in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    lacking = cluster("submit", "--need", "NOBODY_SET_THIS", *TRAIN, "--iterations", "20", *here)
    assert (
        lacking.returncode != 0
        and "NOBODY_SET_THIS: is not set where this cluster was started" in lacking.stdout
    )
    refused = cluster("submit", "train", "resnet20", "--data", "cifar10", *here)
    assert (
        refused.returncode == 2 and "not prepared in" in refused.stdout
    )  # the job's own line and exit code


def test_nobody_there_is_one_line(cli: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = cli("jobs", "list", "--dashboard", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 2 and "no Ray cluster answers there" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("git", [True, False])
def test_what_is_shipped_is_small_and_says_its_commit(
    git: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not git:
        monkeypatch.setenv("PATH", "/nowhere")
    with packed() as folder:
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) < 3e6
        assert (
            (folder / "jobs" / "cli" / "main.py").is_file()
            and not (folder / ".git").exists()
            and not (folder / "tests").exists()
        )
        assert not [file for file in files if "__pycache__" in file.parts or file.name[0] == "."]
        assert set(json.loads((folder / COMMIT_FILE).read_text())) == {"commit", "dirty"}


def test_a_command_has_the_same_name_each_time() -> None:
    one, other = ["grid", "table6", "--seeds", "5"], ["grid", "table6", "--seeds", "3"]
    assert job_name(one) == job_name([*one]) != job_name(other)
    assert job_name(one).startswith("grid-table6-")
    for storage in ("s3://bucket/x", "/mnt/shared"):
        check_command(["train", "resnet20", "--storage", storage, "--data", "cifar10"])
    with pytest.raises(InputError, match="put it into storage by `resnet-repro data prepare"):
        check_command(["train", "resnet20", "--storage=/mnt/shared", "--data=./images"])
