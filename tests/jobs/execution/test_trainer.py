"""A Ray of a command's own: its processes have imported what takes long, and a run's worker group
has none that would do nothing for it.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.execution.cluster import PRELOADED, own_environment

OWN_RAY = """
import sys
from jobs.execution.cluster import connected

with connected(None, trains=True):
    import ray
    from jobs.execution.trainer import WorkerGroupTrainer, has_dashboard

    name = "ray.train.v2._internal.execution.controller"
    loaded = ray.remote(num_cpus=0)(lambda: name in __import__("sys").modules)
    print("loaded", ray.get(loaded.remote()))
    print("dashboard", has_dashboard())
    run_config = ray.train.RunConfig(name="one", storage_path=sys.argv[1])
    trainer = WorkerGroupTrainer(lambda: {"answer": 42}, run_config=run_config)
    print(*sorted(type(callback).__name__ for callback in trainer._create_default_callbacks()))
    print(trainer.fit().return_value)
    print("named", [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)])
"""


@pytest.mark.ray
def test_a_ray_of_our_own_starts_no_process_in_vain(tmp_path: Path) -> None:
    line = [sys.executable, "-c", OWN_RAY, str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    loaded, dashboard, callbacks, answer, named = done.stdout.splitlines()
    assert (loaded, dashboard, answer) == ("loaded True", "dashboard False", "{'answer': 42}")
    # Nothing scales such a Ray: the controller need not wait for one that is asked to.
    assert named == "named []"
    # The cleaner's end alone would take 12 s.
    assert "BackendSetupCallback" in callbacks
    assert "PlacementGroupCleanerCallback" not in callbacks and "DatasetsCallback" not in callbacks


@pytest.mark.parametrize(("cpus", "with_torch"), [(2, False), (16, True), (96, False)])
def test_torch_is_loaded_early_where_that_costs_neither_time_nor_much_memory(
    cpus: int, with_torch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.execution.cluster.usable_cpus", lambda: cpus)
    assert ("pipeline.training.loop" in own_environment(trains=True)[PRELOADED]) == with_torch
    assert PRELOADED not in own_environment(trains=False)
