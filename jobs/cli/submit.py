"""`resnet-repro submit` and `jobs`: commands as jobs of a Ray cluster, followed and stopped."""

import asyncio
import json
import shlex
import sys
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from jobs.console.console import console
from jobs.console.durations import duration
from jobs.console.run_progress import percent
from jobs.console.tables import FittingTable
from jobs.execution.submission import (
    ENDED,
    attempts,
    client_of,
    send,
)
from jobs.requests.completion import cluster_jobs
from jobs.requests.options import DashboardOption, JsonOption, warn_of_unknown_commit
from jobs.requests.run_facts import run_facts, run_line
from jobs.requests.submitted_commands import (
    CommandArgument,
    check_command,
    parse_only,
    value_of,
    with_tracking,
)
from pipeline.errors import InputError, first_line

RUNNING = "RUNNING"
"""A job's state in Ray's words."""
SILENT_SECONDS = 60.0
"""Without a sign of life from any run for longer, a job that Ray calls RUNNING may be dead."""

JobArgument = Annotated[
    str,
    typer.Argument(
        metavar="JOB",
        help="A job's id, or its name for the newest of that name.",
        autocompletion=cluster_jobs,
    ),
]

app = typer.Typer(
    no_args_is_help=True, help="List, follow and stop what was submitted to a Ray cluster."
)


def submit(
    context: typer.Context,
    command: CommandArgument = None,
    dashboard: DashboardOption = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not follow its output.")] = False,
    need: Annotated[
        list[str],
        typer.Option(
            help="An environment variable that has to be set on the cluster; its value stays there."
        ),
    ] = [],  # noqa: B006  (Typer reads it, nobody writes it)
) -> None:
    """Run a command as a job of a Ray cluster, with this checkout: `submit grid ...`, for example.

    Options of submit come before the command. Given again, it joins the job if that still runs, and
    continues otherwise. Ctrl-C ends the following, not the job; the exit code is the job's.

    Examples:

    * `resnet-repro submit grid table6 --data cifar10 --seeds 5 --storage s3://bucket/resnet
      --tracking http://10.0.0.5:5000`

    * `resnet-repro submit --detach --need AWS_SECRET_ACCESS_KEY train resnet20 --data cifar10
      --storage s3://bucket/resnet`
    """
    # What the cluster would refuse is refused here, in a second and without a job.
    arguments = with_tracking(context, command or [])
    check_command(arguments)
    parse_only(context, arguments)
    client = client_of(dashboard)
    warn_of_unknown_commit()
    job, new = send(client, arguments, need)
    print(f"{job}: {'submitted' if new else 'is running already'}", flush=True)
    if detach:
        print(f"follow it with `resnet-repro jobs logs {job} --follow`")
        return
    # The job's exit code is the command's, so that scripts can wait for either.
    raise SystemExit(_follow(client, job))


def _follow(client: Any, job: str) -> int:
    """Print a job's output until it ends; its exit code."""

    # Ray streams a log over a websocket, hence the event loop for one print.
    async def tail() -> None:
        async for text in client.tail_job_logs(job):
            print(text, end="", flush=True)

    # The log ends a little before Ray knows of it.
    try:
        asyncio.run(tail())
        while client.get_job_status(job) not in ENDED:
            time.sleep(0.5)
    except (RuntimeError, OSError) as error:  # the tunnel or the head is gone
        print(
            f"{job} cannot be followed any more ({first_line(error)}); `resnet-repro jobs logs "
            f"{job} --follow` goes on",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(
            f"\n{job} goes on; `resnet-repro jobs logs {job} --follow` shows it again",
            file=sys.stderr,
        )
        return 130
    info = client.get_job_info(job)
    print(f"{job}: {info.status.lower()}", flush=True)
    if info.driver_exit_code is not None:
        return int(info.driver_exit_code)
    return 0 if info.status == "SUCCEEDED" else 1


@app.command("list")
def list_jobs(dashboard: DashboardOption = None, as_json: JsonOption = False) -> None:
    """Show the cluster's jobs of ours, oldest first.

    Example: `resnet-repro jobs list --json`
    """
    # Other people's jobs carry no command of ours in their metadata.
    ours = [
        job
        for job in client_of(dashboard).list_jobs()
        if job.submission_id and (job.metadata or {}).get("command")
    ]
    ours.sort(key=lambda job: job.start_time or 0)
    shown = [_facts(job) for job in ours]
    for facts in shown:
        facts["runs"] = _living(facts)[1] if facts["state"] == RUNNING else []
    if as_json:
        print(json.dumps(shown, indent=1))
        return
    names = ("job", "state", "started (UTC)", "progress", "command")
    table = FittingTable(*names, left=names, wrapping=["progress", "command"])
    for facts in shown:
        cells = [facts[name] for name in ("job", "state", "started")]
        table.add_row(*cells, _progress(facts["runs"]), facts["command"])
    console.print(table)


@app.command("status")
def status(
    job: JobArgument, dashboard: DashboardOption = None, as_json: JsonOption = False
) -> None:
    """What Ray says of a job, whether its runs show life, and how far they are.

    Ray calls a job RUNNING whose machine has died.
    Example: `resnet-repro jobs status grid-table6-1f3a2b4c`
    """
    client = client_of(dashboard)
    facts = _facts(client.get_job_info(_meant(client, job)))
    facts["seconds_since_life"], facts["runs"] = _living(facts)
    if as_json:
        print(json.dumps([facts], indent=1))
        return
    print(
        f"{facts['job']}: {facts['state'].lower()}"
        + (f", {facts['message']}" if facts["message"] else "")
    )
    # Ray asks the machine that holds the job; if that is gone, nobody tells Ray. The heartbeats in
    # storage come from the workers themselves.
    silent = facts["seconds_since_life"]
    if silent is not None:
        print(f"newest sign of life of a run in its storage: {silent:,.0f} s ago")
        for run in facts["runs"]:
            print(f"  {run['experiment']} on {run['dataset']}{run_line(run)}")
        if facts["state"] == RUNNING and silent > SILENT_SECONDS:
            print(
                "it may be dead although Ray says that it runs: give the same command again, it "
                "continues"
            )


@app.command("logs")
def logs(
    job: JobArgument,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until it ends; the exit code is the job's.")
    ] = False,
    dashboard: DashboardOption = None,
) -> None:
    """Print a job's output.

    Example: `resnet-repro jobs logs grid-table6-1f3a2b4c --follow`
    """
    client = client_of(dashboard)
    meant = _meant(client, job)
    # Without --follow what was printed up to now, and success whatever became of the job.
    if follow:
        raise SystemExit(_follow(client, meant))
    print(client.get_job_logs(meant), end="")


