"""`make two-nodes`: the guide's way through a cluster, on two nodes with addresses of their own, as
root.

Token authentication, a shared folder, MLflow on Postgres with artifacts in S3 and a password. First
the way: doctor, plan, submit a grid, lose a node in the middle, and come back to results, a report,
and runs in the MLflow UI. Then everything that is known to go wrong on clusters, each of which has
to end in one line with its remedy. Both are written to PLACE/two-nodes.md.
"""

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient

from jobs.execution.submission import job_name
from jobs.tracking.store import our_runs
from pipeline.recipe.schedule import expected_points
from pipeline.runs.run import read_result, stored_runs
from pipeline.storage import Storage
from tests.chaos.nodes import QUIET, Namespaces, namespaces_possible
from tests.postgres import binaries
from tests.tracking_server import TrackingServer, tracking_server

GRID = [
    "grid",
    "plain20",
    "resnet20",
    "--data",
    "digits",
    "--seeds",
    "2",
    "--iterations",
    "600",
    "--set",
    "depth=8",
    "--set",
    "eval_every=100",
]
CARRIED_OUT = ["--threads", "1", "--device", "cpu", "--checkpoint-seconds", "1"]
PATIENCE_SECONDS = 300.0
OURS = ".two-nodes"
"""Marks a folder that may be made anew."""
BOUND_SECONDS = 60.0
"""Within which a mistake has to be named."""


@dataclass(frozen=True)
class Step:
    """What was done, how long it took, what it said, and whether that is as it should be."""

    what: str
    seconds: float
    says: str
    good: bool


