"""The final model of a finished run in MLflow's model registry: safetensors and a card.

A registered model is an experiment on a dataset, its versions are the seeds (and recipes) that were
trained; each version is kept once, found again by its run. Nothing has to be unpickled.
"""

import logging
from contextlib import suppress
from json import dumps
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from jobs.tracking.local_store import send_artifacts
from pipeline.errors import first_line
from pipeline.recipe.experiments import Experiment
from pipeline.recipe.layers import layout
from pipeline.recipe.metrics import TEST_ERR, TRAIN_CLEAN_ERR, protocol_err
from pipeline.recipe.other_libraries import loading_lines, strides_differ
from pipeline.recipe.overrides import changes_text
from pipeline.runs.run import Run

logger = logging.getLogger(__name__)

FOLDER = "model"
"""Where a run's artifacts hold its final weights and their card."""


def register(
    client: MlflowClient,
    run_id: str,
    run: Run,
    dataset: dict[str, Any],
    result: dict[str, Any],
    weights: bytes,
    text: str,
) -> None:
    """Keep the weights and their card as artifacts of the run and as a version of its model.

    `dataset` is the manifest of the run's dataset, `text` the card.
    """
    files = {"weights.safetensors": weights, "README.md": text.encode()}
    send_artifacts(client, run_id, {f"{FOLDER}/{name}": file for name, file in files.items()})
    try:
        _add_version(client, run_id, run, dataset, result, text)
    except MlflowException as error:  # a registry that refuses costs nothing but the entry
        logger.warning("MLflow's model registry does not take %s: %s", run, first_line(error))


def _add_version(
    client: MlflowClient,
    run_id: str,
    run: Run,
    dataset: dict[str, Any],
    result: dict[str, Any],
    text: str,
) -> None:
    if client.search_model_versions(f"run_id='{run_id}'"):
        return  # of an earlier attempt to publish that failed after this
    # MLflow has no upsert: look, make, and then the version.
    name = f"{run.experiment.name}-{dataset['row']['name']}"
    if not client.search_registered_models(f"name = '{name}'"):
        # Another run may just have made it; where it was not that, the version below is refused
        # and says why.
        with suppress(MlflowException):
            about = f"{run.experiment.name} on {dataset['row']['name']}; a version is a trained run"
            client.create_registered_model(name, description=about)
    tags = {
        "seed": str(run.seed),
        "fingerprint": run.experiment.fingerprint,
        "overrides": dumps(run.experiment.deviations(), sort_keys=True),
        "test_err": f"{result['final'][TEST_ERR]:.2f}",
    }
    client.create_model_version(
        name, f"runs:/{run_id}/{FOLDER}", run_id, tags=tags, description=text
    )


def model_card(run: Run, dataset: dict[str, Any], result: dict[str, Any]) -> str:
    """What a model is, how it was made and how well it does, in Markdown."""
    experiment, data = run.experiment, dataset["row"]
    changes, final, attempt = changes_text(experiment), result["final"], result["attempts"][-1]
    side = data["side"] or experiment.crop
    plan = layout(experiment, side, data["classes"])
    # The command that scores it has to rebuild the same network and the same input.
    changed = _network_changes(experiment.deviations())
    settings = "".join(f" --set {name}={_as_set(value)}" for name, value in changed)
    # Of the paper's own data, by its own recipe: anything else is not compared with it.
    official = data["comparable"] and not experiment.deviations()
    lines = [
        f"# {experiment.name} on {data['name']}, seed {run.seed}",
        "",
        "A network of *Deep Residual Learning for Image Recognition* (He, Zhang, Ren, Sun 2015), "
        "trained by resnet-repro.",
        "",
        f"- Test error: {final[TEST_ERR]:.2f} % (top-1, final iterate, {dataset['test_images']:,} "
        "images)",
        *(
            f"- {protocol}: {final[protocol_err(protocol, 1)]:.2f} % top-1, "
            f"{final[protocol_err(protocol, 5)]:.2f} % top-5"
            for protocol in experiment.protocols
        ),
        f"- Training error: {final[TRAIN_CLEAN_ERR]:.2f} % (whole training set, not augmented)",
        f"- Recipe: {'changed: ' + changes if changes else 'as in the paper'}; "
        f"{result['iterations']:,} iterations",
        f"- Comparable with the paper's numbers: {'yes' if official else 'no'}",
        f"- Parameters: {plan.params:,}; multiply-adds for one image: {plan.multiply_adds:,}",
        f"- Dataset: {data['name']} `{run.dataset_id}`, {data['classes']} classes, {side}x{side} "
        "pixels",
        f"- Row: fingerprint `{experiment.fingerprint}`",
        f"- Made with: commit `{attempt.get('commit', 'unknown')}`, "
        f"{attempt.get('hardware', 'unknown hardware')}",
        "",
        "`weights.safetensors` uses torchvision's names and says in its metadata what network it "
        "is for. To score it again:",
        "",
        f"    resnet-repro evaluate weights.safetensors --as {experiment.name} --data "
        f"{data['name']}{settings}",
        "",
        *_elsewhere(experiment, data["classes"]),
    ]
    return "\n".join(lines) + "\n"


def _elsewhere(experiment: Experiment, classes: int) -> list[str]:
    """How torchvision and timm load the weights, or that neither has such a network."""
    lines = loading_lines(experiment, classes)
    if not lines:
        return ["torchvision and timm have no network that computes the same."]
    timm = loading_lines(experiment, classes, "timm")
    strides = (
        f"torchvision's and timm's resnet{experiment.depth} halve the map in a 3x3 convolution, "
        "the paper and these weights in a 1x1. They load there as they are, and compute something "
        "else. With the strides set it is the same network:"
    )
    same = "torchvision and timm have the same network:"
    return [
        strides if strides_differ(experiment) else same,
        "",
        *(f"    {line}".rstrip() for line in lines),
        "",
        f"In timm with {' and '.join(f'`{line}`' for line in timm if line not in lines)} instead.",
        "",
        f"Images are prepared as in training (`normalisation={experiment.normalisation}`).",
    ]


def _as_set(value: Any) -> str:
    """A value as `--set` takes it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _network_changes(changes: dict[str, Any]) -> list[tuple[str, Any]]:
    """The changes that decide how the network is scored; the others say how it was trained."""
    names = (
        "shortcut",
        "norm",
        "depth",
        "block",
        "bottleneck_stride",
        "bn_eps",
        "normalisation",
        "holdout",
        "precision",
        "crop",
        "test_side",
        "test_sides",
    )
    return [(name, changes[name]) for name in names if name in changes]
