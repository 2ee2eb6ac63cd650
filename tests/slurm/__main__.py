"""`make slurm`: the guide's way through Slurm, on a real cluster of two nodes on this machine, as
root.

A job on one node and one over both are submitted with a time limit that is too short for them. Each
is told so, saves, leaves nothing behind, is put into the queue again and goes on; in the end it has
the bytes of a run that nobody disturbed, without Slurm and Ray. PLACE holds the scripts, the jobs'
logs and Slurm's.
"""

import argparse
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from pipeline.data.catalogue.digits import digits
from pipeline.runs.checkpoint import newest_checkpoint
from pipeline.runs.execution import Execution
from pipeline.runs.lease import is_alive
from pipeline.runs.run import read_result, stored_runs
from pipeline.storage import Storage
from pipeline.training.loop import train as train_here
from pipeline.training.step.process_group import single_process
from tests.chaos.nodes import NAMES, QUIET, ROOT, namespaces_possible, title
from tests.slurm.cluster import SlurmCluster, SlurmNamespaces, lacking

ITERATIONS = 3600
"""Some 90 s on one CPU: more than a job has between its start and the signal (30 to 60 s)."""
TRAIN = [
    "train",
    "resnet20",
    "--data",
    "digits",
    "--set",
    "depth=8",
    "--threads",
    "1",
    "--device",
    "cpu",
]
SCRIPT = ["--signal-seconds", "60", "--gpus-per-node", "0", "--cpus", "1"]
PATIENCE_SECONDS = 900.0
OURS = ".slurm"
"""Marks a folder that may be made anew."""
RAYS = ("raylet", "gcs_server", "ray::", "jobs.cli", "resnet-repro")
"""What the processes of a job are called that has not left."""


def main() -> int:
    """Walk it; 0 if everything was as it should be, or where no cluster can be made."""
    parser = argparse.ArgumentParser(prog="make slurm", description=__doc__)
    parser.add_argument("--place", type=Path, default=Path("results/slurm"), help="made anew")
    parser.add_argument(
        "--iterations", type=int, default=ITERATIONS, help="fewer on a slow machine"
    )
    parser.add_argument("--minutes", type=int, default=2, help="time limit; more on a slow machine")
    asked = parser.parse_args()
    place, train = asked.place.resolve(), [*TRAIN, "--iterations", str(asked.iterations)]
    script = [*SCRIPT, "--time", str(asked.minutes)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through `finally`
    if missing := lacking() or namespaces_possible():
        print(f"skipped, as no Slurm cluster can be made here: {missing}")
        return 0
    if place.exists() and any(place.iterdir()):
        if not (place / OURS).exists():
            print(f"error: {place} holds something else; name another --place", file=sys.stderr)
            return 2
        shutil.rmtree(place)
    place.mkdir(parents=True, exist_ok=True)
    (place / OURS).touch()
    nodes, bad = SlurmNamespaces(place), 0
    try:
        cluster = SlurmCluster(place, nodes, QUIET)
        cluster.start()
        for count in (1, 2):
            began = time.monotonic()
            for good, says in job(cluster, place, count, train, script):
                bad += not good
                seconds = time.monotonic() - began
                print(f"{'good' if good else 'BAD '} {seconds:5.0f} s  {count} node(s): {says}")
                sys.stdout.flush()
    finally:
        nodes.close()
    return 1 if bad else 0


def job(
    cluster: SlurmCluster,
    place: Path,
    nodes: int,
    train: list[str],
    options: list[str],
) -> Iterator[tuple[bool, str]]:
    """Submit a job over so many nodes and see what comes of it; whether it is as it should be."""
    storage, folder = place / f"on-{nodes}", place / f"job-{nodes}"
    setup = f"export PATH={Path(sys.executable).parent}:$PATH PYTHONPATH={ROOT}"
    line = [sys.executable, "-m", "jobs.cli", "manifests", "slurm", "--out", folder, *options]
    line += ["--nodes", str(nodes), "--setup", setup, *train, "--workers", str(nodes)]
    subprocess.run([*line, "--storage", storage], check=True, stdout=subprocess.DEVNULL)
    script, log = folder / "slurm.sbatch", folder / "job.log"
    said = cluster.call("sbatch", f"--output={log}", str(script))
    yield said.startswith("Submitted batch job"), said or "sbatch refused it"
    number = said.split()[-1]

    deadline, facts = time.monotonic() + PATIENCE_SECONDS, {"JobState": ""}
    while facts["JobState"] not in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL"):
        if time.monotonic() > deadline:
            break
        time.sleep(2)
        words = cluster.call("scontrol", "show", "job", number).split()
        facts = {"JobState": ""} | dict(word.split("=", 1) for word in words if "=" in word)
        # Once it went through that with something to save, it has the time to finish.
        if facts.get("Restarts", "0") != "0" and any(storage.glob("runs/*/*/*/checkpoints/*")):
            cluster.call("scontrol", "update", f"JobId={number}", "TimeLimit=60")
    ended = f"{facts['JobState']} after {facts.get('Restarts')} restarts"
    yield facts["JobState"] == "COMPLETED" and int(facts["Restarts"]) > 0, ended

    printed = log.read_text()
    saved = printed.count("SIGUSR1: saving"), printed.count("saved; goes on when the queue")
    asked = f"told {saved[0]} times, put into the queue again {saved[1]} times"
    yield saved[0] == saved[1] > 0 and "not all was saved" not in printed, asked

    (run,) = stored_runs(Storage(str(storage)))
    result = read_result(Storage(str(storage)), run) or {}
    starts = [attempt.get("from_iteration", 0) for attempt in result.get("attempts", [])]
    yield result.get("status") == "finished" and max(starts, default=0) > 0, f"from {starts}"
    left = [title(pid) for node in NAMES for pid in cluster.nodes.processes(node)]
    left = [each for each in left if any(name in each for name in RAYS)]
    left += [str(path) for path in Path("/tmp").glob(f"rr-{number}")]
    left += ["a lease"] * is_alive(Storage(str(storage)), run)
    yield not left, f"left behind: {left or 'nothing'}"

    reference = Storage(str(place / "undisturbed"))
    if read_result(reference, run) is None:
        torch.set_num_threads(1)
        train_here(run, digits(), reference, single_process(), Execution(checkpoint_seconds=1e9))
    one, other = newest_checkpoint(Storage(str(storage)), run), newest_checkpoint(reference, run)
    names = ("weights.safetensors", "momentum.safetensors")
    same = one and other and all(one.files[name] == other.files[name] for name in names)
    yield bool(same), f"weights and momentum are {'the same bytes' if same else 'OTHER bytes'}"


if __name__ == "__main__":
    sys.exit(main())
