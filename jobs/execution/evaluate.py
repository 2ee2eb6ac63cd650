"""Scoring networks on a prepared dataset: in this process, or as a Ray Train worker group."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from jobs.requests.requested_runs import stored_run_named
from pipeline.errors import InputError
from pipeline.recipe.experiments import Experiment, Protocol
from pipeline.recipe.overrides import experiment_named
from pipeline.runs.checkpoint import final_weights
from pipeline.runs.run import Run, read_result
from pipeline.storage import Storage

SINGLE_VIEW = "single_view"
"""How small images are tested (Sec. 4.2): "we only evaluate the single view of the original 32x32
image".
"""


@dataclass(frozen=True)
class Model:
    """A network to be scored: what it is called, its row, and its weights as safetensors; `run`
    where it is a run's.
    """

    name: str
    experiment: Experiment
    weights: bytes
    run: Run | None = None


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


def model_named(storage: Storage, which: str, experiment: str | None, settings: list[str]) -> Model:
    """A weights file (with `--as`), or the final network of a stored run.

    Raises:
        InputError: neither, a run that has not finished, or a file without a row.
    """
    file = Path(which)
    if not file.is_file():
        if file.suffix in (".safetensors", ".pth"):
            raise InputError(f"{which}: no such file")
        run = stored_run_named(storage, which, None)
        result = read_result(storage, run)
        weights = final_weights(storage, run, result) if result else None
        if weights is None:
            raise InputError(f"{run}: has no final weights; it is not finished")
        return Model(str(run), run.experiment, weights, run)
    if experiment is None:
        raise InputError(f"{which}: say with --as which row's network these weights are for")
    content = file.read_bytes()
    if file.suffix == ".pth":
        from pipeline.training.step.weights import torch_file_bytes

        content = torch_file_bytes(content, which)
    return Model(which, experiment_named(experiment, settings), content)


def score(work: ScoringTask, dataset: Any, ranks: Any, decoders: int) -> dict[str, float]:
    """The errors of the models' mean scores, over all ranks; with the loss where there is one
    network on small images.

    Raises:
        InputError: weights for another architecture, or a protocol that is not for this dataset.
    """
    from pipeline.data.photo_shards import Photos
    from pipeline.training.feeding.feeds import evaluation_splits
    from pipeline.training.measuring.evaluate import evaluate
    from pipeline.training.measuring.protocols import errors_of
    from pipeline.training.step.networks import build_network
    from pipeline.training.step.weights import load_weights

    classes, networks = dataset.row.classes, []
    for model in work.models:
        network = build_network(model.experiment, seed=0, classes=classes)
        load_weights(network, model.experiment, classes, model.weights, model.name)
        networks.append(network.to(ranks.device))
    experiments = [model.experiment for model in work.models]
    if not isinstance(dataset, Photos):
        images = evaluation_splits(experiments[0], dataset, ranks.device, decoders)["test"]
        found = evaluate(networks[0], images, experiments[0].precision, ranks)
        return {
            "top1_err": found.top1_err,
            "loss": found.loss,
            "wrong": found.wrong,
            "count": found.count,
        }
    protocol: Protocol = work.protocol  # type: ignore[assignment]  # checked by the command
    errors = errors_of(networks, experiments, protocol, dataset, ranks, decoders)
    return {"top1_err": errors.top1_err, "top5_err": errors.top5_err, "count": errors.count}


def score_here(work: ScoringTask) -> dict[str, float]:
    """The same in this process."""
    import torch

    from jobs.execution.determinism import set_kernels
    from jobs.execution.worker import decoders, raise_on_all_ranks, staged
    from pipeline.training.step.process_group import single_process

    set_kernels("fp32", deterministic=True)
    torch.set_num_threads(work.threads)
    process_group = single_process(torch.device("cuda" if work.use_gpu else "cpu"))
    dataset, refused = staged(work.storage, work.dataset_id, ("test",))
    raise_on_all_ranks(process_group, refused)
    return score(work, dataset, process_group, decoders(1))


def score_on_ray(
    work: ScoringTask, workers: int, each_worker: dict[str, float]
) -> dict[str, float]:
    """The same by so many workers that take `each_worker` of the cluster; needs one.

    Raises:
        InputError: as `score`.
    """
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    storage, name = Storage(work.storage), f"evaluate-{uuid4().hex[:8]}"
    trainer = DataParallelTrainer(
        _work,
        train_loop_config={"work": ray.put(work)},
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=work.use_gpu, resources_per_worker=each_worker
        ),
        run_config=RunConfig(name=name, storage_path=storage.uri_of("ray")),
    )
    try:
        answer: dict[str, Any] = trainer.fit().return_value or {}
    finally:
        with suppress(OSError):
            storage.delete(f"ray/{name}")
    if "refused" in answer:
        raise InputError(answer["refused"])
    return answer


def _work(config: dict[str, Any]) -> dict[str, Any]:
    import ray
    import ray.train
    import torch

    from jobs.execution.determinism import set_kernels
    from jobs.execution.worker import decoders, device_of, join_group, raise_on_all_ranks, staged
    from pipeline.training.step.process_group import leave_group

    work: ScoringTask = ray.get(config["work"])
    context = ray.train.get_context()
    set_kernels("fp32", deterministic=True)
    torch.set_num_threads(work.threads)
    try:
        dataset, refused = staged(work.storage, work.dataset_id, ("test",))
        group = join_group(
            context.get_world_rank(), context.get_world_size(), device_of(work.use_gpu)
        )
        raise_on_all_ranks(group, refused)
        return dict(score(work, dataset, group, decoders(context.get_local_world_size())))
    except InputError as error:
        return {"refused": str(error)}
    finally:
        leave_group()
