"""A Slurm cluster of two nodes on this machine: munged, slurmctld and slurmd as Debian packs them,
in network namespaces as those of the chaos campaign.
"""

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.nodes import NAMES, Namespaces

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")

CONFIGURATION = """\
ClusterName=walk
SlurmctldHost=node-a({head})
AuthType=auth/munge
# A job that is put into the queue again waits for so long, in seconds (120 by default).
AuthInfo=socket={place}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=5
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool-%n
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd-%n.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd-%n.log
{nodes}
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def lacking() -> str:
    """Which program of Slurm is not installed here; empty if all are."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    return f"{missing[0]} is not installed (slurm-wlm and munge)" if missing else ""


class SlurmNamespaces(Namespaces):
    """Beside those of a chaos campaign, which may be going on."""

    host = "10.78.0.254"
    BRIDGE = "rr-slurm"

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        # As on a cluster, each node finds the others by name.
        names = "".join(f"{self.address(node)} node-{node}\n" for node in NAMES)
        for node in NAMES:
            (place / node / "hosts").write_text(f"127.0.0.1 localhost\n{names}")

    def _space(self, node: str) -> str:
        return f"rr-slurm-{node}"

    def address(self, node: str) -> str:
        return f"10.78.0.{1 + NAMES.index(node)}"


class SlurmCluster:
    """Two nodes under Slurm, of one CPU each; commands are given on the first one."""

    def __init__(self, place: Path, nodes: Namespaces, environment: dict[str, str]) -> None:
        self.place, self.nodes = place, nodes
        self.environment = os.environ | environment | {"SLURM_CONF": str(place / "slurm.conf")}
        self.environment["PATH"] += ":/usr/sbin"
        key = place / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        for folder in ("state", "spool-node-a", "spool-node-b"):
            (place / folder).mkdir()
        lines = [
            f"NodeName=node-{node} NodeAddr={nodes.address(node)} CPUs=1 State=UNKNOWN"
            for node in NAMES
        ]
        head = nodes.address("a")
        filled = CONFIGURATION.format(place=place, head=head, nodes="\n".join(lines))
        (place / "slurm.conf").write_text(filled)
        (place / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")

    def start(self) -> None:
        """Boot the nodes, and wait until Slurm can use both.

        Raises:
            TimeoutError: it cannot.
        """
        kinds = ("key", "pid", "log", "seed")
        files = [f"--{kind}-file={self.place}/munge.{kind}" for kind in kinds]
        munged = ["munged", "--force", f"--socket={self.place}/munge.socket", *files]
        for node in NAMES:
            first = [*munged, "&&", "slurmctld", "&&"] if node == "a" else []
            script = " ".join([*first, "slurmd", "-N", f"node-{node}"])
            with open(self.place / f"node-{node}.log", "ab") as log:
                self.nodes.running[node] = subprocess.Popen(
                    self.nodes.boot(node, ["bash", "-c", script]),
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env=self.environment,
                )
            if node == "a":
                self._wait_for(lambda: (self.place / "munge.socket").exists(), "munged")
        self._wait_for(lambda: self.call("sinfo", "-h", "-o", "%T %D") == "idle 2", "both nodes")

    def call(self, *line: str) -> str:
        """What a command prints that is given on the first node; empty where it fails."""
        done = subprocess.run(
            self.nodes.inside("a", list(line)),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    def _wait_for(self, there: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 60
        while not there():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not come; see {self.place}/*.log")
            time.sleep(0.3)
