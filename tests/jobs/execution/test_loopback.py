"""A cluster of this machine's own is reachable from this machine alone."""

import os
import subprocess
import sys
import time
from ipaddress import ip_address
from pathlib import Path

import pytest

from jobs.execution.worker import interface_of
from pipeline.training.step.process_group import listen
from tests.chaos.nodes import descendants

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
LISTENING = "0A"


def sockets_of(pids: set[int]) -> set[str]:
    found = set()
    for pid in pids:
        try:
            found |= {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
        except OSError:
            continue
    return found


def address_of(field: str) -> str:
    """`0100007F:1F90` of /proc/net/tcp as an address."""
    words = bytes.fromhex(field.partition(":")[0])
    address = ip_address(b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4)))
    return str(getattr(address, "ipv4_mapped", None) or address)


def listening(pids: set[int]) -> set[str]:
    """Addresses on which any of the processes listens."""
    mine, found = sockets_of(pids), set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and f"socket:[{fields[9]}]" in mine:
                found.add(address_of(fields[1]))
    return found


@pytest.mark.ray
def test_a_run_of_two_workers_listens_on_loopback_alone(tmp_path: Path) -> None:
    options = [
        "--workers",
        "2",
        "--threads",
        "1",
        "--iterations",
        "200",
        "--set",
        "depth=8",
        "--storage",
        tmp_path,
    ]
    line = [
        sys.executable,
        "-m",
        "jobs.cli",
        "train",
        "resnet20",
        "--data",
        "digits",
        *map(str, options),
    ]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    seen: set[str] = set()
    most = 0
    while process.poll() is None:
        family = {process.pid, *descendants(process.pid)}
        seen |= listening(family)
        most = max(most, len(family))
        time.sleep(0.3)
    assert process.returncode == 0, process.stderr.read() if process.stderr else ""
    assert most > 6, "Ray's processes were not among those looked at"
    assert seen and all(ip_address(address).is_loopback for address in seen), seen


def test_the_interface_of_an_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("203.0.113.7") is None


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_workers_meet_on_one_address_alone(host: str) -> None:
    with listen(host) as listener:
        assert listener.getsockname()[0] == host
