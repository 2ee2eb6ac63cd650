"""What dies, and what is done about it by whoever runs a cluster: nodes are started again, commands
given again.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.runs.run import Run
from tests.chaos import mount
from tests.chaos.images import write_images
from tests.chaos.nodes import QUIET, Nodes, descendants

DOWN_SECONDS = 5.0
"""How long what died stays away; a link stays cut until its node is given up."""
WARNING_SECONDS = 15
KILLS_BESIDE = 2
BESIDE_SECONDS = 120.0
"""How often a command beside a run is killed, and how long it may take when it is left alone."""


class NotSurvivedError(Exception):
    """What a command comes to that was killed and given again: says what is wrong."""


class Server:
    """An MLflow server of this machine's, at an address that the nodes reach."""

    def __init__(self, place: Path, host: str, port: int) -> None:
        self.place, self.host, self.port = place, host, port
        self.uri = f"http://{host}:{port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again where it was; returns at once.

        Raises:
            RuntimeError: something else listens there, such as the server of a campaign that was
                killed.
        """
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
            except OSError as error:
                raise RuntimeError(
                    f"{self.host}:{self.port} is taken ({error.strerror}); end what listens there"
                ) from error
        store = [
            f"--backend-store-uri=sqlite:///{self.place}/mlflow.db",
            f"--artifacts-destination={self.place}/artifacts",
        ]
        line = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            *store,
            f"--host={self.host}",
            f"--port={self.port}",
            "--workers=1",
        ]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with open(self.place / "mlflow.log", "ab") as log:
            self.process = subprocess.Popen(
                line, stdout=log, stderr=log, start_new_session=True, env=os.environ | quiet
            )

    def kill(self) -> None:
        """SIGKILL to all of it."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@dataclass
class Scene:
    """A run that is being trained by a command on node a."""

    nodes: Nodes
    server: Server
    run: Run
    storage: Path
    row: list[str]
    """The command's words that name the row."""
    dice: random.Random
    reached: Callable[[], int]
    """How far the run is."""
    command: subprocess.Popen[bytes] | None = None
    struck: tuple[float, int] = (0.0, 0)
    """When the blow fell, and at which iteration."""

    def strike(self) -> None:
        """Note that the blow falls now."""
        self.struck = (time.monotonic(), self.reached())

    def give_command(self, workers: str = "2") -> None:
        """Give the command, for the first time or again."""
        line = [sys.executable, "-m", "jobs.cli", "train", *self.row, "--seed", str(self.run.seed)]
        line += [
            "--workers",
            workers,
            "--threads",
            "1",
            "--device",
            "cpu",
            "--checkpoint-seconds",
            "1",
        ]
        line += [
            "--storage",
            str(self.storage),
            "--tracking",
            self.server.uri,
            "--address",
            self.nodes.cluster,
        ]
        self.command = self.nodes.run(
            "a", line, self.storage.parent / f"command-{self.run.seed}.log"
        )

    def kill_command(self) -> None:
        """SIGKILL to the driver."""
        assert self.command is not None
        for pid in [*descendants(self.command.pid), self.command.pid]:
            if "jobs.cli" in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGKILL)
        self.command.wait()


def worker(scene: Scene) -> None:
    """One of the two training processes; Ray Train's controller sees it, and our loop starts the
    group anew.
    """
    os.kill(scene.dice.choice(scene.nodes.workers()), signal.SIGKILL)


def node(scene: Scene) -> None:
    """The node that is not the head; it comes back, as an autoscaler would have it."""
    scene.nodes.kill("b")
    time.sleep(DOWN_SECONDS)
    scene.nodes.start("b")


def elastic(scene: Scene) -> None:
    """The same, but it does not come back: the run was given `--workers 1:2`."""
    scene.nodes.kill("b")


def driver(scene: Scene) -> None:
    """The command itself; it is given again at once."""
    scene.kill_command()
    scene.give_command()


def head(scene: Scene) -> None:
    """The head node with the command on it; the other node lives on for a while, then both belong
    to a new cluster.
    """
    scene.nodes.kill("a")
    time.sleep(DOWN_SECONDS)
    scene.nodes.kill("b")
    scene.nodes.start("a", "b")
    scene.give_command()


def cluster(scene: Scene) -> None:
    """Everything at once but for storage and MLflow."""
    scene.nodes.kill("a", "b")
    scene.nodes.start("a", "b")
    scene.give_command()


def mlflow(scene: Scene) -> None:
    """The MLflow server, which comes back; the run goes on and nobody does anything about it."""
    scene.server.kill()
    time.sleep(DOWN_SECONDS)
    scene.server.start()


def link(scene: Scene) -> str:
    """The link of the second node, cut until the head gives the node up; its raylet then does too
    and is started again.
    """
    watch = (
        "import time; print('ready', flush=True); "
        "exec('while sum(n[\"Alive\"] for n in ray.nodes()) > 1: time.sleep(.1)')"
    )
    line = scene.nodes.connected(watch + "; print('noticed', flush=True)")
    watcher = subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | QUIET
    )
    assert watcher.stdout is not None
    watcher.stdout.readline()
    scene.strike()
    scene.nodes.link("b", up=False)
    watcher.stdout.readline()
    noticed = time.monotonic() - scene.struck[0]
    watcher.wait()
    scene.nodes.link("b", up=True)
    scene.nodes.kill("b")
    scene.nodes.start("b")
    return f"noticed after {noticed:.1f} s"


