"""A study's result in one sentence: the mean errors of its networks, plain beside residual.

The numbers are those of its tables; nothing is compared with the paper.
"""

from analysis.measured.frames import each
from analysis.studies.studies import Study
from analysis.tables.study_tables import StudyTable
from pipeline.recipe.experiments import EXPERIMENTS, Family

SHOWN = ("table_6", "table_2", "table_3")
"""The tables whose errors are of the networks as they are trained: the final one, or ten crops."""

FIRST: dict[Family, set[int]] = {"cifar": {20, 56}, "imagenet": {18, 34}}
"""The depths of the paper's first comparisons: Figure 1, and Figure 4 with Table 2."""

Errors = dict[int, float]
"""Mean test errors in percent, by the number of layers."""


def headline(study: Study, tables: list[StudyTable]) -> str:
    """`Test error of 56 layers: plain 13.2 %, residual 7.0 %; of 20 layers: 9.7 % and 8.8 %.`

    Of the depths that the paper itself puts first, or of the deepest and the shallowest that have
    both; else of residual or plain networks alone. Empty where no row has a mean.
    """
    means = {name: mean for table in reversed(tables) for name, mean in _means(table).items()}
    plain, residual = _by_depth(means, residual=False), _by_depth(means, residual=True)
    measured = plain.keys() & residual.keys()
    if measured:
        deepest, *others = sorted(measured & FIRST[study.family] or measured, reverse=True)
        pairs = [
            f"Test error of {deepest} layers: plain {plain[deepest]:.1f} %, "
            f"residual {residual[deepest]:.1f} %"
        ]
        if others:
            depth = others[-1]
            pairs.append(f"of {depth} layers: {plain[depth]:.1f} % and {residual[depth]:.1f} %")
        sentence = "; ".join(pairs)
    else:
        kinds = {"residual": residual, "plain": plain}
        sentence = ". ".join(
            f"Test error of {kind} networks: {_listed(errors)}"
            for kind, errors in kinds.items()
            if errors
        )
    single = " Single runs." if (study.runs.groupby("experiment").size() == 1).all() else ""
    return f"{sentence}.{single}" if sentence else ""


def _means(table: StudyTable) -> dict[str, float]:
    """Mean final errors by experiment; of photographs the top-1 error by ten crops."""
    if table.name not in SHOWN:
        return {}
    raw = table.raw[table.raw.measure == "top1"] if "measure" in table.raw else table.raw
    return {row.experiment: row.mean for row in each(raw) if row.experiment and row.n}


def _by_depth(means: dict[str, float], residual: bool) -> Errors:
    """One network a depth: of several, the first in the paper's order."""
    errors: Errors = {}
    for name, error in means.items():
        experiment = EXPERIMENTS[name]
        if (experiment.shortcut != "none") is residual:
            errors.setdefault(experiment.depth, error)
    return errors


def _listed(errors: Errors) -> str:
    return ", ".join(f"{errors[depth]:.1f} % with {depth} layers" for depth in sorted(errors))
