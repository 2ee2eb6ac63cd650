"""Scoring a weights file on a prepared dataset, in this process."""

from pathlib import Path

import torch

from pipeline.augment import single_views
from pipeline.datasets import read_dataset
from pipeline.evaluate import Score, evaluate
from pipeline.experiments import Experiment
from pipeline.networks import build_network
from pipeline.ranks import single
from pipeline.storage import Storage
from pipeline.weights import load_weights


def score_weights(row: Experiment, weights: Path, storage: Storage, dataset_id: str) -> Score:
    """The score of a weights file on the test images, single original view.

    Raises:
        InputError: the file is not safetensors, or its weights are for another architecture.
    """
    dataset = read_dataset(storage, dataset_id)
    network = build_network(row, seed=0, classes=dataset.row.classes)
    load_weights(network, row, dataset.row.classes, weights.read_bytes(), str(weights))
    ranks = single(torch.device("cpu"))
    return evaluate(network, single_views(row, dataset, dataset.test, ranks.device), row.precision, ranks)
