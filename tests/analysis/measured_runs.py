"""Frames made by hand: a few runs with given errors, in `analysis.measured.frames`' schema."""

import pandas as pd

from pipeline.recipe.schedule import CONVERGING_RULE

Frames = tuple[pd.DataFrame, pd.DataFrame]


def run_row(experiment: str, seed: int, **changes: object) -> dict[str, object]:
    row = {
        "run_id": f"{experiment}:{seed}",
        "experiment": experiment,
        "fingerprint": "f" * 16,
        "dataset": "cifar10",
        "dataset_id": "c1fa",
        "comparable": True,
        "alone": True,
        "looks": False,
        "overrides": "{}",
        "seed": seed,
        "iterations": 64_000,
        "status": "FINISHED",
        "reason": None,
        "params": 269_722,
        "warmup_end": None,
        "converging_from": 100,
        "converging_rule": CONVERGING_RULE,
        "world_size": 2,
        "threads": 1,
        "device": "cpu",
        "commit": "0123456789abcdef",
        "dirty": False,
        "versions": '{"torch": "2.0", "python": "3.11"}',
        "hardware": "2 cores",
        "mlflow_run_id": f"mlflow-{experiment}-{seed}",
        "started_ms": 1_700_000_000_000,
        "ended_ms": 1_700_000_061_000,
    }
    return row | changes


def points(run_id: str, metric: str, values: dict[int, float]) -> list[dict[str, object]]:
    return [
        {
            "run_id": run_id,
            "metric": metric,
            "iteration": i,
            "value": v,
            "time_ms": 1_700_000_000_000 + i,
        }
        for i, v in values.items()
    ]


def frames_of(rows: list[dict[str, object]], measured: list[dict[str, object]]) -> Frames:
    return pd.DataFrame(rows), pd.DataFrame(
        measured, columns=["run_id", "metric", "iteration", "value", "time_ms"]
    )
