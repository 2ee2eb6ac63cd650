"""Where no dataset is named it is the paper's own for the experiments; the demo's is digits."""

import json
import re
import shlex
from pathlib import Path

import pytest

from jobs.grids.grids import dataset_of, datasets_of
from pipeline.data.catalogue.table import DATASETS
from pipeline.errors import InputError
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.overrides import experiment_named
from pipeline.runs.run import Run, start_run
from pipeline.storage import Storage
from tests.conftest import Cli
from tests.jobs.cli.test_help import BLOCK, DOCUMENTS, LEAVES, ROOT, examples
from tests.object_store import ACCESS

DIGITS = "186de2c683d404c1"


def test_the_paper_has_two_datasets() -> None:
    assert {experiment.dataset for experiment in EXPERIMENTS.values()} == {"cifar10", "imagenet"}
    assert all(experiment.dataset in DATASETS for experiment in EXPERIMENTS.values())
    for names, own in (
        (["table6"], "cifar10"),
        (["figure4", "plain50"], "imagenet"),
        (["ledger"], "cifar10"),
        (["demo"], "digits"),
        (["demo", "resnet110"], "digits"),
    ):
        assert dataset_of(names) == own
    assert datasets_of(["paper", "imagenet"]) == ["cifar10", "imagenet"]
    with pytest.raises(InputError, match="rows of cifar10 and of imagenet; give a command for"):
        dataset_of(["paper", "imagenet"])


@pytest.mark.parametrize(
    ("words", "brings", "instead"),
    [
        (("train", "resnet20"), "data prepare cifar10 --download", True),
        (("grid", "table6", "--seeds", "5"), "data prepare cifar10 --download", True),
        (("grid", "ledger"), "data prepare cifar10 --download", True),
        (("train", "resnet18"), "data prepare imagenet --from FOLDER", False),
        (("train", "resnet20", "--data", "cifar100"), "data prepare cifar100 --download", True),
    ],
)
def test_a_dataset_that_is_not_there_is_one_line_with_the_way_to_it(
    cli: Cli, tmp_path: Path, words: tuple[str, ...], brings: str, instead: bool
) -> None:
    done = cli(*words, "--storage", tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert f"{brings} --storage {tmp_path}` brings it" in done.stderr
    assert ("--data digits needs no file" in done.stderr) == instead
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_says_the_dataset_and_how_many_runs(cli: Cli, tmp_path: Path) -> None:
    done = cli("grid", "table6", "--seeds", "5", "--dry-run", "--storage", tmp_path)
    assert done.returncode == 0, done.stderr
    lines = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
    assert lines["dataset"].strip().startswith("cifar10, not prepared: `resnet-repro data prepare")
    assert lines["runs"].strip() == "30: 6 experiments x 5 seeds"
    demo = cli("grid", "demo", "--dry-run", "--storage", tmp_path).stdout
    assert f"digits {DIGITS}: 1,437 training" in demo and "4: 4 experiments x 1 seed\n" in demo


def test_a_plan_says_the_datasets_and_how_many_runs(cli: Cli, tmp_path: Path) -> None:
    line = ("plan", "paper", "imagenet", "--gpus", "64xA100", "--storage", tmp_path)
    text = cli(*line).stdout
    assert text.startswith("21 runs on cifar10 and imagenet, 0 finished before\n"), text
    assert "data prepare imagenet --from FOLDER" in text
    (made,) = json.loads(cli(*line, "--json").stdout)
    assert made["datasets"] == ["cifar10", "imagenet"] and made["runs"] == 21
    demo = cli("plan", "demo", "--gpus", "1xH100", "--storage", tmp_path).stdout
    assert demo.startswith("4 runs on digits, 0 finished before\n")


@pytest.mark.parametrize(
    "words", ["train resnet20 --seed 1", "grid table6 --seeds 2", "plan table6"]
)
def test_an_old_command_never_begins_something_else_without_a_word(
    cli: Cli, storage: Storage, words: str
) -> None:
    """Runs that a command began when digits were its default."""
    for seed in (0, 1):
        run = Run(experiment_named("resnet20"), DIGITS, f"digits-{DIGITS[:8]}", seed)
        start_run(storage, run, 1)
    here = ("--storage", storage.uri, *(("--gpus", "1xH100") if "plan" in words else ()))
    dry = ("--dry-run",) if "plan" not in words else ()
    for again in {dry, ()}:
        done = cli(*words.split(), *here, *again)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert "--data digits goes on with them, --data cifar10 trains others" in done.stderr
    named = cli(*words.split(), *here, *dry, "--data", "digits")
    assert named.returncode == 0, named.stderr
    # With runs on the paper's data beside them it is clear what is meant.
    own = Run(experiment_named("resnet20"), "f" * 16, "cifar10-ffffffff", 1)
    start_run(storage, own, 1)
    if "grid" in words:
        assert cli(*words.split(), *here, *dry).returncode == 0
    # Runs of another recipe are no runs of the command.
    assert cli("train", "resnet32", *here[:2], "--dry-run").returncode == 0


@pytest.mark.parametrize(
    "words", ["train resnet20", "grid table6", "status", "experiments plain20"]
)
def test_a_bucket_that_cannot_be_reached_is_one_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    for name, value in ACCESS.items():
        monkeypatch.setenv(name, value)
    away = "s3://bucket/x?scheme=http&endpoint_override=127.0.0.1%3A9&region=us-east-1"
    done = cli(*words.split(), "--storage", away)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "look whether it can be reached" in done.stderr


def documented() -> list[tuple[str, list[str]]]:
    """The commands that train in the documents and in help, which name no other dataset."""
    found = []
    for name in DOCUMENTS:
        text = (ROOT / name).read_text().replace("\\\n", "")
        shown = "\n".join(fenced or indented for fenced, indented in BLOCK.findall(text))
        lines = re.findall(r"^ *(?:\S*/)?resnet-repro +(?:submit +)?(.*)$", shown, re.MULTILINE)
        found += [(name, shlex.split(line, comments=True)) for line in lines]
    for path, command in LEAVES.items():
        found += [(" ".join(path), shlex.split(line)) for line in examples(command.help)]
    return [(where, words) for where, words in found if words[:1] in (["train"], ["grid"])]


def test_every_command_of_the_documents_that_trains_can_be_pasted(cli: Cli, tmp_path: Path) -> None:
    """As far as it can be tried without the paper's data: as a dry run, which refuses what it
    would.
    """
    commands = documented()
    assert len(commands) > 20
    for where, words in commands:
        # Datasets of one's own are prepared by a line above; addresses and buckets are examples.
        own = ["digits" if word in ("FOLDER", "cifar10-jpeg") else word for word in words]
        line = shlex.join(own).replace("$STORAGE", "s").replace("$TRACKING", "http://127.0.0.1:9")
        line = re.sub(r"--storage \S+", "", line)
        done = cli(*shlex.split(line), "--dry-run", "--storage", tmp_path)
        assert done.returncode == 0, (where, line, done.stderr)
        assert "dataset  " in done.stdout
