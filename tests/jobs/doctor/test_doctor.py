"""`resnet-repro doctor`: what follows from facts, what a server says to a node, and the command on
this machine.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch

from jobs.doctor.findings import Finding, judge, judge_link, judge_sharing
from jobs.execution import processors
from jobs.execution.node_facts import Facts, Question
from jobs.execution.processors import GpuFacts
from jobs.tracking.server_check import tracking_trouble
from pipeline.data.stored import write_dataset
from pipeline.runs.provenance import source_digest, versions
from pipeline.storage import Storage
from tests.conftest import Cli
from tests.jobs.conftest import free_port
from tests.pipeline.training.small_runs import digits_once

GB = 10**9
HERE = Facts(
    "here",
    "",
    False,
    1000.0,
    versions(),
    source_digest(),
    "EPYC",
    True,
    0,
    0,
    "",
    "",
    "",
    seconds=2.0,
)
ASKED = Question("/mnt/shared", ".probe", "http://10.0.0.9:5000", "0123456789abcdef")


def node(**changes: Any) -> Facts:
    """A node that is as it should be, but for the changes."""
    good = replace(
        HERE,
        host="node-b",
        address="10.0.0.2",
        time=1001.0,
        mine=".probe-b",
        shared_memory=8 * GB,
        free={"Ray": 99 * GB},
    )
    return replace(good, **changes)


def judged(
    *facts: Facts, silent: tuple[str, ...] = (), unseen: dict[str, str] | None = None
) -> list[Finding]:
    """Findings that are not fine."""
    return [one for one in judge(facts, silent, unseen or {}, HERE, ASKED) if one.level != "fine"]


def test_nothing_is_found_of_good_nodes() -> None:
    found = judge([node(), node(host="node-c")], [], {}, HERE, ASKED)
    assert [one.level for one in found] == ["fine"] * 6
    assert {one.subject for one in found} == {
        "versions",
        "storage",
        "MLflow",
        "data",
        "disk",
        "clocks",
    }


@pytest.mark.parametrize(
    ("changes", "level", "says", "remedy"),
    [
        (
            {"versions": {**versions(), "torch": "1.0"}},
            "problem",
            "torch 1.0 (here",
            "pip install --constraint",
        ),
        (
            {"versions": {**versions(), "mlflow": "1.0"}},
            "warning",
            "mlflow 1.0 (here",
            "pip install --constraint",
        ),
        ({"source": "another"}, "problem", "this package's code another", "of this commit"),
        (
            {"writes": "Permission denied"},
            "problem",
            "cannot be written (Permission denied)",
            "mount the same folder",
        ),
        ({"reads": "No such file"}, "problem", "is another place there", "s3://bucket/place"),
        (
            {"tracking": "cannot be reached (refused): start it", "head": True},
            "problem",
            "cannot be reached",
            "start it",
        ),
        (
            {"tracking": "cannot be reached (refused): start it"},
            "warning",
            "cannot be reached",
            "start it",
        ),
        ({"data": "3 of 9 files are missing"}, "problem", "3 of 9 files", "data prepare"),
        (
            {"free": {"Ray's session folder /tmp": GB // 2}},
            "problem",
            "0.5 GB left for Ray's session",
            "make room",
        ),
        ({"free": {"Ray's session folder /tmp": 5 * GB}}, "warning", "5.0 GB left", "make room"),
        ({"shared_memory": GB // 16}, "warning", "0.1 GB left in /dev/shm", "--shm-size"),
        ({"time": 2000.0}, "warning", "998 s away", "chrony"),
        ({"time": 900.0}, "warning", "100 s away", "chrony"),
        ({"gpus": 8, "gpus_seen": 7}, "problem", "Ray counts 8, torch finds 7", "--num-gpus"),
    ],
)
def test_what_is_wrong_with_a_node_is_one_line_with_its_remedy(
    changes: dict[str, Any], level: str, says: str, remedy: str
) -> None:
    (found,) = judged(node(host="node-a", address="10.0.0.1"), node(**changes))
    assert (
        found.level == level
        and says in found.says
        and remedy in found.remedy
        and "\n" not in found.says
    )
    assert "node-b (10.0.0.2)" in found.says


H200 = GpuFacts("NVIDIA H200", "580.65.06", "13.0", "91900", 138 * GB, 141 * GB, "")


def test_gpus_are_told_by_their_kind_and_those_that_compute_wrongly_by_their_number() -> None:
    good = node(gpus=2, gpus_seen=2, cards=(H200, replace(H200, free=90 * GB)), mps="process 7")
    (fine,) = (one for one in judge([good], [], {}, HERE, ASKED) if one.subject == "GPUs")
    assert fine.level == "fine" and "at least 90 GB free" in fine.says
    assert fine.says.startswith("2 x NVIDIA H200, driver 580.65.06, CUDA 13.0, cuDNN 91900")
    wrong = replace(H200, trouble="a matrix product is off by 3.1")
    (found,) = judged(replace(good, cards=(H200, wrong)))
    assert found.level == "problem" and "node-b (10.0.0.2): GPU 1 (NVIDIA H200" in found.says
    assert "off by 3.1" in found.says and "nvidia-smi" in found.remedy
    (kinds,) = judged(replace(good, cards=(H200, replace(H200, name="NVIDIA H100"))))
    assert kinds.level == "warning" and "--allow-drift" in kinds.remedy
    (lost,) = judged(replace(good, gpus_seen=0, cards=(), cards_trouble="no kernel ended"))
    assert lost.level == "problem" and "could not be tried (no kernel ended)" in lost.says


@pytest.mark.parametrize(
    ("gpus", "mps", "asked", "level", "says"),
    [
        (1, "", 0.25, "warning", "take turns, which gains nothing"),
        (1, "", 1.0, "fine", "take turns, which gains nothing"),
        (1, "process 7", 0.25, "fine", "processes may share a GPU"),
    ],
)
def test_what_fractions_of_a_gpu_gain_is_said(
    gpus: int, mps: str, asked: float, level: str, says: str
) -> None:
    (found,) = judge_sharing([node(gpus=gpus, mps=mps)], asked)
    assert found.level == level and says in found.says


def test_nothing_is_said_of_mps_without_gpus() -> None:
    assert judge_sharing([node()], 0.0) == []


def test_a_kernel_is_checked_against_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert processors.kernel_trouble(cpu) == ""
    # fp32 rounds: with no tolerance at all it is off, as a GPU that computes wrongly would be.
    monkeypatch.setattr(processors, "TOLERANCE", 0.0)
    assert "a matrix product is off by" in processors.kernel_trouble(cpu)


def test_gpus_are_examined_in_a_process_of_their_own() -> None:
    # On CPUs there are none: it has loaded torch and looked.
    assert len(processors.examine_gpus()) == processors.usable_gpus()


def test_mps_is_seen_by_its_daemon_or_its_pipe(tmp_path: Path) -> None:
    pipes, processes = tmp_path / "pipes", tmp_path / "proc"
    for name, command in (("7", "python3"), ("8", "nvidia-cuda-mps")):
        (processes / name).mkdir(parents=True)
        (processes / name / "comm").write_text(f"{command}\n")
    assert processors.mps_sign({}, pipes, processes) == "process 8"
    (processes / "8" / "comm").unlink()
    assert processors.mps_sign({}, pipes, processes) == ""
    pipes.mkdir()
    (pipes / "control").touch()
    assert processors.mps_sign({}, pipes, processes) == str(pipes / "control")
    elsewhere = {"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path / "elsewhere")}
    assert processors.mps_sign(elsewhere, pipes, processes) == ""


def test_nodes_that_do_not_answer_or_write_elsewhere_are_named() -> None:
    silent, elsewhere = judged(
        node(), silent=("node-c (10.0.0.3)",), unseen={"10.0.0.2": "does not arrive here"}
    )
    assert silent.subject == "node node-c (10.0.0.3)" and "restart Ray there" in silent.remedy
    assert "is another place there: does not arrive here" in elsewhere.says
    (kinds,) = judged(node(), node(hardware="Xeon"))
    assert kinds.level == "warning" and "1 x EPYC; 1 x Xeon" in kinds.says


def test_a_head_that_trains_nothing_may_be_of_another_kind() -> None:
    assert judged(node(), node(hardware="Xeon", trains=False)) == []
    (alone,) = judged(node(trains=False))
    assert alone.subject == "nodes" and alone.level == "warning"


def test_a_slow_network_is_said_in_gradients() -> None:
    assert judge_link(1e9, 4).level == "fine" and "take 0.10 s" in judge_link(1e9, 4).says
    assert judge_link(10e6, 2).level == "warning" and "take 10.20 s" in judge_link(10e6, 2).says


@pytest.fixture
def answering() -> Iterator[Any]:
    """A server that answers with a status and a body, as told; and what it was asked with."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        status, body = 200, b"{}"

        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            self.send_response(self.status)
            self.end_headers()
            self.wfile.write(self.body)

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server, Handler, seen
    server.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, b'{"experiment": {"experiment_id": "1", "lifecycle_stage": "active"}}', ""),
        (200, b'{"experiment": {"experiment_id": "1", "lifecycle_stage": "deleted"}}', "restore"),
        (404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such"}', ""),
        (404, b"nothing here", "answers 404"),
        (200, b"<html>", "is no MLflow server"),
        (403, b"Invalid Host header - possible DNS rebinding attack detected", "--allowed-hosts"),
        (401, b"", "MLFLOW_TRACKING_USERNAME"),
        (500, b"", "answers 500"),
    ],
)
def test_what_an_mlflow_server_answers_is_understood(
    answering: Any, status: int, body: bytes, says: str
) -> None:
    server, handler, seen = answering
    handler.status, handler.body = status, body
    found = tracking_trouble(f"http://someone:pa55@127.0.0.1:{server.server_port}")
    assert (says in found) if says else found == ""
    assert "pa55" not in found and seen[-1].startswith("Basic ")


