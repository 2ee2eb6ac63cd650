"""What the paper reported: typed loaders of the tables, curves and claims in `analysis/paper`.

Read on call, never at import. Nothing is measured or compared here.
"""

import re
from dataclasses import dataclass
from functools import cache
from math import nan
from pathlib import Path

import pandas as pd

from analysis.measured.frames import each

PAPER = Path(__file__).parent
PAPER_ITERATIONS = 64_000
"""Sec. 4.2: the CIFAR-10 schedule, the x-axis of Figures 1 and 6."""

# The panels of `curves.csv` whose x-axis is that of CIFAR-10's schedule.
CIFAR_PANELS = ("fig1_left", "fig1_right", "fig6_left", "fig6_middle", "fig6_right")


@dataclass(frozen=True)
class Table6Row:
    """A row of Table 6: errors in percent, `params` as printed.

    `experiment` is empty for a method that the paper only quotes.
    """

    method: str
    layers: int | None
    experiment: str
    value: float
    best: float
    mean: float
    std: float
    params: str
    note: str

    @property
    def printed(self) -> str:
        """The error as the paper prints it: "8.75", or "6.43 (6.61±0.16)"."""
        return (
            f"{self.value:.2f}"
            if pd.isna(self.mean)
            else f"{self.best:.2f} ({self.mean:.2f}±{self.std:.2f})"
        )

    @property
    def runs(self) -> int:
        """How many runs that is of: ResNet-110 was run five times (Sec. 4.2), the others once."""
        return 1 if pd.isna(self.mean) else 5

    @property
    def reference(self) -> float:
        """What a mean over seeds is compared with: the paper's mean, or else its single run."""
        return self.value if pd.isna(self.mean) else self.mean


@dataclass(frozen=True)
class Statement:
    """A claim in words, with where the paper makes it and the numbers it gives."""

    id: str
    statement: str
    source: str
    paper_values: str
    note: str


@cache
def table_6() -> tuple[Table6Row, ...]:
    """The rows of Table 6, in the paper's order."""
    # An empty cell stays empty: text columns get no NaN, numbers keep theirs.
    frame = pd.read_csv(PAPER / "table_6.csv", dtype={"layers": "Int64"}, keep_default_na=True)
    text = ["experiment", "params", "note"]
    frame[text] = frame[text].fillna("")
    return tuple(
        Table6Row(
            method=row.row,
            layers=None if pd.isna(row.layers) else int(row.layers),
            experiment=row.experiment,
            value=row.value,
            best=row.best,
            mean=row.mean,
            std=row.std,
            params=row.params,
            note=row.note,
        )
        for row in each(frame)
    )


@cache
def protocol_table(number: int) -> pd.DataFrame:
    """Table 2, 3, 4 or 5, a line a method in the paper's order.

    Columns: method, experiment (empty if only quoted), top1, top5, note.

    Errors are percent, NaN where the paper prints none.
    """
    frame = pd.read_csv(PAPER / f"table_{number}.csv")
    # Table 2 names a network by row and depth, the others in one word.
    frame["method"] = [row.row if number != 2 else f"{row.row}-{row.layers}" for row in each(frame)]
    frame["top_k"] = frame.metric.str.rpartition("/")[2].str.removesuffix("_err")
    frame[["experiment", "note"]] = frame[["experiment", "note"]].fillna("").astype("str")
    keys = ["method", "experiment"]
    # One line a measure becomes one line a method; pivoting sorts, so the paper's order is
    # restored.
    wide = frame.pivot(index=keys, columns="top_k", values="value").reindex(
        columns=["top1", "top5"]
    )
    notes = frame.drop_duplicates(keys).set_index(keys).note
    return wide.join(notes).loc[list(notes.index)].reset_index()


@cache
def figure_4() -> pd.DataFrame:
    """The digitised curves of Figure 4 (±0.06 points): experiment, split, iteration, error.

    `split` is `train` or `val`, the error percent.
    """
    frame = pd.read_csv(PAPER / "curves.csv")
    frame = frame[frame.panel.str.startswith("fig4_")]
    # The paper has no letter for the ResNet-34 of Figure 4: Sec. 4.1 says it is option A.
    names = frame.curve.str.extract(r"(?P<name>\S+) (?P<split>train|val)")
    experiments = {
        "plain-18": "plain18",
        "plain-34": "plain34",
        "ResNet-18": "resnet18",
        "ResNet-34": "resnet34-a",
    }
    return pd.DataFrame(
        {
            "experiment": names.name.map(experiments),
            "split": names.split,
            "iteration": (frame.x * 10_000).round().astype("int64"),
            "error": frame.y,
        }
    ).reset_index(drop=True)


@cache
def claims() -> dict[str, Statement]:
    """The claims by id, in order."""
    frame = pd.read_csv(PAPER / "claims.csv").fillna("")
    return {
        row.id: Statement(row.id, row.statement, row.source, row.paper_values, row.note)
        for row in each(frame)
    }


