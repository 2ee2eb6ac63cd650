"""A worker process of test_train: `python several_workers.py RANK WORLD_SIZE ADDRESS STORAGE GROUPS`.

It trains a small run and prints the digests of the images entering its network, one line an iteration.
"""

import sys
from hashlib import blake2b

import torch

sys.path.insert(0, __file__.rpartition("/")[0])
from small_runs import digits_once, small_run

from pipeline import ranks
from pipeline.augment import TrainImages
from pipeline.sampling import batch_at
from pipeline.storage import Storage
from pipeline.train import Settings, train


def main(rank: int, world_size: int, address: str, storage: str, groups: int) -> None:
    torch.set_num_threads(1)
    run, dataset = small_run(**several_groups(groups)), digits_once()
    images = TrainImages(run.experiment, dataset, torch.device("cpu"))
    size = run.experiment.global_batch_size
    share = size // world_size
    for iteration in range(run.experiment.iterations):
        views, labels = images.batch(batch_at(run.seed, images.count, iteration, size, rank * share, share))
        for view, label in zip(views, labels, strict=True):
            print(blake2b(view.contiguous().numpy().tobytes() + label.numpy().tobytes(), digest_size=8).hexdigest())
    mine = ranks.join(rank, world_size, torch.device("cpu"), address, timeout_s=60)
    try:
        train(run, dataset, Storage(storage), mine, Settings())
    finally:
        ranks.leave()


def several_groups(groups: int) -> dict:
    """Ten iterations of `groups` batch-norm groups of 8 images."""
    return dict(global_batch_size=8 * groups, bn_group=8, iterations=10, lr_drops=(5, 8), eval_every=5)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
