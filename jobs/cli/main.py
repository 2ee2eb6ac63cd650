"""The command line, `resnet-repro`: parses, resolves names to rows and datasets, and hands over. It
holds no science.

What a user got wrong ends in one line on standard error and exit code 2; an interruption in exit
code 130.
"""

import os
import sys

import typer
from typer.exceptions import TyperException

from benchmarks import commands as bench_commands
from jobs.cli import bundles as bundle_commands
from jobs.cli import data as data_commands
from jobs.cli import doctor as doctor_command
from jobs.cli import evaluate as evaluate_command
from jobs.cli import experiments as experiment_commands
from jobs.cli import grid as grid_command
from jobs.cli import manifests as manifests_command
from jobs.cli import plan as plan_command
from jobs.cli import results as result_commands
from jobs.cli import status as status_commands
from jobs.cli import submit as submit_command
from jobs.cli import train as training_commands
from jobs.cli import verify as verify_command
from pipeline.errors import InputError

HELP = """Train the networks of *Deep Residual Learning for Image Recognition* on Ray, and compare with the paper.

Begin with `resnet-repro experiments`, then `resnet-repro grid demo`. A command that was interrupted continues when it is
given again.
"""

INTERRUPTED = 130

app = typer.Typer(no_args_is_help=True, add_completion=True, rich_markup_mode="markdown", help=HELP)
app.command()(experiment_commands.experiments)
app.command("grids")(experiment_commands.list_grids)
app.command()(training_commands.train)
app.command()(grid_command.grid)
app.command()(doctor_command.doctor)
app.command()(plan_command.plan)
app.command()(status_commands.status)
app.command()(result_commands.report)
app.command()(result_commands.audit)
app.command()(result_commands.ui)
app.command()(result_commands.sync)
app.command()(evaluate_command.evaluate)
app.command()(verify_command.verify)
app.command()(status_commands.clean)
for takes_a_command in (submit_command.submit, manifests_command.manifests):
    app.command(
        context_settings={
            "allow_extra_args": True,
            "ignore_unknown_options": True,
            "allow_interspersed_args": False,
        }
    )(takes_a_command)
app.add_typer(submit_command.app, name="jobs")
app.add_typer(data_commands.app, name="data")
app.add_typer(bundle_commands.app, name="results")
app.add_typer(bench_commands.app, name="bench")


def main() -> None:
    """Run the command line; every mistake of a user's ends in one line and exit code 2."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        code = app(standalone_mode=False) or 0
        if code == INTERRUPTED:  # what Typer makes of Ctrl-C
            print("interrupted: give the same command again to continue", file=sys.stderr)
        sys.exit(code)
    except InputError as error:
        message = str(error)
    except TyperException as error:
        if (
            type(error).__name__ == "NoArgsIsHelpError"
        ):  # the message is the help, already formatted
            print(error)
            sys.exit(2)
        message = error.format_message() if hasattr(error, "format_message") else str(error)
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
