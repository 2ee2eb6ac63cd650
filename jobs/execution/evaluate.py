"""Scoring networks on a prepared dataset: in this process, or as a Ray Train worker group."""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from jobs.console.console import failed
from jobs.execution.packs import import_trouble
from jobs.execution.processors import KernelSettings
from pipeline.errors import InputError, reason_of
from pipeline.recipe.experiments import Experiment, Protocol
from pipeline.runs.provenance import code_trouble, source_digest
from pipeline.runs.run import Run
from pipeline.storage import Storage

SINGLE_VIEW = "single_view"
"""How small images are tested (Sec. 4.2): "we only evaluate the single view of the original 32x32
image".
"""


@dataclass(frozen=True)
class Model:
    """A network to be scored; `weights` are safetensors, and `run` is where it is a run's."""

    name: str
    experiment: Experiment
    weights: bytes
    run: Run | None = None
    dataset: str = ""
    """The id or name of what it was trained on, where that is known."""


@dataclass(frozen=True)
class ScoringTask:
    """What each worker is told."""

    models: list[Model]
    protocol: str
    storage: str
    dataset_id: str
    use_gpu: bool
    threads: int
    """Of torch, for each worker."""
    source: str = field(default_factory=source_digest)
    """The digest of the command's code, which its workers have to have too."""

    @property
    def kernels(self) -> KernelSettings:
        """As the models were tested when they were trained, but always deterministic.

        Raises:
            InputError: no process can be set as all of them need it.
        """
        precisions = [model.experiment.precision for model in self.models]
        tf32 = "tf32" in precisions
        if tf32 and "fp32" in precisions:
            raise InputError(
                "networks of precision tf32 and fp32 cannot be scored together, as TF32 is a "
                "setting of the whole process; leave those of one out"
            )
        return KernelSettings(deterministic=self.use_gpu, tf32=self.use_gpu and tf32)


def score(task: ScoringTask, dataset: Any, process_group: Any, decoders: int) -> dict[str, float]:
    """The errors of the models' mean scores, over all ranks of the process group.

    With the loss where it is one network on small images.

    Raises:
        InputError: weights for another architecture, or a protocol that is not for this dataset.
    """
    from pipeline.data.photo_shards import Photos
    from pipeline.training.feeding.feeds import evaluation_splits
    from pipeline.training.measuring.evaluate import evaluate
    from pipeline.training.measuring.protocols import errors_of
    from pipeline.training.step.networks import build_network
    from pipeline.training.step.weights import load_weights

    # Loaded first, so that weights of another architecture are refused before any image is read.
    classes, networks = dataset.spec.classes, []
    for model in task.models:
        network = build_network(model.experiment, seed=0, classes=classes)
        load_weights(network, model.experiment, classes, model.weights, model.name)
        networks.append(network.to(process_group.device))
    experiments = [model.experiment for model in task.models]
    # Small images have one view and one network; photographs have protocols and ensembles.
    if not isinstance(dataset, Photos):
        images = evaluation_splits(experiments[0], dataset, process_group.device, decoders)["test"]
        scored = evaluate(networks[0], images, experiments[0].precision, process_group)
        return {
            "top1_err": scored.top1_err,
            "loss": scored.loss,
            "wrong": scored.wrong,
            "count": scored.count,
        }
    protocol: Protocol = task.protocol  # type: ignore[assignment]  # checked by the command
    errors = errors_of(networks, experiments, protocol, dataset, process_group, decoders)
    return {
        "top1_err": errors.top1_err,
        "top5_err": errors.top5_err,
        "count": errors.count,
        "photographs_per_second": errors.photographs_per_second,
    }


def score_here(task: ScoringTask) -> dict[str, float]:
    """The same in this process, without Ray."""
    import torch

    from jobs.execution.processors import set_kernels
    from jobs.execution.worker import decoders, raise_on_all_ranks, staged
    from pipeline.training.step.process_group import single_process

    set_kernels(task.kernels)
    torch.set_num_threads(task.threads)
    process_group = single_process(torch.device("cuda" if task.use_gpu else "cpu"))
    dataset, refused = staged(task.storage, task.dataset_id, ("test",))
    raise_on_all_ranks(process_group, refused)
    return score(task, dataset, process_group, decoders(1))


def score_on_ray(
    task: ScoringTask, workers: int, each_worker: dict[str, float]
) -> dict[str, float]:
    """The same by `workers` workers that take `each_worker` of the cluster; needs one.

    Raises:
        InputError: as `score`.
    """
    # The weights go through Ray's object store, once a node: as an argument they would be copied
    # into every worker's start.
    import ray
    from ray.train import RunConfig, ScalingConfig, TrainingFailedError

    from jobs.execution.trainer import WorkerGroupTrainer

    _ = task.kernels  # refused here, where no worker has been started for it
    storage, name = Storage(task.storage), f"evaluate-{uuid4().hex[:8]}"
    trainer = WorkerGroupTrainer(
        score_on_worker,
        train_loop_config={"task": ray.put(task)},
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=task.use_gpu, resources_per_worker=each_worker
        ),
        run_config=RunConfig(name=name, storage_path=storage.uri_of("ray")),
    )
    try:
        answer: dict[str, Any] = trainer.fit().return_value or {}
    except TrainingFailedError as error:
        if trouble := import_trouble(error):
            raise InputError(trouble) from error
        why = f"the workers failed ({reason_of(error)})"
        raise failed(f"{why}; give the same command again") from error
    finally:
        # Ray's folder of this group; a storage that is away keeps it, and `clean` finds it.
        with suppress(OSError):
            storage.delete(f"ray/{name}")
    if "refused" in answer:
        raise InputError(answer["refused"])
    return answer


def score_on_worker(config: dict[str, Any]) -> dict[str, Any]:
    """What each worker runs: join the group and score its share of the images.

    What the user got wrong comes back as a value: raised, it would be a worker's failure to Ray.
    """
    import ray
    import ray.train
    import torch

    from jobs.execution.processors import set_kernels
    from jobs.execution.worker import decoders, device_of, join_group, raise_on_all_ranks, staged
    from pipeline.training.step.process_group import leave_group

    task: ScoringTask = ray.get(config["task"])
    context = ray.train.get_context()
    set_kernels(task.kernels)
    torch.set_num_threads(task.threads)
    # Before joining: a node may copy for hours, and the others would give up waiting. What a rank
    # was refused is raised on all of them, or those that were not would wait for it for ever.
    try:
        dataset, refused = None, code_trouble(task.source)
        if not refused:
            dataset, refused = staged(task.storage, task.dataset_id, ("test",))
        group = join_group(
            context.get_world_rank(), context.get_world_size(), device_of(task.use_gpu)
        )
        raise_on_all_ranks(group, refused)
        return dict(score(task, dataset, group, decoders(context.get_local_world_size())))
    except InputError as error:
        return {"refused": str(error)}
    finally:
        leave_group()
