"""What `bench submit` compares with: a bare Ray job that imports what ours does and steps once.

Run by `ray job submit -- python3 -m benchmarks.bare_job task|train FILE`: as a Ray task, or as a
Ray Train worker group of one. The worker writes the time of its first step to FILE.
"""

import sys
import time
from pathlib import Path

from jobs.console.redaction import hide_secrets


def step(file: str) -> None:
    """One step of ResNet-20 on random images."""
    import torch

    from pipeline.recipe.experiments import EXPERIMENTS
    from pipeline.training.step.networks import build_network
    from pipeline.training.step.process_group import single_process
    from pipeline.training.step.train_state import TrainState

    experiment = EXPERIMENTS["resnet20"]
    torch.set_num_threads(1)
    train_state = TrainState(experiment, build_network(experiment, 0, 10), torch.device("cpu"))
    # On digits' 16x16 pixels, as the run that it is compared with.
    batch = (
        torch.randn(experiment.global_batch_size, 3, 16, 16),
        torch.zeros(experiment.global_batch_size, dtype=torch.int64),
    )
    train_state.step(batch, experiment.lr, single_process())
    Path(file).write_text(str(time.time()))


def main() -> None:
    """Connect and have a worker take the step."""
    import mlflow  # noqa: F401
    import ray
    import ray.train
    import rich  # noqa: F401
    import typer  # noqa: F401

    hide_secrets()
    ray.init(logging_level="ERROR")
    # Both references import MLflow, rich and typer above: loading them is no cost of our code's.
    way, file = sys.argv[1:]
    # The least that Ray can do: a task, without a worker group.
    if way == "task":
        ray.get(ray.remote(num_cpus=1)(step).remote(file))
        return
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    run_config = ray.train.RunConfig(name=Path(file).name, storage_path=f"{file}.ray")
    DataParallelTrainer(lambda: step(file), run_config=run_config).fit()


if __name__ == "__main__":
    main()
