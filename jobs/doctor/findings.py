"""What follows from the facts: each finding is fine, a warning or a problem, and says what to do.

Pure: facts in, findings out. What asks for the facts is `jobs.doctor.examination`.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from jobs.execution.node_facts import Facts, Question
from jobs.tracking.server_check import is_server

Level = Literal["fine", "warning", "problem"]

SKEW_SECONDS = 5.0
"""Clocks further apart make the ages of heartbeats of runs on other machines wrong."""
LEAST_ROOM = 1e9
LITTLE_ROOM = 10e9
LEAST_SHARED_MEMORY = 1e9
SLOW_LINK = 100e6
"""Bytes a second below which exchanging ResNet-50's gradients takes longer than computing them."""
RESNET50_BYTES = 102e6

WEIGHTLESS = {"mlflow", "pandas"}
"""Packages through which no number of a run passes: another version costs a warning."""


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
    """Findings about all nodes.

    `silent` are names of nodes that did not answer, `unseen` what the asker could not read of what
    a node says it wrote.
    """
    remedy = "restart Ray there (`ray stop`, then `ray start`), or remove it"
    findings = [Finding(f"node {name}", "problem", "does not answer", remedy) for name in silent]
    # Without an answer there is nothing to judge, and what follows would call it all fine.
    if not facts:
        return findings
    if not any(answer.trains for answer in facts):
        says = (
            "no node is there yet that trains: those that the cluster will start are not examined"
        )
        remedy = "start one, or examine again while a grid runs"
        findings.append(Finding("nodes", "warning", says, remedy))
    # In the order in which people repair things: what runs, on what, and where it writes.
    findings += _judge_versions(facts, asker)
    findings += _judge_hardware(facts)
    findings += _judge_storage(facts, unseen)
    # A database is opened by drivers alone; whether they can is examined on the asker.
    if is_server(question.tracking):
        findings += _judge_tracking(facts)
    if question.dataset_id:
        remedy = "prepare it where storage is seen by all nodes: `resnet-repro data prepare`"
        findings += _judge_each(facts, "data", lambda answer: answer.data, remedy)
    findings += _judge_room(facts)
    findings += _judge_clocks(facts, asker)
    return findings


def _node(answer: Facts) -> str:
    return f"{answer.host} ({answer.address})"


def _judge_each(
    facts: Sequence[Facts], subject: str, trouble: Callable[[Facts], str], remedy: str
) -> list[Finding]:
    """A problem for each node that has it, or one line saying that none has."""
    problems = [
        Finding(subject, "problem", f"{_node(answer)}: {trouble(answer)}", remedy)
        for answer in facts
        if trouble(answer)
    ]
    return problems or [Finding(subject, "fine", f"good on {len(facts)} node(s)")]


def _judge_versions(facts: Sequence[Facts], asker: Facts) -> list[Finding]:
    remedy = (
        "on that node: python3 -m pip install --constraint constraints.txt --editable . of this "
        "commit"
    )
    findings = []
    for answer in facts:
        # Compared with the asker, whose versions are those that the run will be started with.
        other = {
            name: (version, answer.versions.get(name, "none"))
            for name, version in asker.versions.items()
            if answer.versions.get(name) != version
        }
        heavy = {name: pair for name, pair in other.items() if name not in WEIGHTLESS}
        light = {name: pair for name, pair in other.items() if name in WEIGHTLESS}
        # Two checkouts of one version can still differ; where the version does, that says it all.
        if answer.source != asker.source and "resnet-repro" not in heavy:
            heavy["this package's code"] = (asker.source, answer.source)
        levels: tuple[tuple[Level, dict[str, tuple[str, str]]], ...] = (
            ("problem", heavy),
            ("warning", light),
        )
        for level, differing in levels:
            if differing:
                says = ", ".join(
                    f"{name} {theirs} (here {ours})"
                    for name, (ours, theirs) in sorted(differing.items())
                )
                findings.append(Finding("versions", level, f"{_node(answer)}: {says}", remedy))
    ray, torch = (asker.versions.get(name, "none") for name in ("ray", "torch"))
    good = f"Python {asker.versions['python']}, Ray {ray}, torch {torch}"
    good += f" and this code on {len(facts)} node(s)"
    return findings or [Finding("versions", "fine", good)]


def _judge_hardware(facts: Sequence[Facts]) -> list[Finding]:
    remedy = "repair the driver, or start Ray there with --num-gpus of what works"
    findings = []
    for answer in facts:
        if answer.cards_trouble:
            says = f"{_node(answer)}: they could not be tried ({answer.cards_trouble})"
            findings.append(Finding("GPUs", "problem", says, remedy))
        elif answer.gpus_seen < answer.gpus:
            says = f"{_node(answer)}: Ray counts {answer.gpus}, torch finds {answer.gpus_seen}"
            findings.append(Finding("GPUs", "problem", says, remedy))
    findings += _judge_gpus(facts)
    # Only of nodes on which workers can be: a head of another kind computes nothing of a run.
    kinds = Counter(answer.hardware for answer in facts if answer.trains)
    if len(kinds) > 1:
        says = "; ".join(f"{count} x {kind}" for kind, count in kinds.items())
        remedy = (
            "a run that moves from one kind of CPU to another is refused without "
            "`train --allow-drift`; use one kind of node"
        )
        findings.append(Finding("CPUs", "warning", says, remedy))
    return findings