@cache
def multiply_adds() -> dict[str, str]:
    """Table 1's last row by experiment, as printed: "1.8e9"."""
    frame = pd.read_csv(PAPER / "table_1.csv", dtype={"value": "str"})
    # Text, not a number: it is shown as printed, and compared by nobody.
    return {row.experiment: row.value for row in each(frame)}


@cache
def cells() -> pd.DataFrame:
    """Every error that Tables 2 to 6 print of the paper's own networks, each once.

    Columns: table (the first that prints it), row, experiment (empty for Table 5's ensemble),
    metric, value (percent). Table 3 repeats two errors of Table 2; ResNet-110's best and mean of
    five runs are one cell of Table 6, and one here.
    """
    frames = [pd.read_csv(PAPER / f"table_{number}.csv") for number in range(2, 7)]
    # Columns that one file leaves empty would decide the type of the whole.
    printed = pd.concat(
        [frame.dropna(axis="columns", how="all") for frame in frames], ignore_index=True
    )
    # What the paper only quotes is no result of its own, and says so.
    own = printed[~printed.note.fillna("").str.startswith("quoted")]
    once = own.fillna({"experiment": ""}).drop_duplicates(["experiment", "metric"])
    return once[["table", "row", "experiment", "metric", "value"]].reset_index(drop=True)


@cache
def appendix() -> dict[str, str]:
    """The tables of the appendices (7 to 14), which are not run, with what each is about."""
    return {
        row.table: f"{row.about}: {row.status}" for row in each(pd.read_csv(PAPER / "appendix.csv"))
    }


MARGIN = 0.55
"""Points around the paper's number within which a mean is equivalent to it, but for `margins`."""

PLANNED_STD = 0.16
"""Points from run to run that margins are planned with: the one deviation that the paper states."""


@dataclass(frozen=True)
class Source:
    """Who published errors of the paper's networks: a short name, and where and how."""

    name: str
    origin: str


@cache
def reimplementation_sources() -> dict[str, Source]:
    """Known reimplementations whose errors are published, by key."""
    frame = pd.read_csv(PAPER / "reimplementation_sources.csv")
    return {row.source: Source(row.name, row.origin) for row in each(frame)}


@cache
def reimplementations() -> pd.DataFrame:
    """Their errors in percent as printed: source, experiment, metric, value (text), note."""
    return pd.read_csv(PAPER / "reimplementations.csv", dtype="str", keep_default_na=False)


@cache
def margins() -> dict[tuple[str, str], float]:
    """The margin of each number, by (experiment, metric); the file says why each.

    Of a difference that a claim states, by (claim, `difference`).
    """
    frame = pd.read_csv(PAPER / "margins.csv")
    return {(row.experiment, row.metric): float(row.margin) for row in each(frame)}


@cache
def curves() -> pd.DataFrame:
    """The digitised CIFAR-10 curves: panel, experiment, split, iteration, error.

    `split` is `train` or `test`, the error percent.
    """
    frame = pd.read_csv(PAPER / "curves.csv").query(
        "panel in @CIFAR_PANELS", local_dict={"CIFAR_PANELS": CIFAR_PANELS}
    )
    names = frame.curve.str.extract(r"(?P<name>\S+) (?P<split>train|test)")
    return pd.DataFrame(
        {
            "panel": frame.panel,
            # `ResNet-20` of the figure's key is our `resnet20`.
            "experiment": [re.sub("[^a-z0-9]", "", name.lower()) for name in names.name],
            "split": names.split,
            "iteration": (frame.x * 10_000).round().astype("int64"),
            "error": frame.y,
        }
    ).reset_index(drop=True)


def curve(panel: str, experiment: str, split: str) -> pd.DataFrame:
    """One digitised curve: iteration and error; empty if the panel does not show it."""
    frame = curves()
    chosen = (frame.panel == panel) & (frame.experiment == experiment) & (frame.split == split)
    return frame.loc[chosen, ["iteration", "error"]].sort_values("iteration", ignore_index=True)


@cache
def responses() -> pd.DataFrame:
    """The digitised points of Figure 7 (±0.006): panel, experiment, layer (from 1), std.

    `panel` is `top` or `bottom`.
    """
    frame = pd.read_csv(PAPER / "curves.csv")
    frame = frame[frame.panel.str.startswith("fig7_")]
    return pd.DataFrame(
        {
            "panel": frame.panel.str.removeprefix("fig7_"),
            "experiment": [re.sub("[^a-z0-9]", "", name.lower()) for name in frame.curve],
            "layer": frame.x.round().astype("int64"),
            "std": frame.y,
        }
    ).reset_index(drop=True)


def plain_final(experiment: str) -> float:
    """Test error of a plain network at the end of Figure 6 (±0.05 points); NaN if not shown."""
    shown = curve("fig6_left", experiment, "test")
    # The last point only: the paper's tables are of the final iterate as well.
    at_end = shown.loc[shown.iteration == PAPER_ITERATIONS, "error"]
    return float(at_end.iloc[0]) if len(at_end) else nan