@app.command("stop")
def stop(job: JobArgument, dashboard: DashboardOption = None) -> None:
    """Stop a job; what it trained stays, and submitting it again continues.

    Example: `resnet-repro jobs stop grid-table6-1f3a2b4c`
    """
    client = client_of(dashboard)
    meant = _meant(client, job)
    # Nothing is left to stop, nor to wait for.
    if client.get_job_status(meant) in ENDED:
        print(f"{meant}: has ended already")
        return
    client.stop_job(meant)
    # Stopping is a signal, after which a command gives back its leases and tells MLflow.
    deadline = time.monotonic() + 60
    while client.get_job_status(meant) not in ENDED and time.monotonic() < deadline:
        time.sleep(0.5)
    print(f"{meant}: {client.get_job_status(meant).lower()}")


def _meant(client: Any, job: str) -> str:
    """The id of a job that is named by its id, or by the name that all its attempts share.

    Raises:
        InputError: there is none.
    """
    if any(known.submission_id == job for known in client.list_jobs()):
        return job
    # The name without a number is what a person remembers: the newest attempt is meant.
    mine = attempts(client, job)
    if not mine:
        raise InputError(
            f"{job}: the cluster knows no such job; `resnet-repro jobs list` shows what there is"
        )
    return str(mine[-1].submission_id)


def _facts(job: Any) -> dict[str, Any]:
    metadata, started, message = job.metadata or {}, "", ""
    if job.start_time:
        started = f"{datetime.fromtimestamp(job.start_time / 1000, UTC):%Y-%m-%d %H:%M}"
    if job.message and job.status == "FAILED":  # of others Ray says only that they are so
        message = job.message.splitlines()[0]
    return {
        "job": job.submission_id,
        "state": str(job.status.value if hasattr(job.status, "value") else job.status),
        "message": message,
        "started": started,
        "command": metadata.get("command", ""),
        "commit": metadata.get("commit", ""),
        "exit_code": job.driver_exit_code,
    }


def _living(job: dict[str, Any]) -> tuple[float | None, list[dict[str, Any]]]:
    """Seconds since any run in a job's storage last wrote its heartbeat, and what the folders of
    those that the job may be training say; nothing where its storage is not seen from here.
    """
    from pipeline.runs.lease import living
    from pipeline.runs.run import read_heartbeat, stored_runs
    from pipeline.storage import Storage

    # The job's own command says where its runs are; of `train`, also which one it is.
    now = int(1000 * time.time())
    try:
        words = shlex.split(job["command"])
        storage = Storage(value_of(words, "--storage") or "")
        beats = {run: read_heartbeat(storage, run) for run in stored_runs(storage)}
        ages = {run: max(0, now - beat["time_ms"]) / 1000 for run, beat in beats.items() if beat}
        recent = [run for run, age in ages.items() if age <= SILENT_SECONDS]
        if words[0] == "train":
            asked = words[1], value_of(words, "--seed") or "0"
            recent = [run for run in recent if (run.experiment.name, str(run.seed)) == asked]
        alive = living(storage, recent, certain=False) if job["state"] == RUNNING else set()
        runs = [run_facts(storage, run, now, alive=True) for run in recent if run in alive]
    except (InputError, OSError, KeyError, IndexError, ValueError):
        return None, []
    return min(ages.values(), default=None), [run for run in runs if run["state"] == "running"]


def _progress(runs: list[dict[str, Any]]) -> str:
    """How far a job's living runs are, in a few words."""
    if not runs:
        return ""
    shares = [run["iteration"] / run["iterations"] for run in runs]
    left = duration(max((run["seconds_left"] or 0.0) for run in runs))
    error = percent(runs[0]["test_err"]) if len(runs) == 1 else ""
    words = [f"{len(runs)} running" if len(runs) > 1 else "", f"{sum(shares) / len(runs):.0%} done"]
    words += [f"{error} error" if error else "", f"{left} left"]
    return ", ".join(word for word in words if word)
