"""A run trained by several processes of this machine, and a record of the images that entered their
networks.
"""

import socket
from contextlib import closing
from hashlib import blake2b
from pathlib import Path

import torch

from pipeline.data.staging import staged_dataset
from pipeline.runs.execution import Execution
from pipeline.runs.run import Run
from pipeline.storage import Storage
from pipeline.training.feeding.feeds import training_feed
from pipeline.training.loop import train
from pipeline.training.step.process_group import init_group, leave_group
from tests.forked import forkserver
from tests.pipeline.training.small_runs import digits_once, small_run


def several_groups(groups: int) -> dict:
    """Ten iterations of `groups` batch-norm groups of 8 images."""
    return dict(
        global_batch_size=8 * groups, bn_group=8, iterations=10, lr_drops=(5, 8), eval_every=5
    )


def trained_by(
    world_size: int, place: Path, run: Run | None = None, execution: Execution | None = None
) -> list[list[str]]:
    """Train eight groups on `world_size` workers with `place` as storage; the views' digests in
    order, by rank.
    """
    run, execution = run or small_run(**several_groups(8)), execution or Execution()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
    workers = [
        forkserver().Process(target=work, args=(rank, world_size, address, place, run, execution))
        for rank in range(world_size)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    assert [worker.exitcode for worker in workers] == [0] * world_size
    return [(place / f"seen-{rank}").read_text().split() for rank in range(world_size)]


def work(
    rank: int,
    world_size: int,
    address: tuple[str, int],
    place: Path,
    run: Run,
    execution: Execution,
) -> None:
    """One worker."""
    torch.set_num_threads(1)
    storage, small = Storage(str(place)), digits_once()
    dataset = small if run.dataset_id == small.id else staged_dataset(storage, run.dataset_id, None)
    mine = init_group(rank, world_size, torch.device("cpu"), address, timeout_s=60)
    try:
        with (
            closing(training_feed(run, dataset, mine, threads=2)) as feed,
            open(place / f"seen-{rank}", "w") as seen,
        ):
            for iteration in range(run.experiment.iterations):
                for view, label in zip(*feed.batch(iteration), strict=True):
                    content = view.contiguous().numpy().tobytes() + label.numpy().tobytes()
                    seen.write(blake2b(content, digest_size=8).hexdigest() + "\n")
        train(run, dataset, storage, mine, execution)
    finally:
        leave_group()
