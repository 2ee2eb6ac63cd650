"""The examination of a cluster: every node is asked at once, nothing waits for a silent one, and
the links are measured.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from time import monotonic, perf_counter, time
from typing import Any
from uuid import uuid4

from jobs.doctor.facts import Facts, Question, examine
from jobs.doctor.findings import Finding, judge, link
from jobs.execution.cluster import Node, check_fits, nodes
from jobs.requests.options import check_tracking
from jobs.tracking.server_check import is_server
from pipeline.errors import InputError, first_line, last_line
from pipeline.runs.provenance import hardware, source_digest, versions
from pipeline.storage import Storage

ANSWER_SECONDS = 35.0
"""Within which every node has to answer."""
LINK_SECONDS = 25.0
LINK_BYTES = 32 * 2**20
LINK_NODES = 8
"""Of a larger cluster so many nodes are measured together."""


def findings(
    storage: Storage, tracking: str, dataset_id: str, workers: int, each: Node
) -> list[Finding]:
    """Examine the cluster that is connected, for work of so many workers that take `each`."""
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    probe = f".doctor-{uuid4().hex[:8]}"
    asker = Facts(
        "here", "", False, time(), versions(), source_digest(), hardware(), False, 0, 0, "", "", ""
    )
    try:
        storage.write(probe, b"asker")
        question = Question(storage.uri, probe, tracking, dataset_id)
        answers, silent = _ask(alive, question)
        unseen = _unseen(storage, answers)
    finally:
        with suppress(OSError):
            for name in storage.names(""):
                if name.startswith(probe):
                    storage.delete(name)
    found = judge(answers, silent, unseen, replace(asker, seconds=time() - asker.time), question)
    if not is_server(tracking):
        found.append(_database(tracking, storage))
    found += _resources(workers, each)
    training = {one.address for one in answers if one.trains}
    several = [node for node in alive if node["NodeManagerAddress"] in training and _trains(node)]
    if len(several) > 1:
        found.append(_link(several))
    return found


def _trains(node: Mapping[str, Any]) -> bool:
    return any(node["Resources"].get(name, 0) > 0 for name in ("CPU", "GPU"))


def _on(node: Mapping[str, Any]) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)


def _ask(alive: list[dict[str, Any]], question: Question) -> tuple[list[Facts], list[str]]:
    """Answers, and the names of nodes that gave none."""
    import ray

    task = ray.remote(num_cpus=0, max_retries=0)(examine)
    asked = {}
    for node in alive:
        has = node["Resources"]
        trains, gpus, head = _trains(node), int(has.get("GPU", 0)), "node:__internal_head__" in has
        running = task.options(scheduling_strategy=_on(node)).remote(
            question, node["NodeID"][:8], trains, gpus, head
        )
        asked[running] = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS)
    answers, silent = [], [asked[one] for one in late]
    for one in ready:
        try:
            answers.append(ray.get(one))
        except (
            Exception
        ) as error:  # of a node that died, or whose Python cannot import this package
            why = "" if "schedul" in str(error) else f" ({last_line(str(error))[:160]})"
            silent.append(asked[one] + why)
    for one in late:
        ray.cancel(one, force=True)
    return answers, silent


def _unseen(storage: Storage, answers: list[Facts]) -> dict[str, str]:
    """By address, what the asker cannot read of what nodes say they have written."""
    found = {}
    for one in answers:
        try:
            arrived = not one.mine or storage.read_if_there(one.mine) is not None
        except OSError as error:
            found[one.address] = f"what it writes cannot be read here ({first_line(error)})"
            continue
        if not arrived:
            found[one.address] = "what it writes does not arrive here"
    return found


def _database(tracking: str, storage: Storage) -> Finding:
    """Whether MLflow's store can be opened without a server, as drivers on the head will."""
    try:
        check_tracking(tracking, storage)
    except InputError as error:
        return Finding(
            "MLflow", "problem", str(error), "name a server with --tracking http://HOST:5000"
        )
    return Finding("MLflow", "fine", "its database can be opened here")


def _resources(workers: int, each: Node) -> list[Finding]:
    """Whether what is asked for can ever be had."""
    wanted = " and ".join(f"{amount:g} {name}" for name, amount in each.items() if amount)
    try:
        check_fits(nodes(), workers, each)
    except InputError as error:
        says, _, remedy = str(error).rpartition("; ")
        return [Finding("resources", "problem", says, remedy)]
    return [Finding("resources", "fine", f"there is room for {workers} worker(s) of {wanted}")]


def _link(alive: list[dict[str, Any]]) -> Finding:
    """How fast the workers of a run would exchange gradients: a sum over one process on each of the
    nodes.
    """
    import ray

    count = 1 << (min(len(alive), LINK_NODES).bit_length() - 1)
    kind: Any = ray.remote(num_cpus=0)(Peer)
    peers = [kind.options(scheduling_strategy=_on(node)).remote() for node in alive[:count]]
    deadline = monotonic() + LINK_SECONDS
    try:
        address = ray.get(peers[0].listen.remote(), timeout=LINK_SECONDS)
        running = [peer.measure.remote(rank, count, address) for rank, peer in enumerate(peers)]
        rates = ray.get(running, timeout=max(1.0, deadline - monotonic()))
    except Exception as error:
        remedy = "open all ports between the nodes, or keep a run on one node"
        return Finding(
            "network",
            "problem",
            f"workers on two nodes cannot meet ({first_line(error)[:120]})",
            remedy,
        )
    finally:
        with ThreadPoolExecutor() as several:
            list(several.map(ray.kill, peers))
    return link(min(rates), count)


class Peer:
    """One of the processes that exchange; an actor on its node."""

    def __init__(self) -> None:
        self._listener: Any = None

    def listen(self) -> tuple[str, int]:
        """Where the others find it."""
        import ray

        from pipeline.training.step.process_group import listen

        here = ray.util.get_node_ip_address()
        self._listener = listen(here)
        return here, self._listener.getsockname()[1]

    def measure(self, rank: int, count: int, address: tuple[str, int]) -> float:
        """Bytes a second at which gradients of `LINK_BYTES` are summed over all of them."""
        import torch

        from jobs.execution.worker import use_own_interface
        from pipeline.training.step.process_group import init_group, leave_group

        use_own_interface()
        process_group = init_group(
            rank, count, torch.device("cpu"), address, self._listener, timeout_s=LINK_SECONDS
        )
        gradients, seconds = torch.ones(LINK_BYTES // 4), []
        for _ in range(3):
            began = perf_counter()
            process_group.sum_tree([gradients.clone()])
            seconds.append(perf_counter() - began)
        leave_group()
        return LINK_BYTES / min(seconds)
