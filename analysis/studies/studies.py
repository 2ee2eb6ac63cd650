"""A study: the runs of one dataset under one recipe; runs of two studies never meet in a cell.

Only the official CIFAR-10 or ImageNet under the paper's own recipe is compared with the paper's
numbers; elsewhere its claims are judged as orderings. This module groups runs and says in words
what deviates; it averages nothing.

"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from hashlib import blake2b
from json import dumps
from typing import Any

import pandas as pd

from analysis.measured.frames import Frames, each
from analysis.stats import INTERIM_SEEDS, LEVEL
from pipeline.recipe.experiments import EXPERIMENTS, Family, is_papers_data
from pipeline.recipe.overrides import FOLLOWS_ITERATIONS, following, value_text
from pipeline.stored_json import parse


@dataclass(frozen=True, eq=False)
class Study:
    """The checked frames of one dataset and recipe; `official` means the paper's own dataset."""

    dataset: str
    dataset_id: str
    overrides: dict[str, Any]
    official: bool
    runs: pd.DataFrame
    metrics: pd.DataFrame
    layers: pd.DataFrame
    evaluations: pd.DataFrame
    """Of ensembles of its runs, and of peers on its dataset."""

    def level_of(self, experiments: Collection[str]) -> Fraction:
        """The level of a test of these rows.

        With interim analyses of any of them each analysis has its share (Bonferroni), and the
        family-wise error over all of them stays below `LEVEL`. Other rows keep theirs.
        """
        looked_at = self.runs.looks & self.runs.experiment.isin(experiments)
        return LEVEL / len(INTERIM_SEEDS) if looked_at.any() else LEVEL

    @property
    def shortened(self) -> bool:
        """Whether any run has fewer iterations than the paper's row of its name."""
        return any(
            run.experiment in EXPERIMENTS
            and run.iterations < EXPERIMENTS[run.experiment].iterations
            for run in each(self.runs[["experiment", "iterations"]].drop_duplicates())
        )

    @property
    def comparable(self) -> bool:
        """Whether the paper's numbers are about the same thing."""
        return self.official and not self.overrides

    @property
    def on_papers_data(self) -> bool:
        """Whether the dataset has the name of the paper's, or was verified as a copy of it.

        A report on other data has no number of the paper beside its own: people would compare them.
        """
        return self.official or is_papers_data(self.dataset, self.family)

    @property
    def where_papers_numbers_are(self) -> str:
        """Why a table on other data has no number of the paper, in a sentence."""
        return f"The paper's numbers are of {self.papers_dataset}: they do not stand here."

    @property
    def why_not_comparable(self) -> str:
        """One clause or two; empty for a comparable study."""
        clauses = [] if self.official else [_about_dataset(self.dataset, self.papers_dataset)]
        if self.overrides:
            words = ", ".join(
                f"{name}={value_text(value)}" for name, value in self.named_overrides().items()
            )
            clauses.append(f"not the paper's recipe: {words}")
        return "; ".join(clauses)

    def named_overrides(self) -> dict[str, Any]:
        """The overrides without those that only follow from another number of iterations."""
        moved = [
            following(name, self.overrides)
            for name in set(self.runs.experiment)
            if name in EXPERIMENTS
        ]
        # Named only if some row's schedule does not explain it: what merely follows from fewer
        # iterations is no second deviation.
        moved_alone = set.intersection(*moved) if moved else set()
        return {name: value for name, value in self.overrides.items() if name not in moved_alone}

    def deviations(self) -> list[str]:
        """Each named override as a phrase, with the paper's value if all rows agree on it."""
        phrases = []
        for name, value in self.named_overrides().items():
            paper = self._papers(name)
            instead = f" instead of {value_text(paper.pop())}" if len(paper) == 1 else ""
            phrases.append(f"{name.replace('_', ' ')} {value_text(value)}{instead}")
            if name == "iterations":
                moved = [
                    FOLLOWS_ITERATIONS[other]
                    for other in FOLLOWS_ITERATIONS
                    if self._follows(other)
                ]
                phrases[-1] += f" ({' and '.join(moved)} moved in proportion)" if moved else ""
        return phrases

    def _follows(self, name: str) -> bool:
        """Whether a field was changed, but only as another number of iterations has it."""
        return name in self.overrides and name not in self.named_overrides()

    @property
    def dataset_title(self) -> str:
        """The dataset's name for people; only the official one is called CIFAR-10 or ImageNet."""
        return self.papers_dataset if self.official else self.dataset

    @property
    def family(self) -> Family:
        """Which of the paper's halves its runs belong to: one dataset is never of both."""
        known = [EXPERIMENTS[name].family for name in self.runs.experiment if name in EXPERIMENTS]
        return known[0] if known else "cifar"

    @property
    def papers_dataset(self) -> str:
        """What the paper trained its rows on."""
        return {"cifar": "CIFAR-10", "imagenet": "ImageNet"}[self.family]

    @property
    def title(self) -> str:
        """`CIFAR-10, the paper's recipe`, or `digits, 360 of 64,000 iterations, in bf16`."""
        changed = self.named_overrides()
        # How often a run was measured is no change of what was trained, unless it is the only one.
        if len(changed) > 1:
            changed.pop("eval_every", None)
        phrases = [self._phrase(name, value) for name, value in changed.items()]
        return ", ".join([self.dataset_title, *(phrases or ["the paper's recipe"])])

    def _phrase(self, name: str, value: Any) -> str:
        """A change of the recipe in the words of a title."""
        paper = self._papers(name)
        if name == "iterations" and isinstance(value, int) and len(paper) == 1:
            return f"{value:,} of {paper.pop():,} iterations"
        if name == "precision":
            return f"in {value_text(value)}"
        return f"{name.replace('_', ' ')} {value_text(value)}"

    def _papers(self, name: str) -> set[Any]:
        """A field's values in the paper's rows of the runs' names."""
        return {
            getattr(EXPERIMENTS[experiment], name, None)
            for experiment in self.runs.experiment
            if experiment in EXPERIMENTS
        }

    @property
    def slug(self) -> str:
        """A folder name: readable, and unique by dataset id and recipe."""
        # The title can be long and need not be unique, so the folder's name ends in a digest.
        digest = blake2b(
            f"{self.dataset_id} {dumps(self.overrides, sort_keys=True)}".encode(), digest_size=4
        )
        return f"{re.sub('[^a-z0-9]+', '-', self.dataset.lower()).strip('-')}-{digest.hexdigest()}"


