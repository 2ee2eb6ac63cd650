"""What a study's runs cost: devices' time, training rate and energy, by row and kind of device.

Of finished runs that recorded it, as medians with the lowest and the highest: nothing is compared.
Runs of earlier versions recorded none, and a study of such runs has no such table.
"""

from functools import lru_cache
from typing import Any

import pandas as pd

from analysis.measured.frames import each
from analysis.studies.run_metrics import MEASURED, measure
from analysis.studies.studies import Study
from analysis.tables.study_tables import StudyTable
from analysis.tables.table_text import MISSING, amount

COST = "cost"
CPU = "cpu"
"""What a run that was trained on processors has as its `device`."""

SECONDS, RATE, ENERGY = "device seconds", "images/s", "joules"

NOTES = (
    "The median of a row's finished runs on one kind of device, and their lowest and highest. "
    "Device seconds: how long a run held its devices from the end of its set-up, times their "
    "number, evaluation and saving included; runs of a pack share them evenly, and on processors a "
    "worker is a device. What an attempt did after its last checkpoint is lost, and not counted.",
    "Images/s: a run's own rate of training, beside any others on its device; evaluation and "
    "saving left out.",
)
NOTE_ENERGY = (
    "Joules: by the card's own counter, shared in the same way. Known of runs with one worker, on "
    "a GPU that Ray gave to them alone; all that the card used is counted."
)


@lru_cache(maxsize=16)
def cost_tables(study: Study) -> list[StudyTable]:
    """The table of a study; none where nothing was recorded. Treat it as read-only."""
    runs = measured_costs(study)
    if runs.empty:
        return []
    raw = pd.DataFrame(
        [
            _row(str(experiment), str(device), alike)
            for (experiment, device), alike in runs.groupby(["experiment", "device"], sort=False)
        ]
    )
    without = int((measure(study).state == MEASURED).sum()) - len(runs)
    unknown = [f"{without} finished runs recorded no cost."] if without else []
    energy = [NOTE_ENERGY] if raw.joules.notna().any() else []
    return [
        StudyTable(
            name=COST,
            title="What it cost",
            raw=raw,
            printed=_printed(raw),
            numeric=("n", SECONDS, RATE, ENERGY),
            notes=[*NOTES, *energy, *unknown],
            linked=("n",),
            rows=raw.experiment.tolist(),
        )
    ]


def measured_costs(study: Study) -> pd.DataFrame:
    """The finished runs whose cost is known, with the kind of their device (a CPU's by its model).

    In the order of the study's runs. `gpu` says whether all of a run was trained on GPUs.
    """
    run_metrics = measure(study)
    kinds = study.runs.device.str.split(" + ", regex=False)
    runs = run_metrics.assign(
        device=study.runs.device.mask(study.runs.device == CPU, study.runs.hardware),
        gpu=[CPU not in kind for kind in kinds],
    )
    return runs[(runs.state == MEASURED) & runs.device_seconds.notna()]


def _row(experiment: str, device: str, runs: pd.DataFrame) -> dict[str, Any]:
    # Energy is a row's only where all of its runs know theirs.
    joules = runs.joules if runs.joules.notna().all() else runs.joules.iloc[:0]
    return {
        "experiment": experiment,
        "device": device,
        "n": len(runs),
        "device_seconds": runs.device_seconds.median(),
        "device_seconds_low": runs.device_seconds.min(),
        "device_seconds_high": runs.device_seconds.max(),
        "images_per_second": runs.images_per_second.median(),
        "joules": joules.median(),
        "joules_low": joules.min(),
        "joules_high": joules.max(),
    }


def _printed(raw: pd.DataFrame) -> pd.DataFrame:
    """The table as text, without columns in which nothing is known."""
    table = pd.DataFrame(
        {
            "experiment": raw.experiment,
            "device": raw.device,
            "n": raw.n.astype(str),
            SECONDS: [
                _range(row.device_seconds, row.device_seconds_low, row.device_seconds_high, row.n)
                for row in each(raw)
            ],
            RATE: [amount(rate) for rate in raw.images_per_second],
            ENERGY: [
                _range(row.joules, row.joules_low, row.joules_high, row.n) for row in each(raw)
            ],
        }
    )
    return table.drop(columns=[name for name in table if (table[name] == MISSING).all()])


def _range(median: float, low: float, high: float, n: int) -> str:
    return amount(median) + (
        f" ({amount(low)}–{amount(high)})" if n > 1 and median == median else ""
    )
