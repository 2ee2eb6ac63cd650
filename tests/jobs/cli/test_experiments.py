"""`resnet-repro experiments`: all with the paper's error, and one with all there is to it."""

import json
from dataclasses import asdict

from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.overrides import recipe_of, settable
from pipeline.runs.execution import Execution
from pipeline.runs.run import start_run
from pipeline.storage import Storage
from pipeline.training.loop import train
from pipeline.training.step.process_group import single_process
from tests.conftest import Cli
from tests.pipeline.training.small_runs import digits_once, small_run


def test_the_table_has_the_dataset_and_the_papers_error(cli: Cli) -> None:
    lines = {
        line.split()[0]: line.split()
        for line in cli("experiments").stdout.splitlines()
        if line.startswith(" ") and line.split()
    }
    assert lines["resnet56"][1:] == ["cifar10", "0.85M", "125.49M", "64,000", "6.97"]  # Table 6
    assert lines["resnet110"][-1] == "6.61"  # the mean of five, not the best
    assert lines["plain110"][-2:] == [">", "60"]  # "higher than 60%"
    assert lines["resnet50"][1] == "imagenet" and lines["resnet50"][-1] == "22.85"  # Table 3
    assert lines["plain50"][-1] == "600,000"  # of which the paper prints no error


def test_one_experiment_is_shown_whole(cli: Cli, storage: Storage) -> None:
    start_run(storage, small_run(), 1)
    train(small_run(), digits_once(), storage, single_process(), Execution(checkpoint_seconds=1e9))
    done = cli("experiments", "resnet20", "--storage", storage.uri)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "resnet20: 20 layers, for cifar10 (table 6, figure 6, figure 7)" in text
    assert "conv3_x 16×16 [3×3, 32; 3×3, 32] × 3" in text and "269,722 parameters" in text
    assert "lr_drops 32,000/48,000" in text and "test_sides" not in text
    assert "8.75 % test error (Table 6)" in text
    assert "depth=8" in text and "on digits-186de2c6 seed 0 finished 30/30" in text
    (facts,) = json.loads(cli("experiments", "resnet20", "--storage", storage.uri, "--json").stdout)
    assert facts["recipe"]["lr_drops"] == [32000, 48000] and facts["runs"][0]["seed"] == 0
    assert facts["paper_errors"][0]["number"] == 8.75


def test_an_experiment_of_imagenet_has_its_errors_by_protocol(cli: Cli) -> None:
    text = cli("experiments", "resnet34-a").stdout
    assert "25.03 % top-1 error, ten crops (Table 2)" in text
    assert "7.76 % top-5 error, ten crops (Table 3)" in text and "test_sides" in text
    unknown = cli("experiments", "resnet21")
    assert unknown.returncode == 2 and "unknown experiment resnet21" in unknown.stderr


def test_of_a_recipe_only_what_means_something_is_shown(cli: Cli) -> None:
    basic, bottleneck = (cli("experiments", name).stdout for name in ("resnet34-a", "resnet50"))
    assert "\n  bottleneck_stride" in bottleneck and "bottleneck_stride" not in basic
    for name in ("resnet34-a", "resnet110"):
        lines = cli("experiments", name).stdout.splitlines()
        shown = {line.split()[0] for line in lines if line.strip()}
        assert shown & {*settable()} == recipe_of(asdict(EXPERIMENTS[name])).keys() & {*settable()}
        assert "family" not in shown
