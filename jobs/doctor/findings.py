"""What follows from the facts: each finding is fine, a warning or a problem, and says what to do."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from jobs.doctor.facts import Facts, Question
from jobs.tracking.server_check import is_server

Level = Literal["fine", "warning", "problem"]

SKEW_SECONDS = 5.0
"""Clocks further apart than this make the age of heartbeats, as shown of runs on other machines,
wrong.
"""
LEAST_ROOM = 1e9
LITTLE_ROOM = 10e9
LEAST_SHARED_MEMORY = 1e9
SLOW_LINK = 100e6
"""Bytes a second below which exchanging ResNet-50's 102 MB of gradients takes longer than computing
them.
"""
RESNET50_BYTES = 102e6

WEIGHTLESS = {"mlflow", "pandas"}
"""Packages through which no number of a run passes."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's: about what, how bad, what it is and what to do about it."""

    subject: str
    level: Level
    says: str
    remedy: str = ""


def judge(
    facts: Sequence[Facts],
    silent: Sequence[str],
    unseen: Mapping[str, str],
    asker: Facts,
    question: Question,
) -> list[Finding]:
    """Findings about all nodes; `silent` are names of nodes that did not answer, `unseen` what the
    asker could not read of what a node says it wrote.
    """
    found = [
        Finding(
            f"node {name}",
            "problem",
            "does not answer",
            "restart Ray there (`ray stop`, then `ray start`), or remove it",
        )
        for name in silent
    ]
    if not facts:
        return found
    if not any(one.trains for one in facts):
        says = (
            "no node is there yet that trains: those that the cluster will start are not examined"
        )
        found.append(
            Finding("nodes", "warning", says, "start one, or examine again while a grid runs")
        )
    found += _versions(facts, asker)
    found += _hardware(facts)
    found += _storage(facts, unseen)
    if is_server(question.tracking):
        found += _tracking(facts)
    if question.dataset_id:
        remedy = "prepare it where storage is seen by all nodes: `resnet-repro data prepare`"
        found += _each(facts, "data", lambda one: one.data, remedy)
    found += _room(facts)
    found += _clocks(facts, asker)
    return found


def _where(one: Facts) -> str:
    return f"{one.host} ({one.address})"


def _each(
    facts: Sequence[Facts], subject: str, trouble: Callable[[Facts], str], remedy: str
) -> list[Finding]:
    """A problem for each node that has it, or one line saying that none has."""
    bad = [
        Finding(subject, "problem", f"{_where(one)}: {trouble(one)}", remedy)
        for one in facts
        if trouble(one)
    ]
    return bad or [Finding(subject, "fine", f"good on {len(facts)} node(s)")]


def _versions(facts: Sequence[Facts], asker: Facts) -> list[Finding]:
    found = []
    for one in facts:
        other = {
            name: (version, one.versions.get(name, "none"))
            for name, version in asker.versions.items()
            if one.versions.get(name) != version
        }
        heavy = {name: pair for name, pair in other.items() if name not in WEIGHTLESS}
        if one.source != asker.source and "resnet-repro" not in heavy:
            heavy["this package's code"] = (asker.source, one.source)
        for level, differing in (
            ("problem", heavy),
            ("warning", {k: v for k, v in other.items() if k in WEIGHTLESS}),
        ):
            if differing:
                says = ", ".join(
                    f"{name} {theirs} (here {ours})"
                    for name, (ours, theirs) in sorted(differing.items())
                )
                remedy = "on that node: python3 -m pip install --constraint constraints.txt --editable . of this commit"
                found.append(Finding("versions", level, f"{_where(one)}: {says}", remedy))  # type: ignore[arg-type]
    ray, torch = (asker.versions.get(name, "none") for name in ("ray", "torch"))
    good = f"Python {asker.versions['python']}, Ray {ray}, torch {torch} and this code on {len(facts)} node(s)"
    return found or [Finding("versions", "fine", good)]


