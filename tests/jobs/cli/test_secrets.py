"""A password that is given to commands is passed on, and is neither shown nor kept anywhere."""

import os
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.conftest import Cli
from tests.jobs.conftest import free_port, mlflow_server

SECRET = "Hidden4711"
AWAY = f"http://joe:{SECRET}@127.0.0.1:9/?api_key={SECRET}&Access_Token={SECRET}"
TINY = (
    "resnet20",
    "--data",
    "digits",
    "--set",
    "depth=8",
    "--set",
    "eval_every=8",
    "--iterations",
    "8",
)
BUCKET = f"s3://bucket/place?secret_key={SECRET}"


def assert_hidden(done: subprocess.CompletedProcess[str], *codes: int) -> None:
    assert done.returncode in codes, done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def assert_not_kept(place: Path) -> None:
    """No file below holds it, nor any file's name; archives are looked into."""
    files = [path for path in place.rglob("*") if path.is_file() and not path.is_symlink()]
    for path in files:
        contents = [path.read_bytes()]
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                contents += [archive.read(name) for name in archive.namelist()]
        assert SECRET not in str(path)
        assert not any(SECRET.encode() in content for content in contents), path


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", *TINY, "--dry-run", "--tracking", AWAY),
        ("train", *TINY, "--require-tracking", "--tracking", AWAY),
        ("train", *TINY, "--tracking", f"joe:{SECRET}@host:5000"),
        ("train", *TINY, "--tracking", f"ftp://joe:{SECRET}@host:5000"),
        ("train", *TINY, "--tracking", f"http://joe:{SECRET} {SECRET}@host"),
        ("train", "resnet20", "--data", f"https://joe:{SECRET}@host/images"),
        ("train", *TINY, "--set", f"password={SECRET}"),
        ("train", *TINY, "--address", f"ray://joe:{SECRET}@127.0.0.1:9"),
        ("train", f"token={SECRET}"),
        ("grid", "resnet20", "--dry-run", "--tracking", AWAY),
        ("sync", "--tracking", AWAY),
        ("report", "--tracking", AWAY),
        ("ui", "--tracking", AWAY),
        ("status", "--storage", BUCKET),
        ("clean", "--storage", f"s3://joe:{SECRET}@bucket/place"),
        ("data", "list", "--storage", BUCKET),
        ("data", "prepare", "x", "--from", f"https://joe:{SECRET}@host/images"),
        ("plan", "demo", "--gpus", "8xH100", "--storage", BUCKET),
        ("verify", f"s3://bucket?api_key={SECRET}"),
        ("evaluate", f"https://joe:{SECRET}@host/weights"),
        ("results", "export", f"/nowhere/token={SECRET}/x.zip", "--tracking", AWAY),
        ("results", "import", f"/nowhere/token={SECRET}/x.zip"),
        ("audit", f"/nowhere/token={SECRET}"),
        ("jobs", "list", "--dashboard", f"http://joe:{SECRET}@127.0.0.1:9"),
        ("submit", "train", *TINY, "--storage", BUCKET),
        ("manifests", "--image", "x", "--artifacts", BUCKET, "--out", "/nowhere/out"),
        ("doctor", "--address", f"ray://joe:{SECRET}@127.0.0.1:9"),
        ("status", f"--bogus=password={SECRET}"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_no_command_shows_it(cli: Cli, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    place = tmp_path / "s"
    takes_storage = arguments[0] not in ("audit", "jobs", "submit", "manifests")
    own = ("--storage", str(place)) if takes_storage and "--storage" not in arguments else ()
    assert_hidden(cli(*arguments, *own, timeout=120), 0, 1, 2)
    assert_not_kept(place)


@pytest.fixture
def ray_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where Ray keeps its logs; in a short path, as its sockets lie there too."""
    with TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Path(folder)


@pytest.mark.ray
def test_training_keeps_it_nowhere_and_uses_it(cli: Cli, tmp_path: Path, ray_folder: Path) -> None:
    """With a server that is away, and then with one that is there."""
    storage, port = tmp_path / "s", free_port()
    own = ("--storage", str(storage))
    # Trained by a trial of Tune's, whose report then fails: it is made of what MLflow has.
    done = cli("grid", *TINY, "--tracking", AWAY, *own)
    assert_hidden(done, 2)
    assert "MLflow at http://127.0.0.1:9" in done.stderr
    assert_not_kept(storage)

    (tmp_path / "server").mkdir()
    with mlflow_server(tmp_path / "server", port) as address:
        tracking = address.replace("http://", f"http://joe:{SECRET}@")
        named = ("--tracking", tracking, *own)
        assert_hidden(cli("train", *TINY, *named), 0)
        for command in (("sync",), ("report",), ("results", "export", str(tmp_path / "x.zip"))):
            assert_hidden(cli(*command, *named), 0)
    assert (storage / "report" / "index.html").exists() and (tmp_path / "x.zip").exists()
    assert_hidden(cli("status", "--json", *own), 0)
    assert list(ray_folder.rglob("*.log"))
    # Runs, reports, exports and bundles; what the server has; and what Ray's processes have logged.
    for place in (storage, tmp_path, ray_folder):
        assert_not_kept(place)


SPEAKS = """
import logging, sys
import ray
from jobs.execution.cluster import connected, remote

def says():
    print("http://joe:Hidden4711@host")
    print("api_key=Hidden4711", file=sys.stderr)
    logging.getLogger("x").error("password=Hidden4711")
    return type(sys.stdout).__name__

class Actor:
    def says(self):
        return says()

def train():
    says()

if __name__ == "__main__":
    from ray.train import RunConfig, ScalingConfig
    from jobs.execution.trainer import HiddenSecrets, WorkerGroupTrainer

    class Loud(HiddenSecrets):
        def after_controller_start(self, context):
            super().after_controller_start(context)
            assert says() == "RedactedStream"

    # The controller tells by a callback of its own what hides its secrets.
    import jobs.execution.trainer as trainer
    trainer.HiddenSecrets = Loud
    with connected(None):
        task, actor = remote(says, num_cpus=0), remote(Actor, num_cpus=0)
        assert ray.get(task.remote()) == "RedactedStream"
        assert ray.get(actor.remote().says.remote()) == "RedactedStream"
        run = RunConfig(storage_path=sys.argv[1])
        WorkerGroupTrainer(train, scaling_config=ScalingConfig(num_workers=1), run_config=run).fit()
"""


@pytest.mark.ray
def test_every_process_of_ray_hides_it(tmp_path: Path, ray_folder: Path) -> None:
    """Tasks, actors, Ray Train's controller and its workers, whatever they print and log."""
    script = tmp_path / "speaks.py"
    script.write_text(SPEAKS)
    line = [sys.executable, str(script), str(tmp_path / "s")]
    root = str(Path(__file__).resolve().parents[3])
    done = subprocess.run(
        line,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"PYTHONPATH": f"{root}:{tmp_path}"},
    )
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    said = b"".join(
        path.read_bytes() for path in ray_folder.rglob("*.[oe][ur][tr]") if not path.is_symlink()
    )
    # All four said it, and none of them what it is.
    assert said.count(b"http://host") >= 4 and said.count(b"api_key=...") >= 4
    assert SECRET.encode() not in said
    assert_not_kept(tmp_path / "s")


def test_a_database_of_ours_is_for_its_owner_alone(tmp_path: Path) -> None:
    from jobs.tracking.store import open_store
    from pipeline.storage import Storage

    before = os.umask(0o022)
    try:
        open_store(f"sqlite:///{tmp_path}/mlflow.db", Storage(str(tmp_path)))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "mlflow.db").stat().st_mode) == 0o600
