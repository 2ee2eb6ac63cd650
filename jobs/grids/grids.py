"""The grids a user can ask for by name: which rows of the paper each needs."""

from analysis.paper.ledger import LEDGER, LEDGER_SWITCHES
from pipeline.errors import InputError
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.overrides import nearest
from pipeline.runs.provenance import native_bf16

DEMO_ITERATIONS = 240
"""Minutes on two cores, in fp32 too, and enough for the 56-layer pair to part."""
DEMO_EVAL_EVERY = 30
DEMO_DATASET = "digits"
"""Embedded: the demo needs no file."""

ABOUT = {
    "demo": "degradation and its cure in minutes, on digits",
    "figure1": "Figure 1: plain networks of 20 and 56 layers",
    "figure6": "Figure 6: training curves of plain and residual networks",
    "figure7": "Figure 7: layer responses",
    "table6": "Table 6: residual networks on CIFAR-10",
    "paper": "all that any table, figure or claim about CIFAR-10 needs",
    "table2": "Table 2: plain and residual networks of 18 and 34 layers on ImageNet",
    "table3": "Table 3: ImageNet, ten crops",
    "table4": "Table 4: ImageNet, fully convolutional at several scales",
    "figure4": "Figure 4: training curves on ImageNet",
    "imagenet": "all that Tables 2 to 4 and Figure 4 need",
    "footnotes": (
        "footnotes 3 and 4: plain networks on ImageNet for three times the iterations, and with "
        "bottleneck blocks"
    ),
    "signals": (
        "forward variances and gradient norms, by initialisation, with and without batch norm"
    ),
    "ledger": "the recipe, one usual deviation at a time",
}
"""What each grid shows, for people."""


def demo_settings() -> list[str]:
    """The demo's changes to the rows: fewer points on the curves, bf16 where this CPU has it."""
    settings = [f"eval_every={DEMO_EVAL_EVERY}"]
    if native_bf16():
        settings.append("precision=bf16")
    return settings


def with_demo(
    names: list[str], iterations: int | None, settings: list[str]
) -> tuple[int | None, list[str]]:
    """Iterations and settings as asked for, beside the demo's own where it is among the names."""
    if "demo" not in names:
        return iterations, settings
    # What is asked for comes last: of two values of a field the later one counts.
    return DEMO_ITERATIONS if iterations is None else iterations, [*demo_settings(), *settings]


def demo_words(iterations: int | None, settings: list[str]) -> str:
    """What the demo will show and when, for whoever waits for it."""
    # Of two values of a field the later one counts.
    fields = dict(setting.partition("=")[::2] for setting in settings)
    changes = ", ".join(f"{name}={value}" for name, value in fields.items())
    return f"""\
demo: networks of 20 and 56 layers, plain and residual, learn handwritten digits.
  To be seen: a plain network of 56 layers has higher errors than one of 20, in
  training too, and shortcuts mend that. The small networks come first, with first
  results in a minute or two; three seeds of each take 4 to 8 minutes on two cores.
  ({iterations} iterations, {changes})"""


def shows_early(names: list[str]) -> bool:
    """Whether first results matter more than an early end: to whoever looks for the first time."""
    return "demo" in names


def rows_of(artifact: str) -> tuple[str, ...]:
    """Rows that a table or figure of the paper shows."""
    return tuple(
        name for name, experiment in EXPERIMENTS.items() if artifact in experiment.artifacts
    )


def grids() -> dict[str, tuple[str, ...]]:
    """Every named grid and its rows, in the paper's order."""
    # Claims load pandas, which a command that trains would wait for.
    from analysis.verdicts.claims import claim_experiments

    named = {
        "demo": ("plain20", "plain56", "resnet20", "resnet56"),
        "figure1": rows_of("figure_1"),
        "figure6": rows_of("figure_6"),
        "figure7": rows_of("figure_7"),
        "table6": rows_of("table_6"),
    }
    # `paper` is what any table, figure or claim about CIFAR-10 needs: claims compare rows that no
    # table shows side by side.
    needed = {name for rows in (*named.values(), *claim_experiments().values()) for name in rows}
    named["paper"] = tuple(
        name for name in EXPERIMENTS if name in needed and EXPERIMENTS[name].family == "cifar"
    )
    # Experiments name their artifacts table_2, figure_4; grids are called without the underscore.
    imagenet = {
        name: rows_of(name[:-1] + "_" + name[-1])
        for name in ("table2", "table3", "table4", "figure4")
    }
    named |= imagenet
    photographed = {name for rows in imagenet.values() for name in rows}
    named["imagenet"] = tuple(name for name in EXPERIMENTS if name in photographed)
    # Apart from `imagenet`, which would cost two thirds more with them: no table needs them.
    footnotes = {*rows_of("footnote_3"), *rows_of("footnote_4")}
    named["footnotes"] = tuple(name for name in EXPERIMENTS if name in footnotes)
    named["signals"] = rows_of("signals")
    return named


def dataset_of(names: list[str]) -> str:
    """What grids and rows are trained on where no dataset is named.

    Raises:
        InputError: a name that is neither, or rows of two datasets.
    """
    own = datasets_of(names)
    if len(own) > 1:
        raise InputError(
            f"{' '.join(names)}: has rows of {' and of '.join(own)}; give a command for each"
        )
    return own[0]


def datasets_of(names: list[str]) -> list[str]:
    """The paper's own data for grids and rows, one or two datasets; the demo's own is embedded.

    Raises:
        InputError: a name that is neither.
    """
    if "demo" in names:
        return [DEMO_DATASET]
    rows = rows_asked_for([name for name in names if name != LEDGER])
    rows += [switch.experiment for switch in LEDGER_SWITCHES if LEDGER in names]
    return sorted({EXPERIMENTS[row].dataset for row in rows})


def rows_asked_for(names: list[str]) -> list[str]:
    """Rows of the grids and experiments named, each once, in the paper's order.

    Raises:
        InputError: a name that is neither.
    """
    # A grid and an experiment never share a name, so either may be given.
    known = grids()
    asked: set[str] = set()
    for name in names:
        if name not in known and name not in EXPERIMENTS:
            raise InputError(
                f"unknown grid or experiment {name}; "
                f"{nearest(name, [*known, LEDGER, *EXPERIMENTS])}"
            )
        asked |= set(known.get(name, (name,)))
    # In the paper's order, whatever the order of the names: reports and logs then agree.
    return [name for name in EXPERIMENTS if name in asked]
