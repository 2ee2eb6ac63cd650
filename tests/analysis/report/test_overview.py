"""What a report says of how much of the paper it covers: each number of the paper counts once."""

import pytest

from analysis.measured.frames import check
from analysis.report.overview import coverage
from analysis.studies.studies import split_studies
from analysis.tables.study_tables import study_tables
from tests.analysis.report.test_imagenet_report import invented


def counted(frames) -> str:
    """The cells' part of the sentence, of the only study of these frames."""
    (study,) = split_studies(check(*frames))
    cells = [cell for table in study_tables(study) for cell in table.cells()]
    return coverage(cells, []).partition(";")[0]


OF = "of 33 errors that Tables 2 to 6 print of the paper's own networks"


@pytest.mark.parametrize(
    ("errors", "run"),
    [
        ({"plain20": 9.7, "plain56": 13.3}, 0),  # curves of Figure 6, in no table
        ({"plain110": 70.0}, 0),  # of which the paper gives no number
        ({"resnet20": 8.75, "plain20": 9.7}, 1),
        ({"resnet20": 8.75, "resnet110": 6.61}, 2),  # its best and its mean are one cell
    ],
)
def test_plain_networks_below_table_6_are_no_cells_of_it(build, errors, run):
    frames = build({name: [error - 0.01, error, error + 0.01] for name, error in errors.items()})
    assert counted(frames).endswith(f"of {run} run, {OF}")


def test_a_number_that_two_tables_print_counts_once():
    # Tables 2 to 4 have 4 + 14 + 10 places, two of them twice; Table 5 cannot be run.
    assert counted(invented()).endswith(f"of 26 run, {OF}")
    runs, metrics = invented()
    plain = runs[runs.experiment == "plain34"]
    only = plain, metrics[metrics.run_id.isin(plain.run_id)]
    # 28.54 in both tables, and 10.02.
    assert counted(only).endswith(f"of 2 run, {OF}")