def test_nobody_there_is_said_with_what_to_do() -> None:
    found = tracking_trouble(f"http://127.0.0.1:{free_port()}")
    assert found.startswith("cannot be reached (") and "open its port" in found
    assert tracking_trouble("sqlite:////tmp/x.db") == ""


@pytest.mark.ray
def test_the_command_examines_this_machine(cli: Cli, tmp_path: Path) -> None:
    place = tmp_path / "s"
    write_dataset(Storage(str(place)), digits_once(), {"kind": "embedded"})
    away = f"http://127.0.0.1:{free_port()}"
    line = (
        "doctor",
        "--storage",
        place,
        "--data",
        "digits",
        "--device",
        "cpu",
        "--workers",
        "4096",
        "--tracking",
        away,
    )
    done = cli(*line, "--json")
    assert done.returncode == 1, done.stdout + done.stderr
    found = {one["subject"]: (one["level"], one["says"]) for one in json.loads(done.stdout)}
    assert {subject for subject, (level, _) in found.items() if level == "problem"} == {
        "MLflow",
        "resources",
    }
    assert (
        "cannot be reached" in found["MLflow"][1]
        and "the cluster has room for" in found["resources"][1]
    )
    assert {"versions", "storage", "data", "clocks"} <= found.keys()
    assert not list(place.glob(".doctor*"))
    assert cli("doctor", "--storage", place, "--data", "cifar10").returncode == 2