def split_studies(frames: Frames) -> list[Study]:
    """The studies of checked frames: comparable ones first, then by dataset and recipe.

    Of a dataset's studies those of the whole schedule come before shortened ones.

    A study is what somebody asked for: a run belongs to it if the study's changes, applied to the
    paper's row, give the run's (ResNet-110 at a warm-up rate of 0.01 is the paper's own, and also
    one of a study that has that rate everywhere). One dataset id means the same pixels, so its
    copies count as official as soon as one of them is. What was asked for within a sweep alone
    makes no study: it is in `analysis.studies.sweeps`.
    """
    studies: list[Study] = []
    for _, of_dataset in frames.runs.groupby("dataset_id"):
        # Pixels decide what a dataset is, so one verified copy vouches for all.
        official = bool(of_dataset.comparable.any())
        # A recipe's study takes every run that the recipe gives, also those asked for otherwise.
        candidates = {
            overrides: of_dataset[[_belongs(run, parse(overrides)) for run in each(of_dataset)]]
            for overrides in of_dataset[of_dataset.alone].overrides.unique()
        }
        for overrides, rows in candidates.items():
            paper = official and overrides == "{}"
            # A study wholly within another would show the same runs twice; the paper's own stays,
            # since it alone is compared.
            part_of_another = any(
                set(rows.run_id) < set(others.run_id) for others in candidates.values()
            )
            if paper or not part_of_another:
                studies.append(
                    study_of(min(of_dataset.dataset), parse(overrides), official, rows, frames)
                )
    return sorted(
        studies,
        key=lambda study: (not study.comparable, study.dataset, study.shortened, study.slug),
    )


def study_of(
    dataset: str,
    overrides: dict[str, Any],
    official: bool,
    rows: pd.DataFrame,
    frames: Frames,
) -> Study:
    """A study of the rows' runs; of the other frames it takes what is about them."""
    metrics, layers = frames.metrics, frames.layers
    return Study(
        dataset=dataset,
        dataset_id=str(rows.dataset_id.iloc[0]),
        overrides=overrides,
        official=official,
        runs=rows.sort_values(["experiment", "seed"], key=_paper_order, ignore_index=True),
        metrics=metrics[metrics.run_id.isin(rows.run_id)].reset_index(drop=True),
        layers=layers[layers.run_id.isin(rows.run_id)].reset_index(drop=True),
        evaluations=_evaluations(frames.evaluations, rows),
    )


def _evaluations(evaluations: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    same_dataset = evaluations[evaluations.dataset_id == rows.dataset_id.iloc[0]]
    runs = set(rows.run_id)
    # A peer belongs to its dataset alone; an ensemble only where all of its members are.
    of_study = [
        evaluation.kind == "peer" or set(parse(evaluation.members)) <= runs
        for evaluation in each(same_dataset)
    ]
    chosen = same_dataset[pd.Series(of_study, index=same_dataset.index, dtype="bool")]
    return chosen.reset_index(drop=True)


def _belongs(run: Any, overrides: dict[str, Any]) -> bool:
    """Whether a study's overrides, applied to the paper's row of that name, give the run's row."""
    own, paper = parse(run.overrides), EXPERIMENTS.get(run.experiment)
    # Of a row that is not the paper's only the spelling can be compared.
    if own == overrides or paper is None:
        return bool(own == overrides)
    changed = own.keys() | overrides.keys()
    # Through JSON, as the overrides came: a tuple there is a list.
    values = {name: parse(dumps(getattr(paper, name, None))) for name in changed}
    return all(own.get(name, values[name]) == overrides.get(name, values[name]) for name in changed)


def _paper_order(values: pd.Series) -> pd.Series:
    """Sort key: experiments in the order of the paper's rows, others after them by name.

    Any other column is sorted by its values.
    """
    if values.name != "experiment":
        return values
    names = list(EXPERIMENTS) + sorted(set(values) - set(EXPERIMENTS))
    return values.map(names.index)


def _about_dataset(dataset: str, papers_dataset: str) -> str:
    if dataset.lower() == papers_dataset.lower():
        return f"dataset is {dataset}, not read from the official archives"
    if dataset.lower().replace("-", "").startswith("cifar10") and not dataset.lower().startswith(
        "cifar100"
    ):
        return f"dataset is {dataset}, not verified against the official archive"
    return f"dataset is {dataset}, not {papers_dataset}"