def workers(scene: Scene) -> None:
    """The command, which is given again with one worker where it had two."""
    scene.kill_command()
    scene.give_command("1")


WARNING = """
import sys, time
from ray.core.generated import autoscaler_pb2
head = ray.get_runtime_context().get_node_id()
spot = next(node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != head)
print("ready", flush=True)
seconds = int(sys.stdin.readline())
reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
client = ray._raylet.GcsClient(address=ray.get_runtime_context().gcs_address)
deadline = time.time_ns() // 1_000_000 + 1000 * seconds
print(client.drain_node(spot, reason, "spot", deadline)[0], flush=True)
"""
"""What `ray drain-node` does, ready before the moment comes."""


def preemption(scene: Scene) -> None:
    """The second node with a warning: the run saves and leaves, and the node is killed when its
    time is over.
    """
    line = scene.nodes.connected(WARNING)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    warner = subprocess.Popen(line, text=True, env=os.environ | QUIET, **pipes)  # type: ignore[call-overload]
    assert warner.stdin is not None and warner.stdout is not None
    warner.stdout.readline()
    scene.strike()
    warner.stdin.write(f"{WARNING_SECONDS}\n")
    warner.stdin.flush()
    if "True" not in warner.stdout.readline():
        raise RuntimeError("the cluster did not take the warning")
    warner.wait()
    time.sleep(WARNING_SECONDS)
    scene.nodes.kill("b")
    time.sleep(DOWN_SECONDS)
    scene.nodes.start("b")


def full(scene: Scene) -> None:
    """The storage fills up in the middle, and is given room again."""
    mount.fill(scene.storage)
    time.sleep(DOWN_SECONDS)
    mount.free(scene.storage)


def readonly(scene: Scene) -> None:
    """The storage turns read-only in the middle, and comes back."""
    mount.set_writable(scene.storage, False)
    time.sleep(DOWN_SECONDS)
    mount.set_writable(scene.storage, True)


def prepare(scene: Scene) -> str:
    """`data prepare` beside the training, again and again until it was left alone."""
    images = scene.storage.parent / "images"
    if not images.exists():
        write_images(images)
    return _kill_and_give_again(
        scene, "data", "prepare", f"mine-{scene.run.seed}", "--from", images
    )


def export(scene: Scene) -> str:
    """`results export`, of a run that trains."""
    target = scene.storage.parent / f"{scene.run.seed}.zip"
    return _kill_and_give_again(scene, "results", "export", target, *_tracked(scene))


def report(scene: Scene) -> str:
    """`report`, of a run that trains."""
    out = scene.storage.parent / "report"
    said = _kill_and_give_again(scene, "report", "--out", out, *_tracked(scene))
    audited = scene.nodes.run("a", _command("audit", out), scene.storage.parent / "audit.log")
    if audited.wait(BESIDE_SECONDS):
        raise NotSurvivedError("audit finds the report changed")
    return said


def clean(scene: Scene) -> str:
    """`clean`, beside a run that may need its checkpoints."""
    return _kill_and_give_again(scene, "clean", "--yes")


def _tracked(scene: Scene) -> tuple[str, str]:
    return "--tracking", scene.server.uri


def _command(*words: object) -> list[str]:
    return [sys.executable, "-m", "jobs.cli", *map(str, words)]


def _kill_and_give_again(scene: Scene, *words: object) -> str:
    """Kill a command of another user's at random moments, and give it until it ends by itself."""
    line = _command(*words, "--storage", scene.storage)
    log = scene.storage.parent / f"beside-{scene.run.seed}.log"
    moments = []
    for _ in range(KILLS_BESIDE):
        command = scene.nodes.run("a", line, log)
        moment = scene.dice.uniform(0.5, 6.0)
        with suppress(subprocess.TimeoutExpired):
            command.wait(moment)
        for pid in [*descendants(command.pid), command.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        moments.append(f"{moment:.1f}" if command.wait() else "too late")
    if code := scene.nodes.run("a", line, log).wait(BESIDE_SECONDS):
        raise NotSurvivedError(f"{words[0]} ended with {code}, see {log}")
    return f"after {', '.join(moments)} s"


KINDS: dict[str, Callable[[Scene], str | None]] = {
    kind.__name__: kind
    for kind in (
        *(worker, node, elastic, driver, head, cluster, mlflow, link, workers, preemption),
        *(full, readonly, prepare, export, report, clean),
    )
}
MOUNTED = ("full", "readonly")
"""Kinds for which the storage is a file system of its own."""
GO_ON = ("mlflow", *MOUNTED, "prepare", "export", "report", "clean")
"""Kinds after which a run need not have been started again."""