def _judge_gpus(facts: Sequence[Facts]) -> list[Finding]:
    """A problem for each GPU that computes wrongly, and a line for each kind that does not."""
    findings, good = [], Counter[str]()
    least: dict[str, int] = {}
    for answer in facts:
        for number, card in enumerate(answer.cards):
            kind = f"{card.name}, driver {card.driver}, CUDA {card.cuda}, cuDNN {card.cudnn}"
            if card.trouble:
                says = f"{_node(answer)}: GPU {number} ({kind}): {card.trouble}"
                remedy = (
                    "look at nvidia-smi there: another process may have its memory, or it fails"
                )
                findings.append(Finding("GPUs", "problem", says, remedy))
                continue
            good[kind] += 1
            least[kind] = min(card.free, least.get(kind, card.free))
    for kind, count in good.items():
        says = f"{count} x {kind}: a kernel and a captured graph compute what a CPU does; "
        says += f"at least {least[kind] / 1e9:,.0f} GB free"
        findings.append(Finding("GPUs", "fine", says))
    if len(good) > 1:
        remedy = "a run that moves from one to another is refused without `train --allow-drift`; "
        remedy += "use one kind"
        findings.append(Finding("GPUs", "warning", f"{len(good)} kinds of them", remedy))
    return findings


def judge_sharing(facts: Sequence[Facts], gpus: float) -> list[Finding]:
    """What fractions of a GPU are worth here, where workers take `gpus` each."""
    having = [answer for answer in facts if answer.gpus]
    without = [answer for answer in having if not answer.mps]
    if not having:
        return []
    if not without:
        signs = ", ".join(dict.fromkeys(answer.mps for answer in having))
        says = f"runs on {len(having)} node(s) ({signs}): processes may share a GPU (--gpus 0.25)"
        return [Finding("MPS", "fine", says)]
    says = f"NVIDIA's MPS does not run on {len(without)} of {len(having)} node(s): processes that "
    says += "share a GPU there (--gpus 0.25) take turns, which gains nothing"
    if not 0 < gpus < 1:
        return [Finding("MPS", "fine", says)]
    remedy = "ask for whole GPUs, which `grid` gives several runs in one process; or start MPS"
    return [Finding("MPS", "warning", says, remedy)]


def _judge_storage(facts: Sequence[Facts], unseen: Mapping[str, str]) -> list[Finding]:
    remedy = (
        "mount the same folder under the same path on every node with the right to write, or name "
        "s3://bucket/place"
    )

    def trouble(answer: Facts) -> str:
        if answer.writes:
            return f"cannot be written ({answer.writes})"
        elsewhere = "is another place there"
        if answer.reads:
            return f"{elsewhere}: a file written here cannot be read ({answer.reads})"
        return f"{elsewhere}: {unseen[answer.address]}" if answer.address in unseen else ""

    return _judge_each(facts, "storage", trouble, remedy)


def _judge_tracking(facts: Sequence[Facts]) -> list[Finding]:
    """Drivers publish, and they are on the head: only what it cannot reach is a problem."""
    findings = []
    for answer in facts:
        if answer.tracking:
            says, _, remedy = answer.tracking.partition(": ")
            level: Level = "problem" if answer.head else "warning"
            remedy = remedy or "look at the server's log"
            findings.append(Finding("MLflow", level, f"{_node(answer)}: {says}", remedy))
    return findings or [Finding("MLflow", "fine", f"answers {len(facts)} node(s)")]


def _judge_room(facts: Sequence[Facts]) -> list[Finding]:
    findings = []
    for answer in facts:
        # Ray and the copies of datasets may be on two disks, either of which can be full.
        for what, left in answer.free.items():
            if left < LITTLE_ROOM:
                level: Level = "problem" if left < LEAST_ROOM else "warning"
                says = f"{_node(answer)}: {left / 1e9:.1f} GB left for {what}"
                remedy = "make room there, or give the node a larger disk"
                findings.append(Finding("disk", level, says, remedy))
        if answer.shared_memory < LEAST_SHARED_MEMORY:
            left_gb = answer.shared_memory / 1e9
            says = f"{_node(answer)}: {left_gb:.1f} GB left in /dev/shm, Ray's object store"
            remedy = "give containers --shm-size=4g, pods a volume of memory"
            findings.append(Finding("shared memory", "warning", says, remedy))
    least = min((left for answer in facts for left in answer.free.values()), default=0)
    good = f"at least {least / 1e9:,.0f} GB left on {len(facts)} node(s)"
    return findings or [Finding("disk", "fine", good)]


def _judge_clocks(facts: Sequence[Facts], asker: Facts) -> list[Finding]:
    """Only what lies outside of the time between question and answer counts as skew."""
    remedy = "run chrony or systemd-timesyncd on every node"
    findings = []
    for answer in facts:
        # The node took its time somewhere between these two moments of the asker's clock.
        asked, answered = asker.time, asker.time + asker.seconds
        skew = max(asked - answer.time, answer.time - answered, 0.0)
        if skew > SKEW_SECONDS:
            says = f"{_node(answer)}: {skew:.0f} s away from here"
            findings.append(Finding("clocks", "warning", says, remedy))
    return findings or [Finding("clocks", "fine", f"within {SKEW_SECONDS:.0f} s")]


def judge_link(rate: float, nodes: int) -> Finding:
    """What the speed of exchanging gradients means, in bytes a second."""
    says = f"{rate / 1e6:,.0f} MB/s between {nodes} nodes: "
    says += f"ResNet-50's gradients take {RESNET50_BYTES / rate:.2f} s"
    if rate >= SLOW_LINK:
        return Finding("network", "fine", says)
    remedy = "keep a run on one node (as many --workers as one node has), or use a faster network"
    return Finding("network", "warning", says, remedy)
