"""The errors that the paper states of a network, wherever it does: for a line, or for a list."""

from dataclasses import dataclass

from analysis.measured.frames import each
from analysis.paper import reported
from analysis.tables.table_6 import references
from pipeline.recipe.experiments import EXPERIMENTS

TEST_ERROR, TEN_CROPS = "test error", "top-1 error, ten crops"
"""What stands for a network of CIFAR-10's, and of ImageNet's, in one number."""
METRICS = {
    "test/top1_err": TEST_ERROR,
    "10crop/top1_err": TEN_CROPS,
    "10crop/top5_err": "top-5 error, ten crops",
    "multiscale/top1_err": "top-1 error, fully convolutional at several scales",
    "multiscale/top5_err": "top-5 error, fully convolutional at several scales",
}
"""The metrics of the tables' files, in words."""


@dataclass(frozen=True)
class PaperError:
    """An error in percent, of what, as the paper prints it, and where.

    `number` is the one that is compared: of several runs their mean, NaN if the paper gives none.
    """

    of: str
    number: float
    printed: str
    where: str


def paper_errors(experiment: str) -> list[PaperError]:
    """The errors that the paper states of an experiment, the one that stands for it first.

    Empty for a network that the paper does not have, or of which it prints no error.
    """
    if experiment not in EXPERIMENTS:
        return []
    if EXPERIMENTS[experiment].family == "cifar":
        return [
            PaperError(
                TEST_ERROR,
                reference.number,
                reference.printed,
                reference.note if reference.method == "plain" else "Table 6",
            )
            for reference in references()
            if reference.experiment == experiment
        ]
    cells = reported.cells()
    return [
        PaperError(METRICS[cell.metric], cell.value, f"{cell.value:.2f}", f"Table {cell.table[-1]}")
        for cell in each(cells[cells.experiment == experiment])
    ]
