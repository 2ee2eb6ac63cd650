"""A command as a job of a Ray cluster: this checkout packed, under a name that stays the same."""

import logging
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from json import dumps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.errors import InputError, first_line
from pipeline.runs.provenance import COMMIT_FILE, PACKAGE_ROOT, source_commit
from pipeline.storage import regular_file
from pipeline.stored_json import MOST_BYTES, parse

SHIPPED = ("pipeline", "jobs", "analysis", "benchmarks", "deploy", "pyproject.toml")
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
DASHBOARD = "http://127.0.0.1:8265"
ANSWER_SECONDS = 0.4
ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Ray's variables that name a cluster, the first before the second."""


def job_name(arguments: list[str]) -> str:
    """The same for the same command, so that it is found again: `grid-table6-1f3a2b4c`."""
    # The first two words are for people, the digest makes it unique among commands.
    words = [word for word in arguments[:2] if word.replace("-", "").isalnum()]
    digest = blake2b(dumps(arguments).encode(), digest_size=4).hexdigest()
    return "-".join([*words, digest])


@contextmanager
def packed() -> Iterator[Path]:
    """A folder with this checkout's files of the package, and its commit.

    Only what git tracks, or what lies in the package's own folders where there is no git to ask:
    results, data and virtual environments lie beside them, and Ray would upload them.
    """
    with TemporaryDirectory(prefix="resnet-repro-") as folder:
        for name in _tracked() or _lying_there():
            target = Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PACKAGE_ROOT / name, target)
        # The nodes have no git history to ask, so the commit travels in a file.
        Path(folder, COMMIT_FILE).write_text(dumps(source_commit()))
        yield Path(folder)


def _tracked() -> list[str]:
    """What git tracks of the package, of what is still there; nothing without git."""
    try:
        listing = ["git", "-C", str(PACKAGE_ROOT), "ls-files", "-z", *SHIPPED]
        done = subprocess.run(listing, capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    names = done.stdout.decode().split("\0")
    return [name for name in names if name and (PACKAGE_ROOT / name).is_file()]


def _lying_there() -> list[str]:
    """The files of the package's folders but for hidden ones and what Python has compiled."""
    files = [
        path.relative_to(PACKAGE_ROOT)
        for shipped in SHIPPED
        for path in (PACKAGE_ROOT / shipped, *sorted((PACKAGE_ROOT / shipped).rglob("*")))
        if path.is_file()
    ]
    return [
        str(file)
        for file in files
        if not any(part.startswith(".") or part == "__pycache__" for part in file.parts)
    ]


def client_of(dashboard: str | None) -> Any:
    """A client of a cluster's jobs: of the one that is named, else of the environment's.

    Raises:
        InputError: nobody answers there, or it does not let us in.
    """
    from ray.job_submission import JobSubmissionClient

    # The client logs every upload; what matters is printed by the command.
    for name in ("ray", "ray.dashboard", "ray._private"):
        logging.getLogger(name).setLevel(logging.WARNING)
    named_by, address = dashboard_named(dashboard)
    try:
        with _without_addresses():
            client = JobSubmissionClient(address)
        # Making a client asks nothing of the cluster; only this shows that somebody answers.
        client.list_jobs()
    except Exception as error:
        from jobs.execution.cluster import TOKEN_REMEDY, wants_token

        if wants_token(str(error)):
            raise InputError(
                f"{named_by} {address}: the cluster wants another token; {TOKEN_REMEDY}"
            ) from error
        raise InputError(
            f"{named_by} {address}: no Ray cluster answers there ({first_line(error)}); on a "
            "laptop open a tunnel to the head's port 8265 first, as `ray dashboard cluster.yaml` "
            "does"
        ) from error
    return client


def dashboard_named(named: str | None) -> tuple[str, str]:
    """The option or variable that names a dashboard, and its address."""
    if named is not None:
        return "--dashboard", named
    # In Ray's own order.
    variable = next((each for each in ADDRESSES if os.environ.get(each)), None)
    return (variable, os.environ[variable]) if variable else ("--dashboard", DASHBOARD)


def job_ids(dashboard: str | None) -> list[str]:
    """The ids of a cluster's jobs of ours, for whoever types one; none if nobody answers at once.

    Asked without Ray's client, which takes longer to load than anybody waits for TAB.
    """
    from urllib.request import Request, urlopen

    _, address = dashboard_named(dashboard)
    try:
        asking = Request(f"{address.rstrip('/')}/api/jobs/", headers=_token_header())
        with urlopen(asking, timeout=ANSWER_SECONDS) as answer:
            jobs: Any = parse(answer.read(MOST_BYTES))
    # What answers may be anything, or nothing.
    except (OSError, ValueError, InputError):
        return []
    ours = [job for job in jobs if isinstance(job, dict) and (job.get("metadata") or {})]
    return [str(job["submission_id"]) for job in ours if job["metadata"].get("command")]


def _token_header() -> dict[str, str]:
    """The cluster's token, where Ray would send it, as Ray finds it."""
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN")
    place = os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"
    return {"Authorization": f"Bearer {token or regular_file(place, 4096).decode().strip()}"}


@contextmanager
def _without_addresses() -> Iterator[None]:
    """Without Ray's variables, which its client would take rather than what it is given."""
    hidden = {name: os.environ.pop(name) for name in ADDRESSES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def attempts(client: Any, name: str) -> list[Any]:
    """The jobs of a name that the cluster knows, oldest first."""
    # Each attempt has the name and a number, as Ray takes an id only once: `name.1`, `name.2`, ...
    known = [job for job in client.list_jobs() if job.submission_id]
    mine = [
        job for job in known if name in (job.submission_id, job.submission_id.rpartition(".")[0])
    ]
    return sorted(mine, key=lambda job: job.start_time or 0)


def send(client: Any, arguments: list[str], needed: list[str]) -> tuple[str, bool]:
    """Submit a command unless it is running already; the job's id, and whether it is a new one.

    `needed` are environment variables that have to be set where the cluster was started: their
    values stay there.

    Raises:
        InputError: the cluster does not take the job.
    """
    # The same command has the same name: two that run at once would wait for each other's leases.
    name = job_name(arguments)
    # Any state but an ended one is alive, pending ones too: to be followed, not doubled.
    before = attempts(client, name)
    if before and before[-1].status not in ENDED:
        return str(before[-1].submission_id), False
    # The shell on the cluster looks: no secret passes through here or through Ray's records.
    checks = [
        f': "${{{variable}:?is not set where this cluster was started}}" && ' for variable in needed
    ]
    command = "".join(checks) + "python3 -m jobs.cli " + shlex.join(arguments)
    with packed() as folder:
        try:
            job = client.submit_job(
                entrypoint=command,
                submission_id=f"{name}.{len(before) + 1}",
                runtime_env={"working_dir": str(folder)},
                # So that `jobs list` can show what it was, also to somebody without this checkout.
                metadata={
                    "command": shlex.join(arguments),
                    **{k: str(v) for k, v in source_commit().items()},
                },
            )
        except (RuntimeError, OSError) as error:
            raise InputError(
                f"submit: the cluster does not take {name} ({first_line(error)}); try again"
            ) from error
    return str(job), True
