"""Two Ray nodes on one machine that can die: in network namespaces with addresses of their own, or
as plain processes.

In the first form (root, Linux) a node has its own network, process numbers, host name and session
folder, so that killing all its processes is what a power loss is to the others, and setting its
link down is a partition. In the second both share 127.0.0.1, and links cannot be cut. The file
system is shared in both.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from shlex import join

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("a", "b")
"""Node a is the head, and where commands are given."""
GCS_PORT = 6379

NOTICE = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""A node that cannot be reached is given up after about 10 s, as in cluster.yaml."""

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "COLUMNS": "200"}
"""Without tokens, which Ray finds in the user's home where it has started there before, on some
sides alone.
"""


class Nodes(ABC):
    """Two nodes of one CPU each, started, killed and asked by name."""

    host: str
    """The address under which nodes find servers of this machine."""
    links: bool
    """Whether a node's link can be cut."""

    environment: dict[str, str] = QUIET
    """Of nodes and of commands given on them."""
    dashboard = False
    """Whether the head serves one, on its own loopback."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    @abstractmethod
    def address(self, node: str) -> str:
        """A node's IP address."""

    @abstractmethod
    def inside(self, node: str, line: list[str]) -> list[str]:
        """The command line that runs another one on a node."""

    @abstractmethod
    def processes(self, node: str) -> list[int]:
        """Everything that runs on a node, commands too."""

    @abstractmethod
    def boot(self, node: str, line: list[str]) -> list[str]:
        """The command line that makes a node of which `line` is the first process."""

    @property
    def cluster(self) -> str:
        """The cluster's address for `--address`."""
        return f"{self.address('a')}:{GCS_PORT}"

    def start(self, *nodes: str, **changed: str) -> None:
        """Start nodes, their environment changed; with the head among them, wait until all are
        there.
        """
        for node in nodes:
            line = [
                sys.executable,
                "-m",
                "ray.scripts.scripts",
                "start",
                "--block",
                "--disable-usage-stats",
            ]
            line += [
                "--num-cpus=1",
                "--object-store-memory=100000000",
                f"--node-ip-address={self.address(node)}",
            ]
            line += (
                [
                    "--head",
                    f"--port={GCS_PORT}",
                    f"--include-dashboard={str(self.dashboard).lower()}",
                ]
                if node == "a"
                else [f"--address={self.cluster}"]
            )
            log = open(self.place / f"node-{node}.log", "ab")  # noqa: SIM115  (the process keeps it)
            environment = os.environ | NOTICE | self.environment | changed
            self.running[node] = subprocess.Popen(
                self.boot(node, line),
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=environment,
                cwd=ROOT,
            )
            log.close()
            if node == "a":
                self._wait_for_head()
        if "a" in nodes:
            self._wait_for(len(self.running))

    def run(self, node: str, line: list[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a command on a node, its output appended to a file."""
        with open(log, "ab") as out:
            return subprocess.Popen(
                self.inside(node, line),
                stdout=out,
                stderr=out,
                cwd=ROOT,
                env=os.environ | self.environment,
                start_new_session=True,
            )

    def connected(self, code: str) -> list[str]:
        """The command line of Python code that is connected to the cluster on node a."""
        options = "logging_level='ERROR', log_to_driver=False"
        begin = f"import ray; ray.init(address='{self.cluster}', {options})\n"
        return self.inside("a", [sys.executable, "-c", begin + code])

    def ask(self, code: str) -> str:
        """What such code prints; empty where it fails."""
        line = self.connected(code)
        done = subprocess.run(
            line,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=ROOT,
            env=os.environ | self.environment,
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    def kill(self, *nodes: str) -> None:
        """Power loss: every process of the nodes is gone at once."""
        for pid in [pid for node in nodes for pid in self.processes(node)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for node in nodes:
            process = self.running.pop(node, None)
            if process is not None:
                with suppress(ProcessLookupError):
                    process.kill()
                process.wait()

    def workers(self) -> list[int]:
        """The processes of Ray Train's workers on all nodes."""
        found = [pid for node in self.running for pid in self.processes(node)]
        return sorted(pid for pid in found if title(pid).startswith("ray::RayTrainWorker"))

    def link(self, node: str, up: bool) -> None:
        """Cut or mend a node's link."""
        raise NotImplementedError

    def close(self) -> None:
        """Kill the nodes and leave nothing behind."""
        self.kill(*NAMES)

    def _wait_for_head(self) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with (
                suppress(OSError),
                socket.create_connection((self.address("a"), GCS_PORT), timeout=1),
            ):
                return
            time.sleep(0.2)
        raise RuntimeError(f"the head did not start; see {self.place}/node-a.log")

    def _wait_for(self, count: int) -> None:
        """Until so many nodes are alive."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if self.ask("print(sum(node['Alive'] for node in ray.nodes()))") == str(count):
                return
            time.sleep(0.5)
        raise RuntimeError(
            f"the cluster did not come to {count} nodes; see {self.place}/node-*.log"
        )


class Namespaces(Nodes):
    """Nodes in network namespaces on a bridge of this machine's."""

    host, links = "10.77.0.254", True
    BRIDGE = "rr-chaos"

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.close()  # of a campaign that was killed
        _ip("link add", self.BRIDGE, "type bridge")
        _ip("addr add", f"{self.host}/24", "dev", self.BRIDGE)
        _ip("link set", self.BRIDGE, "up")
        for node in NAMES:
            space = self._space(node)
            _ip("netns add", space)
            _ip("link add", space, "type veth peer name eth0 netns", space)
            _ip("link set", space, "master", self.BRIDGE, "up")
            _ip("-n", space, "addr add", f"{self.address(node)}/24", "dev eth0")
            _ip("-n", space, "link set lo up")
            _ip("-n", space, "link set eth0 up")
            _ip(
                "-n", space, "route add default via", self.host
            )  # else Ray takes the host name for the node's address
            folder = place / node
            (folder / "ray").mkdir(parents=True, exist_ok=True)
            (folder / "hosts").write_text(
                f"127.0.0.1 localhost\n{self.address(node)} node-{node}\n"
            )

    def _space(self, node: str) -> str:
        return f"rr-chaos-{node}"

    def address(self, node: str) -> str:
        return f"10.77.0.{1 + NAMES.index(node)}"

    def boot(self, node: str, line: list[str]) -> list[str]:
        folder = self.place / node
        mounts = (
            f"mount --bind {folder}/hosts /etc/hosts && mkdir -p /tmp/ray && "
            f"mount --bind {folder}/ray /tmp/ray"
        )
        script = f"hostname node-{node} && {mounts} && cd {ROOT} && {join(line)}; sleep infinity"
        apart = ["unshare", "-m", "-u", "-p", "--fork", "--mount-proc", "--kill-child"]
        return ["ip", "netns", "exec", self._space(node), *apart, "bash", "-c", script]

    def inside(self, node: str, line: list[str]) -> list[str]:
        outer = self.running[node].pid
        children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        script = f"cd {ROOT} && exec {join(line)}"
        return [
            "nsenter",
            "-t",
            children[0] if children else str(outer),
            "-m",
            "-u",
            "-p",
            "-n",
            "bash",
            "-c",
            script,
        ]

    def processes(self, node: str) -> list[int]:
        done = subprocess.run(
            ["ip", "netns", "pids", self._space(node)], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in done.stdout.split()]

    def link(self, node: str, up: bool) -> None:
        _ip("link set", self._space(node), "up" if up else "down")

    def close(self) -> None:
        super().close()
        spaces = [self._space(node) for node in NAMES]
        # Links first: a namespace goes, and takes its link with it, some time after it was deleted.
        for line in (
            *(f"link del {name}" for name in (self.BRIDGE, *spaces)),
            *(f"netns del {name}" for name in spaces),
        ):
            subprocess.run(["ip", *line.split()], capture_output=True, check=False)


class Plain(Nodes):
    """Two raylets on 127.0.0.1, for machines where namespaces cannot be made."""

    host, links = "127.0.0.1", False

    def address(self, node: str) -> str:
        return "127.0.0.1"

    def boot(self, node: str, line: list[str]) -> list[str]:
        return line

    def inside(self, node: str, line: list[str]) -> list[str]:
        return line

    def run(self, node: str, line: list[str], log: Path) -> subprocess.Popen[bytes]:
        self._command = super().run(node, line, log)
        return self._command

    def processes(self, node: str) -> list[int]:
        roots = [self.running[node].pid] if node in self.running else []
        command = getattr(self, "_command", None)
        roots += (
            [command.pid] if node == "a" and command is not None and command.poll() is None else []
        )
        return [pid for root in roots for pid in (root, *descendants(root))]


def namespaces_possible() -> str:
    """Why network namespaces cannot be made here; empty if they can."""
    if os.geteuid() != 0:
        return "needs root"
    try:
        for line in ("ip netns add rr-chaos-try", "ip link add rr-chaos-try type bridge"):
            subprocess.run(line.split(), check=True, capture_output=True, text=True)
        subprocess.run(
            ["unshare", "-m", "-u", "-p", "--fork", "--mount-proc", "true"],
            check=True,
            capture_output=True,
        )
        subprocess.run(["nsenter", "--version"], check=True, capture_output=True)
    except FileNotFoundError as error:
        return f"{error.filename} is missing (iproute2, util-linux)"
    except subprocess.CalledProcessError as error:
        return f"{join(error.cmd)}: {str(error.stderr).strip()}"
    finally:
        with suppress(FileNotFoundError):
            for line in ("ip link del rr-chaos-try", "ip netns del rr-chaos-try"):
                subprocess.run(line.split(), check=False, capture_output=True)
    return ""


def title(pid: int) -> str:
    """What a process calls itself."""
    try:
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    except OSError:
        return ""


def descendants(root: int) -> list[int]:
    """The processes below one, as they are now."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(folder.name))
    found, look = [], [root]
    while look:
        look = [child for parent in look for child in parents.get(parent, [])]
        found += look
    return found


def _ip(*words: str) -> None:
    line = ["ip", *" ".join(words).split()]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{join(line)}: {done.stderr.strip()}")
