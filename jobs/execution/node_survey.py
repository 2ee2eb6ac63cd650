"""Every node of the connected cluster asked at once, and the links between them measured.

Nothing waits for a node that is silent.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, perf_counter
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jobs.execution.cluster import remote
from jobs.execution.node_facts import Facts, Question, examine
from jobs.execution.worker import use_own_interface
from pipeline.errors import last_line

ANSWER_SECONDS = 35.0
"""Within which every node has to answer."""
LINK_SECONDS = 25.0
LINK_BYTES = 32 * 2**20
LINK_NODES = 8
"""Of a larger cluster only this many nodes are measured together."""

RayNode = Mapping[str, Any]
"""A node as `ray.nodes()` describes it."""


def living_nodes() -> list[RayNode]:
    """The nodes that Ray counts as alive."""
    return [node for node in ray.nodes() if node["Alive"]]


def may_train(node: RayNode) -> bool:
    """Whether Ray counts CPUs or GPUs of a node, so that workers can be there."""
    return any(node["Resources"].get(name, 0) > 0 for name in ("CPU", "GPU"))


def pinned_to(node: RayNode) -> NodeAffinitySchedulingStrategy:
    """Scheduling on this node or not at all."""
    return NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)


def ask(nodes: Sequence[RayNode], question: Question) -> tuple[list[Facts], list[str]]:
    """The nodes' answers, and the names of those that gave none."""
    # No CPU is asked for, so that a cluster which is busy training answers too.
    task = remote(examine, num_cpus=0, max_retries=0)
    names = {}
    for node in nodes:
        resources = node["Resources"]
        head, gpus = "node:__internal_head__" in resources, int(resources.get("GPU", 0))
        answer = task.options(scheduling_strategy=pinned_to(node)).remote(
            question, node["NodeID"][:8], may_train(node), gpus, head
        )
        names[answer] = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
    # All are waited for together: a silent node costs this long once, not once a node.
    ready, late = ray.wait(list(names), num_returns=len(names), timeout=ANSWER_SECONDS)
    facts, silent = [], [names[answer] for answer in late]
    for answer in ready:
        try:
            facts.append(ray.get(answer))
        except Exception as error:  # its node died, or its Python cannot import this package
            why = "" if "schedul" in str(error) else f" ({last_line(str(error))[:160]})"
            silent.append(names[answer] + why)
    for answer in late:
        ray.cancel(answer, force=True)
    return facts, silent


def link_speed(nodes: Sequence[RayNode]) -> tuple[float, int]:
    """Bytes a second of a gradient sum with a process on each node, and how many nodes took part.

    Raises:
        Exception: whatever Ray, torch or the network says where the processes cannot meet.
    """
    # The sum is a binary tree: a power of two of processes takes part, as in a run.
    count = 1 << (min(len(nodes), LINK_NODES).bit_length() - 1)
    actor: Any = remote(LinkPeer, num_cpus=0)
    peers = [actor.options(scheduling_strategy=pinned_to(node)).remote() for node in nodes[:count]]
    deadline = monotonic() + LINK_SECONDS
    try:
        # The first peer is rank 0: the others are told where it listens, as Ray Train does it.
        address = ray.get(peers[0].listen.remote(), timeout=LINK_SECONDS)
        running = [peer.measure.remote(rank, count, address) for rank, peer in enumerate(peers)]
        rates = ray.get(running, timeout=max(1.0, deadline - monotonic()))
    finally:
        # A peer that waits for another one cannot be asked to end, and killing one waits for its
        # node: all at once.
        with ThreadPoolExecutor() as pool:
            list(pool.map(ray.kill, peers))
    return min(rates), count


class LinkPeer:
    """One of the processes that exchange; an actor on its node."""

    def __init__(self) -> None:
        self._listener: Any = None

    def listen(self) -> tuple[str, int]:
        """Open a port on this node; the address at which the others find it."""
        from pipeline.training.step.process_group import listen

        host = ray.util.get_node_ip_address()
        self._listener = listen(host)
        return host, self._listener.getsockname()[1]

    def measure(self, rank: int, count: int, address: tuple[str, int]) -> float:
        """Bytes a second at which gradients of `LINK_BYTES` are summed over all of them."""
        import torch

        from pipeline.training.step.process_group import init_group, leave_group

        # By the interface that training uses: another one may be faster, or closed.
        use_own_interface()
        process_group = init_group(
            rank, count, torch.device("cpu"), address, self._listener, timeout_s=LINK_SECONDS
        )
        # The best of three: the first one also pays for opening the connections.
        gradients, seconds = torch.ones(LINK_BYTES // 4), []
        for _ in range(3):
            began = perf_counter()
            process_group.sum_tree([gradients.clone()])
            seconds.append(perf_counter() - began)
        leave_group()
        return LINK_BYTES / min(seconds)
