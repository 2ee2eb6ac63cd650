"""Curves over seeds: the mean of a row's finished runs at each iteration, and their range.

Feeds Figures 1 and 6. No drawing, and no smoothing: the paper's curves are raw points as well.
"""

from functools import lru_cache

import pandas as pd

from analysis.studies.run_metrics import MEASURED, measure
from analysis.studies.studies import Study


@lru_cache(maxsize=256)
def curve(study: Study, experiment: str, metric: str) -> pd.DataFrame:
    """Columns iteration, mean, low, high, n, where every finished run of the row has measured.

    Runs that failed, did not finish or have no final error are left out, as in Table 6. Computed
    once, read-only.
    """
    run_metrics = measure(study)
    runs = run_metrics.run_id[
        (run_metrics.experiment == experiment) & (run_metrics.state == MEASURED)
    ]
    # Only finished runs: one that stopped early would pull the mean of the first iterations alone.
    points = study.metrics[study.metrics.run_id.isin(runs) & (study.metrics.metric == metric)]
    # A run that measured nothing is still a column, and so leaves no iteration that all have: a
    # mean over fewer runs than the table's would not be the same networks.
    wide = points.pivot(index="iteration", columns="run_id", values="value").reindex(
        columns=sorted(runs)
    )
    return over_runs(wide.dropna().sort_index())


def over_runs(wide: pd.DataFrame) -> pd.DataFrame:
    """What a curve with its band shows, of a frame with one column per run.

    Columns: the index under its own name, mean, low, high and n.
    """
    return pd.DataFrame(
        {
            str(wide.index.name): wide.index.to_numpy(),
            "mean": wide.mean(axis=1).to_numpy(),
            "low": wide.min(axis=1).to_numpy(),
            "high": wide.max(axis=1).to_numpy(),
            "n": wide.shape[1],
        }
    )
