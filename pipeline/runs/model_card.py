"""A model's card: what a finished run's network is, how it was made and how well it does.

Markdown, beside weights in MLflow and in folders to take away. Torch-free.
"""

from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from pipeline.recipe.experiments import Experiment, is_papers_data
from pipeline.recipe.layers import layout
from pipeline.recipe.metrics import TEST_ERR, TRAIN_CLEAN_ERR, protocol_err
from pipeline.recipe.other_libraries import loading_lines, strides_differ
from pipeline.recipe.overrides import changes_text
from pipeline.runs.run import Run


@dataclass(frozen=True)
class PrintedError:
    """An error in percent that the paper states of a row: of what, as it is printed, and where."""

    of: str
    printed: str
    where: str


@dataclass(frozen=True)
class Standing:
    """What a run's test error stands beside: other seeds, and what the paper prints of the row."""

    test_errors: tuple[float, ...]
    """In percent, of all finished seeds of the experiment on the dataset, the run's own included.
    """
    paper: tuple[PrintedError, ...] = ()

    @property
    def of_seeds(self) -> str:
        """Mean, standard deviation and number of the seeds."""
        spread = f" ± {stdev(self.test_errors):.2f}" if len(self.test_errors) > 1 else ""
        return f"{mean(self.test_errors):.2f}{spread} % (n = {len(self.test_errors)})"


def model_card(run: Run, dataset: dict[str, Any], result: dict[str, Any]) -> str:
    """The card of `weights.safetensors` as MLflow keeps it.

    `dataset` is the manifest of the run's dataset, `result` its `result.json`.
    """
    name, data = run.experiment.name, dataset["row"]
    lines = [
        f"# {run.experiment.name} on {data['name']}, seed {run.seed}",
        "",
        *description(run, dataset, result),
        "",
        "`weights.safetensors` uses torchvision's names and says in its metadata what network it "
        "is for. To score it again:",
        "",
        f"    resnet-repro evaluate weights.safetensors --as {name} --data "
        f"{data['name']}{settings_of(run.experiment)}",
        "",
        *elsewhere(run.experiment, data["classes"]),
    ]
    return "\n".join(lines) + "\n"


def is_official(run: Run, dataset: dict[str, Any]) -> bool:
    """Whether a run is of the paper's own data by its own recipe: compared with its numbers."""
    return bool(dataset["row"]["comparable"]) and not run.experiment.deviations()


def settings_of(experiment: Experiment) -> str:
    """The `--set` options by which a command rebuilds the same network and the same input."""
    changed = _network_changes(experiment.deviations())
    return "".join(f" --set {name}={_as_set(value)}" for name, value in changed)


def description(
    run: Run, dataset: dict[str, Any], result: dict[str, Any], standing: Standing | None = None
) -> list[str]:
    """What the network is, its errors, and what made it, a line each."""
    experiment, data = run.experiment, dataset["row"]
    changes, final, attempt = changes_text(experiment), result["final"], result["attempts"][-1]
    side = data["side"] or experiment.crop
    plan = layout(experiment, side, data["classes"])
    official = is_official(run, dataset)
    # As `analysis.studies.studies` has it: by its name, or verified as a copy.
    on_papers_data = data["comparable"] or is_papers_data(data["name"], experiment.family)
    return [
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
        *(_beside(standing, official, on_papers_data) if standing else ()),
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
    ]


def _beside(standing: Standing, official: bool, on_papers_data: bool) -> list[str]:
    """The seeds' mean, and the paper's number with what it is about; no number of other data."""
    mean_line = f"- Test error of the seeds that are finished, mean ± std: {standing.of_seeds}"
    if not standing.paper:
        return [mean_line, "- The paper prints no error of this row"]
    if not on_papers_data:
        return [mean_line, "- The paper's errors are of its own data, and do not stand here"]
    printed = ", ".join(f"{cell.printed} % {cell.of} ({cell.where})" for cell in standing.paper)
    whose = "" if official else ", on its own data by its own recipe"
    return [mean_line, f"- The paper{whose}: {printed}"]


def elsewhere(
    experiment: Experiment, classes: int, weights: str = "weights.safetensors"
) -> list[str]:
    """How torchvision and timm load the weights, or that neither has such a network."""
    lines = loading_lines(experiment, classes, weights=weights)
    if not lines:
        return ["torchvision and timm have no network that computes the same."]
    timm = loading_lines(experiment, classes, "timm", weights)
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
