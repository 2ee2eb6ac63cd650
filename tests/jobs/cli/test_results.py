"""`resnet-repro results`: what one storage has measured is reported on by another, and bad bundles
leave nothing behind.
"""

from pathlib import Path

import pandas as pd
import pytest

from jobs.tracking.other_publications import publish_stored
from pipeline.data.stored import write_dataset
from pipeline.runs.run import start_run
from pipeline.storage import Storage
from pipeline.training.loop import train
from pipeline.training.step.process_group import single_process
from tests.conftest import Cli
from tests.pipeline.training.small_runs import digits_once, small_run

ROOT = Path(__file__).parents[3]
KEPT, EXAMPLE = ROOT / "analysis" / "results", ROOT / "docs" / "example"


def trained(place: Path, *seeds: int) -> Storage:
    """A storage with finished runs of these seeds, published to its own store."""
    storage = Storage(str(place))
    write_dataset(storage, digits_once(), {"kind": "embedded"})
    for seed in seeds:
        start_run(storage, small_run(seed), 1)
        train(small_run(seed), digits_once(), storage, single_process())
    publish_stored(f"sqlite:///{place}/mlflow.db", storage, print)
    return storage


@pytest.mark.slow
def test_results_of_two_clusters_make_one_report(cli: Cli, tmp_path: Path) -> None:
    trained(tmp_path / "theirs", 0, 1)
    trained(tmp_path / "mine", 1, 2)
    bundle = tmp_path / "theirs.zip"
    packed = cli("results", "export", bundle, "--storage", tmp_path / "theirs", "--weights")
    assert packed.returncode == 0 and "2 runs" in packed.stdout, packed.stderr
    cut = tmp_path / "cut.zip"
    cut.write_bytes(bundle.read_bytes()[:-100])
    refused = cli("results", "import", bundle, cut, "--storage", tmp_path / "mine")
    assert (
        refused.returncode == 2
        and "cut off" in refused.stderr
        and len(refused.stderr.splitlines()) == 1
    )
    assert not (tmp_path / "mine" / "imports").exists()
    for _ in range(2):  # again changes nothing
        taken = cli("results", "import", bundle, "--storage", tmp_path / "mine")
        assert taken.returncode == 0 and "2 runs imported" in taken.stdout, taken.stderr
    reported = cli("report", "--storage", tmp_path / "mine")
    assert reported.returncode == 0, reported.stderr
    table = pd.read_csv(tmp_path / "mine" / "report" / "table_6.csv").set_index("experiment")
    assert table.n["resnet20"] == 3
    assert cli("audit", tmp_path / "mine" / "report").returncode == 0


def test_imports_alone_make_a_report(cli: Cli, tmp_path: Path) -> None:
    trained(tmp_path / "theirs", 0)
    assert (
        cli("results", "export", tmp_path / "t.zip", "--storage", tmp_path / "theirs").returncode
        == 0
    )
    assert (
        cli("results", "import", tmp_path / "t.zip", "--storage", tmp_path / "new").returncode == 0
    )
    reported = cli("report", "--storage", tmp_path / "new")
    assert reported.returncode == 0, reported.stderr
    assert (tmp_path / "new" / "report" / "index.html").exists()
    # The same again is no harm; another file of that name is never lost.
    again = ("results", "export", tmp_path / "t.zip", "--storage", tmp_path / "theirs")
    assert cli(*again).returncode == 0
    (tmp_path / "t.zip").write_bytes(b"something else")
    refused = cli(*again)
    assert refused.returncode == 2 and "t.zip: is there already" in refused.stderr
    assert (tmp_path / "t.zip").read_bytes() == b"something else"


def test_a_folder_of_measurements_is_taken_as_a_bundle(cli: Cli, tmp_path: Path) -> None:
    for _ in range(2):  # again changes nothing
        taken = cli("results", "import", KEPT, "--storage", tmp_path)
        assert taken.returncode == 0 and "16 runs imported" in taken.stdout, taken.stderr
    assert len(list((tmp_path / "imports").iterdir())) == 1
    reported = cli("report", "--storage", tmp_path, "--out", tmp_path / "report")
    assert reported.returncode == 0, reported.stderr
    made = {path.name for path in (tmp_path / "report").iterdir()}
    assert made == {path.name for path in EXAMPLE.iterdir()}
    empty = cli("results", "import", tmp_path / "report", "--storage", tmp_path)
    assert empty.returncode == 2 and "runs.parquet" in empty.stderr


def test_what_cannot_be_read_or_written_is_one_line(cli: Cli, tmp_path: Path) -> None:
    nothing = cli("results", "import", tmp_path / "nowhere.zip", "--storage", tmp_path / "new")
    assert nothing.returncode == 2 and "cannot be read" in nothing.stderr
    empty = cli("results", "export", tmp_path / "x.zip", "--storage", tmp_path / "new")
    assert empty.returncode == 2 and "holds no runs yet" in empty.stderr
