"""The script that `manifests slurm` writes, carried out by bash. `make slurm` hands it to a real
Slurm; here `resnet-repro`, `srun` and `scontrol` are programs of a line.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import Cli

GRID = ("grid", "table6", "--data", "cifar10", "--storage", "/scratch/me/it's here")
TRAINS = 'echo "$@" "$RAY_AUTH_MODE" "${#RAY_AUTH_TOKEN}" > said; trap "exit 75" USR1; touch on; '
TRAINS += "while true; do sleep 0.1; done"
"""As the real one: it goes on until it is told to save."""
JOB = "987654321"


def script(cli: Cli, folder: Path, *options: str) -> Path:
    done = cli("manifests", "slurm", "--out", folder, *options, *GRID)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(folder / "slurm.sbatch")
    return folder / "slurm.sbatch"


def carried_out(script: Path, command: str, **environment: str) -> "subprocess.Popen[bytes]":
    """The script, started where those programs come first."""
    programs = {
        "resnet-repro": command,
        "scontrol": '[ "$1" = show ] && echo node-a || echo "$@" > requeued',
        "srun": 'while [ "$1" != -- ] && [ "$1" != rm ]; do shift; done; '
        '[ "$1" = rm ] || shift; exec "$@"',
    }
    for name, body in programs.items():
        (script.parent / name).write_text(f"#!/bin/bash\n{body}\n")
        (script.parent / name).chmod(0o755)
    changed = {"PATH": f"{script.parent}:{os.environ['PATH']}", "SLURM_JOB_ID": JOB}
    changed |= {"SLURM_JOB_NODELIST": "node-[a-b]"}
    environment = os.environ | changed | environment
    return subprocess.Popen(["bash", str(script)], env=environment, cwd=script.parent)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.05)


def test_slurm_is_asked_for_what_was_asked_for(cli: Cli, tmp_path: Path) -> None:
    options = "--nodes 2 --gpus-per-node 4 --cpus 32 --memory 200G --time 2-12 --partition gpu"
    options += " --account ours --sbatch=--qos=long --signal-seconds 90"
    text = script(cli, tmp_path, *options.split(), "--setup", ". ~/venv/bin/activate").read_text()
    asked = [line.split()[1] for line in text.splitlines() if line.startswith("#SBATCH")]
    assert {"--nodes=2", "--gpus-per-node=4", "--cpus-per-task=32", "--mem=200G"} <= set(asked)
    assert {"--time=2-12", "--partition=gpu", "--account=ours", "--qos=long"} <= set(asked)
    assert {"--signal=B:USR1@90", "--requeue", "--open-mode=append", "--exclusive"} <= set(asked)
    lines = text.splitlines()
    # sbatch reads no option behind the first command.
    assert lines.index(". ~/venv/bin/activate") > max(
        number for number, line in enumerate(lines) if line.startswith("#SBATCH")
    )
    assert "ray symmetric-run --address" in text and "--min-nodes 2" in text


@pytest.mark.parametrize("nodes", ["1", "2"])
def test_told_that_its_time_ends_it_tells_the_command_and_is_put_into_the_queue_again(
    cli: Cli, tmp_path: Path, nodes: str
) -> None:
    job = carried_out(script(cli, tmp_path, "--nodes", nodes), TRAINS)
    wait_for(tmp_path / "on")
    assert (tmp_path / "said").read_text().split() == [*" ".join(GRID).split(), "token", "64"]
    job.send_signal(signal.SIGUSR1)
    assert job.wait(30) == 75
    assert (tmp_path / "requeued").read_text().split() == ["requeue", JOB]
    assert not Path(f"/tmp/rr-{JOB}").exists()


@pytest.mark.parametrize(
    ("command", "told", "code", "restarts"),
    [
        ("exit 0", None, 0, "0"),  # finished
        ("exit 1", None, 1, "0"),  # failed: it would fail again
        (TRAINS, signal.SIGTERM, 75, "0"),  # cancelled
        (TRAINS, signal.SIGUSR1, 75, "3"),  # continued often enough
    ],
)
def test_what_is_over_is_not_put_into_the_queue_again(
    cli: Cli,
    tmp_path: Path,
    command: str,
    told: signal.Signals | None,
    code: int,
    restarts: str,
) -> None:
    written = script(cli, tmp_path, "--requeues", "3")
    job = carried_out(written, command, SLURM_RESTART_COUNT=restarts)
    if told is not None:
        wait_for(tmp_path / "on")
        job.send_signal(told)
    assert job.wait(30) == code
    assert not (tmp_path / "requeued").exists()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (("--time", "tomorrow", *GRID), "expected minutes, HH:MM:SS or DAYS-HH:MM:SS"),
        (("--partition", "a b", *GRID), "expected one option of sbatch without spaces"),
        (("--sbatch", "qos=long", *GRID), "expected one option of sbatch without spaces"),
        (("--setup", "x=http://me:secret@host", *GRID), "a password would be readable"),
        (("grid", "table6", "--storage", "results"), "is on this machine"),
        (("grid", "table6", "--storage", "/x", "--sed", "1"), "No such option"),
        ((), "expected one of train, grid"),
    ],
)
def test_what_is_wrong_is_said_before_the_script_is_written(
    cli: Cli, tmp_path: Path, changed: tuple[str, ...], says: str
) -> None:
    done = cli("manifests", "slurm", "--out", tmp_path / "m", *changed)
    assert done.returncode == 2 and says in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and "secret" not in done.stderr
    assert not (tmp_path / "m").exists()
