"""The workers of one run, and sums over them in an order that does not depend on how many there
are.

Group gradients are added in one binary tree in group order: each rank its own subtree, then ranks
pairwise. DDP is not used, because its bucket layout changes after its first step and with it the
order of summation.
"""

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

TEXT_BYTES = 1000


@dataclass(frozen=True)
class ProcessGroup:
    """This process among the workers of a run: `rank` of `world_size` (a power of two), computing
    on `device`.
    """

    rank: int
    world_size: int
    device: torch.device

    def sum_tree(self, parts: Iterable[Tensor]) -> Tensor:
        """The sum over all groups of all ranks of equally shaped tensors, the same bytes on every
        rank.

        `parts` are this rank's groups in order (a power of two of them); their memory is reused.
        """
        return self.exchange_tree(sum_subtree(parts))

    def exchange_tree(self, total: Tensor) -> Tensor:
        """The sum over ranks of each rank's `total`, in place, pairwise from neighbours outwards.

        All ranks end with the same bytes: a + b is b + a.
        """
        distance = 1
        while distance < self.world_size:
            total += self._exchange(total, self.rank ^ distance)
            distance *= 2
        return total

    def _exchange(self, mine: Tensor, partner: int) -> Tensor:
        theirs = torch.empty_like(mine)
        requests = [dist.P2POp(dist.isend, mine, partner), dist.P2POp(dist.irecv, theirs, partner)]
        for work in dist.batch_isend_irecv(requests):
            work.wait()
        return theirs

    def sum_disjoint(self, values: Tensor) -> Tensor:
        """The sum over ranks of tensors in which at most one rank holds a non-zero at each place:
        exact in any order.
        """
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def any(self, mine: bool) -> bool:
        """Whether it is so on any rank."""
        if self.world_size == 1:
            return mine  # without waiting for the device
        flags = torch.zeros(self.world_size, dtype=torch.int32, device=self.device)
        flags[self.rank] = int(mine)
        return bool(self.sum_disjoint(flags).any())

    def gather_text(self, text: str) -> list[str]:
        """Each rank's text (its first 1,000 bytes), in order of rank."""
        mine = text.encode()[:TEXT_BYTES]
        table = torch.zeros(self.world_size, TEXT_BYTES, dtype=torch.int32)
        table[self.rank, : len(mine)] = torch.tensor(list(mine), dtype=torch.int32)
        rows = self.sum_disjoint(table.to(self.device)).tolist()
        return [bytes(row).rstrip(b"\0").decode(errors="replace") for row in rows]


def sum_subtree(parts: Iterable[Tensor]) -> Tensor:
    """The pairwise sum ((a+b)+(c+d))+... of a power of two of tensors, holding only log2 of them at
    a time.
    """
    stack: list[tuple[int, Tensor]] = []
    for part in parts:
        size, total = 1, part
        while stack and stack[-1][0] == size:
            total = stack.pop()[1].add_(total)
            size *= 2
        stack.append((size, total))
    if len(stack) != 1:
        raise ValueError(
            f"a binary tree needs a power of two of parts, not {sum(size for size, _ in stack)}"
        )
    return stack[0][1]


def single_process(device: torch.device | None = None) -> ProcessGroup:
    """A run of one process."""
    return ProcessGroup(0, 1, device or torch.device("cpu"))


def listen(host: str) -> socket.socket:
    """A socket that listens on `host` alone, at a free port: where the workers of a run meet. Rank
    0's to open.
    """
    return socket.create_server(
        (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET
    )


def init_group(
    rank: int,
    world_size: int,
    device: torch.device,
    address: tuple[str, int],
    listener: socket.socket | None = None,
    timeout_s: float = 300,
) -> ProcessGroup:
    """Meet the other workers at `address` (host, port of rank 0): NCCL between GPUs, gloo
    otherwise.

    Rank 0 hands over its `listener`; without one it opens the port on all its addresses.
    """
    if world_size > 1:
        timeout = timedelta(seconds=timeout_s)
        handed_over = None if listener is None else listener.detach()
        store = dist.TCPStore(
            *address, world_size, rank == 0, timeout, master_listen_fd=handed_over
        )
        dist.init_process_group(
            backend="nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=world_size,
            timeout=timeout,
        )
    return ProcessGroup(rank, world_size, device)


def leave_group() -> None:
    """Part from the other workers."""
    if dist.is_initialized():
        dist.destroy_process_group()
