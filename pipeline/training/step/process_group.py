"""The workers of one run, and sums over them in an order that no world size changes.

Group gradients are added in one binary tree in group order: each rank its own subtree, then ranks
pairwise. DDP is not used, because its bucket layout changes after its first step and with it the
order of summation.

Every method of `ProcessGroup` is a collective: all ranks have to call it, in the same order, or the
others wait until the timeout.
"""

import socket
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

TEXT_BYTES = 1000
"""The most that `gather_text` carries of each rank's text."""


@dataclass(frozen=True)
class ProcessGroup:
    """This process among a run's workers: `rank` of `world_size` (a power of two), on `device`."""

    rank: int
    world_size: int
    device: torch.device

    def sum_tree(self, parts: Iterable[Tensor]) -> Tensor:
        """The sum of equally shaped tensors over the groups of all ranks, the same bytes on each.

        `parts` are this rank's groups in order (a power of two of them); their memory is reused.
        """
        return self.exchange_tree(sum_subtree(parts))

    def exchange_tree(self, total: Tensor) -> Tensor:
        """The sum over ranks of each rank's `total`, in place, the same bytes on every rank.

        `total` is this rank's part of the tree over all groups of the batch (`sum_subtree`).
        """
        # Climb the rest of the tree: neighbours first, then pairs of pairs. Both partners compute
        # the sum, and since a + b == b + a in floating point, both get the same bytes.
        distance = 1
        while distance < self.world_size:
            total += self._exchange(total, self.rank ^ distance)
            distance *= 2
        return total

    def _exchange(self, own: Tensor, partner: int) -> Tensor:
        """Send `own` to another rank and return what that rank sends at the same time."""
        received = torch.empty_like(own)
        # One batch of both directions: two blocking sends would wait for each other forever.
        requests = [
            dist.P2POp(dist.isend, own, partner),
            dist.P2POp(dist.irecv, received, partner),
        ]
        for work in dist.batch_isend_irecv(requests):
            work.wait()
        return received

    def sum_disjoint(self, values: Tensor) -> Tensor:
        """The sum over ranks, in place, of tensors whose elements are non-zero on at most one rank.

        Adding zeros rounds nothing, so the order of an all-reduce does not matter here; sums of
        several non-zero floats belong into `sum_tree`.
        """
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on any rank. A synchronisation point with the device."""
        if self.world_size == 1:
            return flag  # and nobody waits
        flags = torch.zeros(self.world_size, dtype=torch.int32, device=self.device)
        flags[self.rank] = int(flag)
        return bool(self.sum_disjoint(flags).any())

    def gather_text(self, text: str) -> list[str]:
        """Each rank's text (its first 1,000 bytes), in order of rank."""
        encoded = text.encode()[:TEXT_BYTES]
        # A row of bytes for each rank: a collective on tensors alone needs no pickle.
        table = torch.zeros(self.world_size, TEXT_BYTES, dtype=torch.int32)
        table[self.rank, : len(encoded)] = torch.tensor(list(encoded), dtype=torch.int32)
        rows = self.sum_disjoint(table.to(self.device)).tolist()
        return [bytes(row).rstrip(b"\0").decode(errors="replace") for row in rows]


def sum_subtree(parts: Iterable[Tensor]) -> Tensor:
    """The pairwise sum ((a+b)+(c+d))+... of a power of two of tensors, added in place.

    Tensors are taken from `parts` one at a time and about log2 of their number are held, if `parts`
    makes them one at a time.
    """
    # Each entry is a finished subtree (its number of parts, its sum), larger ones below: a binary
    # counter. Two of one size become one of twice that, the earlier one always on the left.
    stack: list[tuple[int, Tensor]] = []
    for part in parts:
        size, total = 1, part
        while stack and stack[-1][0] == size:
            total = stack.pop()[1].add_(total)
            size *= 2
        stack.append((size, total))
    # Anything but one entry would be a tree whose shape, and so whose rounding, depends on the
    # number of workers.
    if len(stack) != 1:
        raise ValueError(
            f"a binary tree needs a power of two of parts, not {sum(size for size, _ in stack)}"
        )
    return stack[0][1]


def single_process(device: torch.device | None = None) -> ProcessGroup:
    """The process group of a run with one worker: nothing is ever exchanged."""
    return ProcessGroup(0, 1, device or torch.device("cpu"))


def listen(host: str) -> socket.socket:
    """A socket listening on `host` alone at a free port, for rank 0 to hand to `init_group`."""
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
    """Join the other workers at `address`, host and port of rank 0; returns once all have joined.

    NCCL connects GPUs, gloo everything else. Rank 0 hands over its `listener`; without one it opens
    the port on all its addresses. A worker that waits longer than `timeout_s` seconds, here
    or in a later collective, raises.
    """
    if world_size > 1:
        timeout = timedelta(seconds=timeout_s)
        # The store takes over the file descriptor: detached, so that Python does not close it too.
        listener_fd = None if listener is None else listener.detach()
        store = dist.TCPStore(
            *address, world_size, rank == 0, timeout, master_listen_fd=listener_fd
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
    """Leave the process group, if this process is in one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def own_stream(device: torch.device) -> AbstractContextManager[Any]:
    """A stream for all that this thread launches meanwhile; on a CPU nothing.

    What waits in it waits for its own work alone, and not for that of other threads.
    """
    if device.type != "cuda":
        return nullcontext()
    return torch.cuda.stream(torch.cuda.Stream(device))