class Walk:
    """A cluster of two nodes with all its servers, commands given on its head, and what came of
    them.
    """

    def __init__(self, place: Path, server: TrackingServer, nodes: Namespaces) -> None:
        self.place, self.server, self.steps = place, server, list[Step]()
        self.storage = place / "shared"
        token = place / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        self.nodes = nodes
        self.nodes.dashboard = True
        self.nodes.environment = {
            **QUIET,
            **server.access,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RESNET_REPRO_CACHE": str(place / "cache"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        (place / "cache").mkdir(exist_ok=True)

    def call(self, *words: str, **changed: str) -> subprocess.CompletedProcess[str]:
        """A command given on the head."""
        environment = os.environ | self.nodes.environment | changed
        line = self.nodes.inside("a", [sys.executable, "-m", "jobs.cli", *words])
        return subprocess.run(
            line,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )

    def step(self, what: str, code: int, part: str, *words: str, **changed: str) -> str:
        """Give a command, and note whether it ends with this code and a line that says this; all
        that it said.
        """
        began = time.monotonic()
        done = self.call(*words, **changed)
        said = done.stdout + done.stderr
        lines = [line.strip() for line in said.splitlines() if part in line]
        good = done.returncode == code and bool(lines) and "Traceback" not in said
        self.note(
            what, began, lines[-1] if lines else f"exit code {done.returncode}: {said[-600:]}", good
        )
        return said

    def mistake(self, what: str, code: int, part: str, *words: str, **changed: str) -> None:
        """The same of something that cannot work: within a bounded time, too."""
        self.step(what, code, part, *words, **changed)
        if self.steps[-1].seconds > BOUND_SECONDS:
            self.steps[-1] = Step(what, self.steps[-1].seconds, "took too long", False)

    def note(self, what: str, began: float, says: str, good: bool) -> None:
        step = Step(what, time.monotonic() - began, says.replace(str(self.place), "PLACE"), good)
        self.steps.append(step)
        print(
            f"{'good' if good else 'BAD '} {step.seconds:5.1f} s  {what}: {step.says}", flush=True
        )

    def wait(self, what: str, there: Callable[[], bool]) -> None:
        """Until something is so.

        Raises:
            TimeoutError: it never is.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not there():
            if time.monotonic() > deadline:
                raise TimeoutError(what)
            time.sleep(0.3)


def main() -> int:
    """Walk it; 0 if every step was as it should be."""
    parser = argparse.ArgumentParser(prog="make two-nodes", description=__doc__)
    parser.add_argument("--place", type=Path, default=Path("results/two-nodes"), help="made anew")
    place = parser.parse_args().place.resolve()
    lacking = namespaces_possible() or ("" if binaries() else "Postgres is not installed")
    if lacking:
        print(f"error: no cluster of two nodes here: {lacking}", file=sys.stderr)
        return 2
    if place.exists() and any(place.iterdir()):
        if not (place / OURS).exists():
            print(f"error: {place} holds something else; name another --place", file=sys.stderr)
            return 2
        shutil.rmtree(place)
    place.mkdir(parents=True, exist_ok=True)
    (place / OURS).touch()
    nodes = Namespaces(place)  # first, as the server listens on an address of its bridge
    try:
        with tracking_server(place, nodes.host) as server:
            walk = Walk(place, server, nodes)
            try:
                nodes.start("a", "b")
                the_way(walk)
                mistakes(walk)
            finally:
                (place / "two-nodes.md").write_text(_table(walk.steps))
                nodes.kill("a", "b")
    finally:
        nodes.close()
    bad = [step for step in walk.steps if not step.good]
    print(
        f"\n{len(walk.steps) - len(bad)} of {len(walk.steps)} steps are as they should be; "
        f"{place / 'two-nodes.md'}"
    )
    return 1 if bad else 0


def the_way(walk: Walk) -> None:
    """From an empty storage to a report, with a node lost on the way."""
    storage = ["--storage", str(walk.storage)]
    where = [*storage, "--tracking", walk.server.uri]
    walk.step("prepare the data", 0, "digits", "submit", "data", "prepare", "digits", *storage)
    examined = ["--data", "digits", "--workers", "2", "--device", "cpu"]
    said = walk.step("doctor", 0, "there is room for 2", "submit", "doctor", *where, *examined)
    worst = [line for line in said.splitlines() if line.startswith("problem")]
    walk.note("doctor finds nothing", time.monotonic(), "; ".join(worst) or "no problem", not worst)
    walk.step(
        "plan",
        0,
        "wall time",
        "submit",
        "plan",
        *GRID[1:],
        "--device",
        "cpu",
        "--threads",
        "1",
        *storage,
    )
    grid = [*GRID, *CARRIED_OUT, *where]
    walk.step("submit the grid", 0, "submitted", "submit", "--detach", *grid)
    walk.step("submit it a second time", 0, "is running already", "submit", "--detach", *grid)
    name = job_name(grid)
    walk.wait(
        "both nodes train", lambda: len(list(walk.storage.glob("runs/*/*/*/progress.json"))) == 2
    )
    began = time.monotonic()
    walk.nodes.kill("b")
    time.sleep(5)
    walk.nodes.start("b")
    walk.note(
        "node b is lost, and another joins 5 s later", began, "killed with all its processes", True
    )
    status = json.loads(walk.call("jobs", "status", name, "--json").stdout)[0]
    said = f"{status['state']}, a sign of life {status['seconds_since_life']:.0f} s ago"
    walk.note("jobs status", time.monotonic(), said,
              status["state"] == "RUNNING")  # fmt: skip
    walk.step("follow it to its end", 0, "succeeded", "jobs", "logs", name, "--follow")
    said = walk.call("jobs", "logs", name).stdout
    compared = [line for line in said.splitlines() if "planned were" in line]
    walk.note(
        "plan and actual side by side",
        time.monotonic(),
        compared[-1] if compared else "not said",
        bool(compared),
    )
    _results(walk)
    walk.step("audit of the report", 0, "every file is what", "audit", str(walk.storage / "report"))
    walk.step("submit it once more, finished", 0, "4 finished before", "submit", *grid)


def _results(walk: Walk) -> None:
    """Every run finished, in storage and in MLflow with each of its points once, and in the UI."""
    began, storage = time.monotonic(), Storage(str(walk.storage))
    runs = stored_runs(storage)
    results = [read_result(storage, run) or {} for run in runs]
    attempts = sum(len(result.get("attempts", [])) for result in results)
    finished = sum(result.get("status") == "finished" for result in results)
    walk.note(
        "results",
        began,
        f"{finished} runs finished in {attempts} attempts",
        finished == 4 and attempts > 4,
    )
    began = time.monotonic()
    os.environ.update(walk.server.access)
    client = MlflowClient(walk.server.uri)
    there, wrong = our_runs(client), 0
    for run in runs:
        stored = there[run.key]
        points = [
            (m, p.step)
            for m in stored.data.metrics
            for p in client.get_metric_history(stored.info.run_id, m)
        ]
        wrong += sorted(points) != sorted(expected_points(run.experiment))
    walk.note(
        "runs in MLflow",
        began,
        f"{len(there)}, {wrong} with points lost or doubled",
        len(there) == 4 and not wrong,
    )
    began = time.monotonic()
    if (chromium := shutil.which("chromium")) is None:
        walk.note("runs in the MLflow UI", began, "no chromium here to look", False)
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        access = {"username": walk.server.user, "password": walk.server.word}
        page = browser.new_page(http_credentials=access, viewport={"width": 1600, "height": 900})  # type: ignore[arg-type]
        experiment = client.get_experiment_by_name("resnet-repro")
        assert experiment is not None
        page.goto(
            f"{walk.server.uri}/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
        )
        link = page.get_by_role("link", name="resnet20").first
        link.wait_for(timeout=60_000)
        page.screenshot(path=walk.place / "mlflow.png")
        walk.note(
            "runs in the MLflow UI",
            began,
            f"Chromium shows {link.inner_text()!r}",
            link.is_visible(),
        )
        browser.close()


def mistakes(walk: Walk) -> None:
    """What is known to go wrong, each made on purpose."""
    storage = ["--storage", str(walk.storage)]
    where = [*storage, "--tracking", walk.server.uri]
    cluster = ["--address", walk.nodes.cluster]
    doctor = ["doctor", *where, "--device", "cpu", *cluster]
    home = walk.place / "home"
    home.mkdir()
    another = {"RAY_AUTH_TOKEN_PATH": "", "RAY_AUTH_TOKEN": "f" * 64}
    walk.mistake("wrong token, jobs", 2, "wants another token", "jobs", "list", **another)
    walk.mistake("wrong token, cluster", 2, "wants another token", *doctor, **another)
    none = {"RAY_AUTH_TOKEN_PATH": "", "HOME": str(home)}
    walk.mistake("no token, jobs", 2, "wants another token", "jobs", "list", **none)
    walk.mistake("no token, cluster", 2, "wants another token", *doctor, **none)
    away = ["--tracking", f"http://{walk.nodes.host}:9"]
    walk.mistake(
        "no cluster there", 2, "no Ray cluster answers", *doctor[:-1], f"{walk.nodes.host}:9"
    )
    walk.mistake(
        "MLflow away",
        1,
        "cannot be reached",
        "doctor",
        *storage,
        *away,
        "--device",
        "cpu",
        *cluster,
    )
    train = [
        "train",
        "resnet20",
        "--data",
        "digits",
        "--iterations",
        "5",
        "--device",
        "cpu",
        *storage,
    ]
    walk.mistake(
        "MLflow away, required",
        2,
        "MLflow cannot be used now",
        *train,
        *away,
        "--require-tracking",
        *cluster,
    )
    too_many = ["--device", "gpu", "--workers", "2", "--gpus", "8"]
    walk.mistake("more GPUs than there can be", 1, "the cluster has room for 0", *doctor, *too_many)
    walk.mistake(
        "the same, trained",
        2,
        "the cluster has room for 0",
        *train,
        "--device",
        "gpu",
        *where,
        *cluster,
    )
    elsewhere = walk.place / "head-only"
    elsewhere.mkdir()
    _on_b(walk, "mount", "-t", "tmpfs", "none", str(elsewhere))
    on_head = ["--storage", str(elsewhere), "--tracking", walk.server.uri, "--device", "cpu"]
    walk.mistake(
        "storage that only the head has", 1, "is another place there", "doctor", *on_head, *cluster
    )
    _on_b(walk, "mount", "-o", "remount,ro", str(elsewhere))
    walk.mistake(
        "storage that one node cannot write", 1, "cannot be written", "doctor", *on_head, *cluster
    )
    _on_b(walk, "mount", "-t", "tmpfs", "-o", "size=1m", "none", str(walk.place / "cache"))
    walk.mistake("a full disk on one node", 1, "GB left for the folder of copies", *doctor)
    laptop = ["submit", "train", "resnet20", "--data", str(walk.place)]
    walk.mistake(
        "data that only the laptop has", 2, "which the nodes do not have", *laptop, *storage
    )
    old = walk.place / "skew" / "torch-1.0.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.0\n")
    walk.nodes.kill("b")
    walk.nodes.start("b", PYTHONPATH=str(old.parent))
    walk.wait(
        "node b", lambda: walk.nodes.ask("print(sum(node['Alive'] for node in ray.nodes()))") == "2"
    )
    walk.mistake("another version of torch on one node", 1, "torch 1.0 (here", *doctor)
    walk.nodes.link("b", up=False)
    walk.mistake("a node that has just been cut off", 1, "does not answer", *doctor)


def _on_b(walk: Walk, *line: str) -> None:
    subprocess.run(walk.nodes.inside("b", list(line)), check=True, capture_output=True)


def _table(steps: list[Step]) -> str:
    lines = [
        f"| {step.what} | {step.seconds:.1f} | {step.says[:300].replace('|', '/')} | "
        f"{'' if step.good else 'BAD'} |"
        for step in steps
    ]
    return "\n".join(["| what | seconds | it says | |", "|---|--:|---|---|", *lines]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
