"""`build`: measured frames of finished runs with given errors."""

from collections.abc import Callable
from json import dumps

import pytest

from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.metrics import TEST_ERR, TRAIN_CLEAN_ERR, TRAIN_ERR
from tests.analysis.measured_runs import Frames, frames_of, points, run_row


@pytest.fixture(scope="session")
def build() -> Callable[..., Frames]:
    """`build({"plain20": [9.5, 9.6, 9.7]})`: finished runs with these final errors.

    Each run has a test and a running training error at 1/8, 2/8, ... of the iterations, falling by
    1 point a step to the final values; `train` also becomes the final clean training error unless
    `clean` is False.
    """

    def make(
        test: dict[str, list[float]],
        train: dict[str, list[float]] | None = None,
        clean: bool = True,
        overrides: dict[str, object] | None = None,
        iterations: int = 64_000,
        **changes: object,
    ) -> Frames:
        rows, measured = [], []
        for experiment, finals in test.items():
            for seed, final in enumerate(finals):
                params = 1_727_962 if "110" in experiment else 100 * EXPERIMENTS[experiment].depth
                identity = {
                    "overrides": dumps(overrides or {}),
                    "iterations": iterations,
                    "params": params,
                }
                row = run_row(experiment, seed, **identity, **changes)
                row["run_id"] = f"{row['run_id']}:{row['dataset_id']}:{row['overrides']}"
                rows.append(row)
                at = [iterations * step // 8 for step in range(1, 9)]
                measured += points(
                    row["run_id"], TEST_ERR, {i: final + (8 - k) for k, i in enumerate(at, 1)}
                )
                if train:
                    error = train[experiment][seed]
                    measured += points(
                        row["run_id"], TRAIN_ERR, {i: error + (8 - k) for k, i in enumerate(at, 1)}
                    )
                    measured += (
                        points(row["run_id"], TRAIN_CLEAN_ERR, {iterations: error}) if clean else []
                    )
        return frames_of(rows, measured)

    return make
