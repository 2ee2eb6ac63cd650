"""`resnet-repro verify` as a user calls it: exit code 0 for a sound run, 1 with the first
difference for another.
"""

import json
import re
from dataclasses import replace

import pytest
import torch

from pipeline.runs.execution import Execution
from pipeline.runs.run import start_run
from pipeline.storage import Storage
from pipeline.training.loop import train
from pipeline.training.step.process_group import single_process
from tests.conftest import Cli
from tests.pipeline.training.small_runs import digits_once, small_run
from tests.pipeline.training.test_verify import change, nudged

RUN = small_run()


@pytest.fixture
def finished(storage: Storage) -> Storage:
    """The digits and a finished run, trained with the threads that its `run.json` names."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    start_run(storage, RUN, 1)
    for until in (27, None):
        train(
            RUN,
            digits_once(),
            storage,
            single_process(),
            replace(Execution(checkpoint_seconds=1e9), until=until),
        )
    torch.set_num_threads(threads)
    return storage


@pytest.mark.slow
@pytest.mark.ray
def test_a_sound_run_is_verified_and_a_changed_weight_is_named(cli: Cli, finished: Storage) -> None:
    sound = cli("verify", "resnet20", "--storage", finished.uri, "--device", "cpu")
    assert sound.returncode == 0, sound.stdout + sound.stderr
    part = "27 to 30 of 30 iterations (10%)"
    assert f"{part}: weights, momentum and history are the same bytes" in sound.stdout
    assert sound.stdout.splitlines()[-1] == (
        f"verified: the files, and {part} trained again to the same bytes; --from 0 does so with "
        "all of it"
    )
    assert finished.names("verify") == []
    change(finished, 30, "weights.safetensors", nudged)
    for _ in range(2):  # what was trained again before is not taken for a new proof
        changed = cli(
            "verify", RUN.folder, "--storage", finished.uri, "--from", "23", "--device", "cpu"
        )
        assert changed.returncode == 1
        assert (
            "WRONG" in changed.stdout
            and "(23%): 30 differs in weights.safetensors: " in changed.stdout
        )
        assert changed.stdout.splitlines()[-1] == "not verified"
    assert "verify/" in cli("clean", "--yes", "--storage", finished.uri).stdout
    assert finished.names("verify") == []


def test_files_alone_are_read_and_nothing_is_written(cli: Cli, finished: Storage) -> None:
    before = finished.size("")
    done = cli(
        "verify", finished.path(RUN.folder), "--files-only", "--json", "--storage", finished.uri
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [finding["what"] for finding in found] == [
        "identity",
        "dataset",
        "checkpoints",
        "history",
        "provenance",
    ]
    assert all(finding["good"] for finding in found) and finished.size("") == before


def test_what_is_not_there_is_refused(cli: Cli, finished: Storage) -> None:
    refused = cli("verify", "runs/nowhere", "--storage", finished.uri)
    assert refused.returncode == 2 and "no such run" in refused.stderr
    start_run(finished, small_run(seed=1), 1)
    several = cli("verify", "resnet20", "--storage", finished.uri)
    assert several.returncode == 2 and "2 runs are meant" in several.stderr
    nothing = cli("verify", "resnet20", "--seed", "1", "--storage", finished.uri)
    assert nothing.returncode == 2 and "no checkpoint yet" in nothing.stderr
    beyond = cli("verify", "resnet20", "--seed", "0", "--from", "12", "--storage", finished.uri)
    assert beyond.returncode == 2 and "there are 0, 15, 23, 27" in beyond.stderr
    # Of several recipes it says which there are.
    other = replace(RUN, experiment=replace(RUN.experiment, weight_decay=0.0))
    start_run(finished, other, 1)
    choice = cli("verify", "resnet20", "--storage", finished.uri).stderr
    assert "3 runs are meant" in choice and len(choice.splitlines()) == 1
    assert re.search(rf"{RUN.folder} \([^)]*; seed 0, 1\)", choice)
    assert re.search(rf"{other.folder} \([^)]*weight_decay=0.0[^)]*; seed 0\)", choice)
