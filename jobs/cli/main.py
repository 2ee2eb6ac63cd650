"""The command line, `resnet-repro`: assembles the commands, and says how each of them may end.

What a user got wrong ends in one line on standard error and exit code 2; an interruption in exit
code 130; SIGTERM, SIGHUP and SIGUSR1 in exit code 75, after what is trained was saved.
"""

import os
import sys
from contextlib import suppress
from errno import ENAMETOOLONG
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from benchmarks import commands as bench
from jobs.cli import (
    bundles,
    data,
    doctor,
    evaluate,
    experiments,
    grid,
    manifests,
    plan,
    results,
    status,
    submit,
    train,
    verify,
)
from jobs.console import surroundings
from jobs.console.command_help import PlainGroup, make_plain
from jobs.console.redaction import hide_secrets
from jobs.console.termination import CONTINUE, TerminatedError, raise_on_signals, say
from pipeline.errors import InputError, is_text, one_line, shortened
from pipeline.runs.provenance import source_commit, versions

HELP = """Train the networks of *Deep Residual Learning for Image Recognition* on Ray, and compare
with the paper.

Begin with `resnet-repro grid demo`, which needs no data, and `resnet-repro experiments`. A command
that was interrupted continues when it is given again. `resnet-repro COMMAND --help` has examples.
"""

INTERRUPTED = 130

app = typer.Typer(
    cls=PlainGroup,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="markdown",
    # Typer's own tracebacks break long lines, which would cut a password in two.
    pretty_exceptions_enable=False,
    help=HELP,
)


def _show_version(asked: bool) -> None:
    if asked:
        # Two builds of one version differ in their commit.
        build = source_commit()
        changed = ", with changes" if build["dirty"] else ""
        number = versions().get("resnet-repro", "of a checkout")
        print(f"resnet-repro {number} (commit {build['commit'][:12]}{changed})")
        raise typer.Exit()


@app.callback(help=HELP)
def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Say which version and commit this is.",
            is_eager=True,
            callback=_show_version,
        ),
    ] = False,
) -> None:
    pass


# What follows the name of one of these is a command itself, with options that are not its own.
TAKE_A_COMMAND = ("submit", "manifests")
HANDS_ON: dict[str, Any] = {
    "context_settings": {"ignore_unknown_options": True, "allow_interspersed_args": False}
}

# By purpose, in the order of somebody's first day. A group stands as `NAME ...`.
LOOK_UP, TRAIN, RESULTS, RUNS, CLUSTERS = (
    "What there is to train",
    "Train",
    "Results",
    "Runs and storage",
    "Clusters",
)
app.command(rich_help_panel=LOOK_UP)(experiments.experiments)
app.command("grids", rich_help_panel=LOOK_UP)(experiments.list_grids)
app.add_typer(data.app, name="data", rich_help_panel=LOOK_UP)
app.command(rich_help_panel=TRAIN)(train.train)
app.command(rich_help_panel=TRAIN)(grid.grid)
app.command(rich_help_panel=TRAIN)(plan.plan)
app.command(rich_help_panel=TRAIN)(status.status)
app.command(rich_help_panel=RESULTS)(results.report)
app.command(rich_help_panel=RESULTS)(results.ui)
app.command(rich_help_panel=RESULTS)(evaluate.evaluate)
app.command(rich_help_panel=RESULTS)(evaluate.predict)
app.command(rich_help_panel=RESULTS)(results.audit)
app.command(rich_help_panel=RESULTS)(results.sync)
app.add_typer(bundles.app, name="results", rich_help_panel=RESULTS)
app.command(rich_help_panel=RUNS)(verify.verify)
app.add_typer(bundles.runs, name="runs", rich_help_panel=RUNS)
app.command(rich_help_panel=RUNS)(status.clean)
app.command(rich_help_panel=CLUSTERS)(doctor.doctor)
app.command("submit", rich_help_panel=CLUSTERS, **HANDS_ON)(submit.submit)
app.add_typer(submit.app, name="jobs", rich_help_panel=CLUSTERS)
manifests.app.command("kubernetes", **HANDS_ON)(manifests.kubernetes)
manifests.app.command("slurm", **HANDS_ON)(manifests.slurm)
app.add_typer(manifests.app, name="manifests", rich_help_panel=CLUSTERS)
app.add_typer(bench.app, name="bench", rich_help_panel="Measure speed")
make_plain(app)


def _check_arguments(arguments: list[str]) -> None:
    """Refuse what no name, number or address holds, before any command reads it.

    Raises:
        InputError: says which argument.
    """
    for number, argument in enumerate(arguments, start=1):
        if not is_text(argument):
            shown = argument.encode("unicode_escape", "replace").decode()
            raise InputError(
                f"argument {number}, {shown}: holds a line break or another control "
                "character, or bytes that are no text; leave it out"
            )


def _at_home(arguments: list[str]) -> list[str]:
    """Arguments with the user's home for `~`, also in --from=~/x, where shells leave it."""
    # What is carried out elsewhere means a home there.
    if arguments[:1] and arguments[0] in TAKE_A_COMMAND:
        return arguments
    return [
        f"{option}{equals}{os.path.expanduser(value)}"
        for option, equals, value in (
            word.partition("=") if word.startswith("--") else ("", "", word) for word in arguments
        )
    ]


def main() -> None:
    """Run the command line; every mistake of a user's ends in one line and exit code 2."""
    # Before anything imports Ray: nothing is reported to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Before anything imports matplotlib: Jupyter names a backend that may not be installed here.
    os.environ["MPLBACKEND"] = "agg"
    surroundings.settle()
    hide_secrets()
    signals = raise_on_signals()
    try:
        _carry_out(signals)
    finally:
        # What is still kept is written here, where it is noticed that nobody reads it any more;
        # a command that a signal ended says by its code that it continues.
        with suppress(*([SystemExit] if signals else [])):
            if sys.stdout is not None:
                sys.stdout.flush()


def _carry_out(signals: list[str]) -> None:
    try:
        _check_arguments(sys.argv[1:])
        sys.argv[1:] = _at_home(sys.argv[1:])
        code = app(standalone_mode=False) or 0
        # What Typer makes of Ctrl-C, and of a signal that found Ray waiting for something.
        if code == INTERRUPTED and signals:
            raise TerminatedError(signals[-1])
        if code == INTERRUPTED:
            print("interrupted: give the same command again to continue", file=sys.stderr)
        sys.exit(code)
    except TerminatedError as error:
        say(f"ended by {error}: give the same command again to continue")
        sys.exit(CONTINUE)
    # What is not a mistake of the user's is a bug of ours, and keeps its traceback.
    except InputError as error:
        message = str(error)
    except OSError as error:
        # A path of theirs, wherever it is looked at: none of ours is so long.
        if error.errno != ENAMETOOLONG:
            raise
        message = f"{error.filename}: {error.strerror}"
    except TyperException as error:
        # By its name, as Typer does not export it: its message is the help, already formatted.
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error)
            sys.exit(2)
        message = error.format_message() if hasattr(error, "format_message") else str(error)
    print(f"error: {shortened(one_line(message))}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
