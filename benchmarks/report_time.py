"""How long the whole report takes, from frames to the bytes of every file, on invented runs."""

from statistics import median
from time import perf_counter

import numpy as np
import pandas as pd

from analysis.measured.frames import Frames, check
from analysis.report.report import report_files
from benchmarks import measure
from jobs.console.console import console, progress
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.layers import layout, response_layers
from pipeline.recipe.metrics import RESPONSE_STD, TEST_ERR, TRAIN_CLEAN_ERR, TRAIN_ERR
from pipeline.recipe.schedule import CONVERGING_RULE

EXPECTED_SECONDS = 20.0
ROWS = [
    name
    for name, experiment in EXPERIMENTS.items()
    if experiment.family == "cifar" and experiment.artifacts != ("signals",)
]


def bench(runs: int, points: int, rounds: int) -> float:
    """Measure and print; returns the median seconds.

    Raises:
        RuntimeError: two rounds gave other bytes.
    """
    frames = invented(runs, points)
    seconds: list[float] = []
    first: dict[str, bytes] = {}
    with progress("reporting") as report:
        for number in range(rounds):
            started = perf_counter()
            files = report_files(frames)
            seconds.append(perf_counter() - started)
            # A report is a function of its frames; one that is not would be fast for nothing.
            if first and files != first:
                raise RuntimeError("the same frames gave other bytes")
            first = files
            report(number + 1, rounds)
    table = measure.table("report", "of", "seconds", "min to max", "expected")
    what = f"{runs} runs of {points} points, {len(first)} files"
    table.add_row(what, *measure.spread(seconds, ".1f"), f"at most {EXPECTED_SECONDS:g}")
    console.print(table)
    return median(seconds)


def invented(runs: int, points: int) -> Frames:
    """Runs with curves that fall to a plausible end; no number of it means anything."""
    # Always the same numbers, so that two rounds can be compared byte by byte.
    dice = np.random.default_rng(0)
    rows, measured, layers = [], [], []
    # Seeds of all rows in turn: every table, figure and claim has something to show.
    for number in range(runs):
        name, seed = ROWS[number % len(ROWS)], number // len(ROWS)
        experiment = EXPERIMENTS[name]
        run_id = f"{name}-{seed}"
        rows.append(_run(run_id, name, seed, layout(experiment).params))
        # Two curves, as many points as asked for; then what a finished run has besides.
        at = np.linspace(experiment.iterations / points, experiment.iterations, points).astype(int)
        for metric, end in ((TEST_ERR, 8.0), (TRAIN_ERR, 1.0)):
            values = end + 80 * np.exp(-np.arange(points) / 8) + dice.normal(0, 0.2, points)
            measured += [
                {
                    "run_id": run_id,
                    "metric": metric,
                    "iteration": int(i),
                    "value": float(v),
                    "time_ms": int(i),
                }
                for i, v in zip(at, values, strict=True)
            ]
        # Measured once, at the end of a run.
        clean = {
            "metric": TRAIN_CLEAN_ERR,
            "iteration": experiment.iterations,
            "value": 1.0,
            "time_ms": 0,
        }
        measured.append({"run_id": run_id, **clean})
        # Figure 7 reads the responses of every layer.
        layers += [
            {
                "run_id": run_id,
                "iteration": experiment.iterations,
                "quantity": RESPONSE_STD,
                "layer": layer,
                "name": of,
                "value": 1.0,
            }
            for layer, of in enumerate(response_layers(layout(experiment)), 1)
        ]
    return check(pd.DataFrame(rows), pd.DataFrame(measured), pd.DataFrame(layers))


def _run(run_id: str, name: str, seed: int, params: int) -> dict[str, object]:
    about = {
        "dataset": "cifar10",
        "dataset_id": "invented",
        "comparable": True,
        "alone": True,
        "looks": False,
    }
    made = {
        "device": "cpu",
        "commit": "0" * 40,
        "dirty": False,
        "versions": "{}",
        "hardware": "none",
        "mlflow_run_id": run_id,
    }
    return {
        "run_id": run_id,
        "experiment": name,
        "fingerprint": EXPERIMENTS[name].fingerprint,
        "overrides": "{}",
        "seed": seed,
        "iterations": EXPERIMENTS[name].iterations,
        "status": "FINISHED",
        "reason": None,
        "params": params,
        "warmup_end": 400,
        "converging_from": 1000,
        "converging_rule": CONVERGING_RULE,
        "world_size": 1,
        "threads": 1,
        "started_ms": 0,
        "ended_ms": 1,
        **about,
        **made,
    }