def _hardware(facts: Sequence[Facts]) -> list[Finding]:
    found = [
        Finding("GPUs", "problem", f"{_where(one)}: Ray counts {one.gpus}, torch finds {one.gpus_seen}",
                "mend the driver, or start Ray there with --num-gpus of what works")
        for one in facts if one.gpus_seen < one.gpus
    ]  # fmt: skip
    kinds = Counter(one.hardware for one in facts if one.trains)
    if len(kinds) > 1:
        several = "; ".join(f"{count} x {kind}" for kind, count in kinds.items())
        remedy = "a run that moves from one kind of CPU to another is refused without --allow-drift; use one kind of node"
        found.append(Finding("CPUs", "warning", several, remedy))
    return found


def _storage(facts: Sequence[Facts], unseen: Mapping[str, str]) -> list[Finding]:
    remedy = "mount the same folder under the same path on every node with the right to write, or name s3://bucket/place"

    def trouble(one: Facts) -> str:
        if one.writes:
            return f"cannot be written ({one.writes})"
        if one.reads:
            return f"is another place there: a file written here cannot be read ({one.reads})"
        return f"is another place there: {unseen[one.address]}" if one.address in unseen else ""

    return _each(facts, "storage", trouble, remedy)


def _tracking(facts: Sequence[Facts]) -> list[Finding]:
    """Drivers publish, and they are on the head: what only other nodes cannot reach is worth a
    warning.
    """
    found = []
    for one in facts:
        if one.tracking:
            says, _, remedy = one.tracking.partition(": ")
            level: Level = "problem" if one.head else "warning"
            found.append(
                Finding(
                    "MLflow", level, f"{_where(one)}: {says}", remedy or "look at the server's log"
                )
            )
    return found or [Finding("MLflow", "fine", f"answers {len(facts)} node(s)")]


def _room(facts: Sequence[Facts]) -> list[Finding]:
    found = []
    for one in facts:
        for what, left in one.free.items():
            if left < LITTLE_ROOM:
                level: Level = "problem" if left < LEAST_ROOM else "warning"
                says = f"{_where(one)}: {left / 1e9:.1f} GB left for {what}"
                found.append(
                    Finding("disk", level, says, "make room there, or give the node a larger disk")
                )
        if one.shared_memory < LEAST_SHARED_MEMORY:
            says = f"{_where(one)}: {one.shared_memory / 1e9:.1f} GB left in /dev/shm, Ray's object store"
            found.append(
                Finding(
                    "shared memory",
                    "warning",
                    says,
                    "give containers --shm-size=4g, pods a volume of memory",
                )
            )
    least = min((left for one in facts for left in one.free.values()), default=0)
    return found or [
        Finding("disk", "fine", f"at least {least / 1e9:,.0f} GB left on {len(facts)} node(s)")
    ]


def _clocks(facts: Sequence[Facts], asker: Facts) -> list[Finding]:
    """A node's time was taken after it was asked and before its answer came: only what is outside
    that counts.
    """
    found = []
    for one in facts:
        off = max(asker.time - one.time, one.time - (asker.time + asker.seconds), 0.0)
        if off > SKEW_SECONDS:
            says = f"{_where(one)}: {off:.0f} s away from here"
            found.append(
                Finding("clocks", "warning", says, "run chrony or systemd-timesyncd on every node")
            )
    return found or [Finding("clocks", "fine", f"within {SKEW_SECONDS:.0f} s")]


def link(rate: float, nodes: int) -> Finding:
    """What the speed of exchanging gradients means, in bytes a second."""
    says = f"{rate / 1e6:,.0f} MB/s between {nodes} nodes: ResNet-50's gradients take {RESNET50_BYTES / rate:.2f} s"
    if rate >= SLOW_LINK:
        return Finding("network", "fine", says)
    return Finding(
        "network",
        "warning",
        says,
        "keep a run on one node (as many --workers as one node has), or use a faster network",
    )
