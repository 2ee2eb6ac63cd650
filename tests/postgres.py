"""A Postgres server of one's own on loopback, from the system's package."""

import os
import pwd
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


def binaries() -> Path | None:
    """Where Postgres's programs are, the newest; None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    named = shutil.which("postgres")
    return found[-1].parent if found else Path(named).parent if named else None


@contextmanager
def postgres(port: int) -> Iterator[str]:
    """The URI of an empty database `mlflow`, with a password, for the time of the context."""
    programs, word = binaries(), secrets.token_hex(16)
    assert programs is not None, "Postgres is not installed"
    with TemporaryDirectory(prefix="resnet-repro-postgres-") as folder:
        place, before = Path(folder), list[str]()
        (place / "word").write_text(word)
        if os.geteuid() == 0:  # which Postgres refuses to be
            owner = pwd.getpwnam("postgres")
            for path in (place, place / "word"):
                os.chown(path, owner.pw_uid, owner.pw_gid)
            before = ["runuser", "-u", "postgres", "--"]
        yield from _served(programs, place, port, word, before)


def _served(programs: Path, place: Path, port: int, word: str, before: list[str]) -> Iterator[str]:
    data = place / "data"

    def call(*line: object) -> None:
        done = subprocess.run(
            [*before, *map(str, line)], capture_output=True, text=True, check=False, cwd="/"
        )
        assert done.returncode == 0, done.stdout + done.stderr

    call(
        programs / "initdb",
        "-D",
        data,
        "-U",
        "mlflow",
        "--auth=scram-sha-256",
        "--pwfile",
        place / "word",
        "--no-sync",
    )
    options = (
        f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={data} -c fsync=off"
    )
    call(programs / "pg_ctl", "-D", data, "-o", options, "-l", data / "log", "-w", "start")
    try:
        environment = {**os.environ, "PGPASSWORD": word}
        made = [programs / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "mlflow", "mlflow"]
        subprocess.run(list(map(str, made)), env=environment, check=True, capture_output=True)
        yield f"postgresql://mlflow:{word}@127.0.0.1:{port}/mlflow"
    finally:
        call(programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
