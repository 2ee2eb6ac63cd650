"""What no cluster answers is said in seconds, and a Ray of our own finds a folder to start in."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from time import monotonic

import pytest
import ray
from ray.exceptions import RaySystemError

from jobs.execution import cluster
from pipeline.errors import InputError
from pipeline.runs.provenance import source_digest
from pipeline.runs.run import read_result, stored_runs
from pipeline.storage import Storage
from tests.jobs.conftest import free_port

ROOT = Path(__file__).parents[3]
SETTINGS_FRAME = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@contextmanager
def answering(content: bytes) -> Iterator[str]:
    """A port that answers whatever it is told with so many bytes, or never; its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            kept = []
            while True:
                try:
                    kept.append(server.accept()[0])
                    if content:
                        kept[-1].recv(1000)
                        kept[-1].sendall(content)
                except OSError:
                    return

        Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def refused(address: str) -> str:
    begun = monotonic()
    with pytest.raises(InputError) as error:
        cluster._living(address)
    assert monotonic() - begun < 2 * cluster.KNOCK_SECONDS
    return str(error.value)


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "https://ray.example.org"])
def test_a_dashboard_is_refused_with_what_to_do_instead(address: str) -> None:
    said = refused(address)
    assert address in said and "`resnet-repro submit`" in said and "RAY_ADDRESS=local" in said


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_what_is_no_ray_is_refused_and_not_waited_for(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "KNOCK_SECONDS", 0.5)
    assert "Connection refused" in refused(f"{scheme}127.0.0.1:{free_port()}")
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        assert "what answers there is no Ray" in refused(scheme + address)
    with answering(b"") as address:
        assert "timed out" in refused(scheme + address)
    with answering(SETTINGS_FRAME) as address:
        assert cluster._living(scheme + address) == scheme + address


def test_auto_is_the_cluster_of_ray_start_if_that_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    # Another command's own Ray is on loopback, and ends with that command.
    monkeypatch.setattr(cluster.services, "find_gcs_addresses", lambda: {"127.0.0.1:1"})
    said = refused("auto")
    assert "no Ray cluster runs on this machine; start one" in said and "RAY_ADDRESS=local" in said
    last = tmp_path / "ray" / "ray_current_cluster"
    last.parent.mkdir()
    last.write_text(dead := f"127.0.0.1:{free_port()}")
    assert f"({dead}, as `ray start` left it: " in refused("auto")
    with answering(SETTINGS_FRAME) as living:
        last.write_text(living)
        assert cluster._living("auto") == living


def test_a_ray_of_our_own_needs_a_short_folder_that_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    assert "_temp_dir" not in cluster._own_options()
    (tmp_path / "file").touch()
    for unusable, why in (("/tmp/" + "x" * 60, "too long for the sockets"),
                          (str(tmp_path / "file"), "")):  # fmt: skip
        monkeypatch.setenv("TMPDIR", unusable)
        assert cluster._own_options()["_temp_dir"] == f"/tmp/ray-{os.getuid()}"
        monkeypatch.setenv("RAY_TMPDIR", unusable)
        with pytest.raises(InputError, match="set RAY_TMPDIR to a short path") as error:
            cluster._own_options()
        assert why in str(error.value)
        monkeypatch.delenv("RAY_TMPDIR")


def test_without_a_home_for_it_the_token_of_our_own_ray_is_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    cluster._own_options()
    assert "RAY_AUTH_TOKEN" not in os.environ
    (tmp_path / ".ray").touch()
    cluster._own_options()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


@pytest.mark.ray
def test_a_ray_of_our_own_leaves_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is started afterwards must not take part of its settings for the user's."""
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    before = dict(os.environ)
    with cluster.connected(None, trains=True):
        assert os.environ["RAY_AUTH_MODE"] == "token" and cluster.OWN_RAY in os.environ
    assert dict(os.environ) == before
    # It is over: nothing that somebody still asks of Ray begins another.
    with pytest.raises(RaySystemError):
        ray.put(1)
    assert not ray.is_initialized()
    # One that does not start, as where Ray is told of what it does not know.
    monkeypatch.setattr(cluster, "_own_options", lambda: {"address": "local", "nothing": 1})
    with pytest.raises(InputError, match="Ray does not start"), cluster.connected(None):
        pass
    assert dict(os.environ) == before


@pytest.mark.slow
@pytest.mark.ray
def test_a_run_trains_wherever_it_is_begun(tmp_path: Path) -> None:
    """Where another checkout lies, and a module of somebody else; a long TMPDIR; a proxy."""
    there = tmp_path / "there"
    for name in ("pipeline", "jobs"):
        (there / name).mkdir(parents=True)
        (there / name / "__init__.py").write_text("raise RuntimeError('of another checkout')")
    (there / "analysis.py").write_text("raise RuntimeError('of somebody else')")
    (long := tmp_path / ("x" * 90)).mkdir()
    words = (
        "train resnet20 --data digits --set depth=8 --iterations 8 --set eval_every=8 --threads 1"
    )
    words += " --storage"
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(long),
        "http_proxy": "http://127.0.0.1:9",
        "grpc_proxy": "http://127.0.0.1:9",
    }
    environment.pop("HOME", None)
    done = subprocess.run(
        [Path(sys.executable).with_name("resnet-repro"), *words.split(), tmp_path / "s"],
        cwd=there,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    storage = Storage(str(tmp_path / "s"))
    (run,) = stored_runs(storage)
    result = read_result(storage, run)
    assert result is not None and result["attempts"][0]["source"] == source_digest()


OTHER_CODE = """
import sys
from jobs.execution.cluster import connected
from jobs.execution.launch import run_on_ray
from pipeline.errors import InputError
from pipeline.recipe.overrides import experiment_named
from pipeline.runs.execution import Execution
from pipeline.runs.run import Run

run = Run(experiment_named("resnet20", ["depth=8"], 8), "0" * 16, "digits-00000000", seed=0)
with connected(None, trains=True):
    try:
        run_on_ray(run, Execution(storage=sys.argv[1], source="0123456789abcdef"))
    except InputError as error:
        print(error)
"""


@pytest.mark.slow
@pytest.mark.ray
def test_workers_of_other_code_refuse_the_run(tmp_path: Path) -> None:
    line = [sys.executable, "-c", OTHER_CODE, str(tmp_path)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert "with other code than this command's" in done.stdout, done.stderr
    assert source_digest() in done.stdout and "0123456789abcdef" in done.stdout
    assert "`resnet-repro submit`" in done.stdout
