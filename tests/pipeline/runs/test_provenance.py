"""The commit that a result was made with: by git, by the build, or unknown with what to do."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.runs.provenance import code_trouble, source_digest

ROOT = Path(__file__).parents[3]
ASK = """
import json
from pipeline.runs.provenance import commit_trouble, source_commit
print(json.dumps([source_commit(), commit_trouble()]))
"""
ANYBODY = 12345


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the part of this code that is asked."""
    folder = tmp_path / "checkout"
    (folder / "pipeline" / "runs").mkdir(parents=True)
    names = ("__init__.py", "errors.py", "storage.py", "stored_json.py")
    for name in (*names, "runs/__init__.py", "runs/provenance.py"):
        shutil.copy(ROOT / "pipeline" / name, folder / "pipeline" / name)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "All")
    return folder


def asked(root: Path, **changed: str) -> tuple[dict[str, object], str]:
    """What the code in a folder says of its commit, and what troubles it."""
    environment = {**os.environ, "PYTHONPATH": str(root), **changed}
    line = [sys.executable, "-c", ASK]
    done = subprocess.run(line, env=environment, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said, trouble = json.loads(done.stdout)
    return said, trouble


def test_git_tells_the_commit_and_whether_it_was_changed(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    assert asked(checkout) == ({"commit": head, "dirty": False}, "")
    (checkout / "pipeline" / "errors.py").open("a").write("# changed\n")
    assert asked(checkout) == ({"commit": head, "dirty": True}, "")


@pytest.mark.skipif(os.getuid() != 0, reason="gives files to another user")
def test_a_checkout_of_another_user_is_said_with_the_remedy(checkout: Path) -> None:
    for path in (checkout, *checkout.rglob("*")):
        os.chown(path, ANYBODY, ANYBODY)
    home = {"HOME": str(checkout.parent), "XDG_CONFIG_HOME": ""}
    said, trouble = asked(checkout, **home)
    assert said == {"commit": "unknown", "dirty": False}
    remedy = f"git config --global --add safe.directory {checkout}"
    assert f"which another user owns; run `{remedy}`" in trouble
    subprocess.run(remedy.split(), env=os.environ | home, check=True)
    assert asked(checkout, **home)[1] == ""


def test_without_git_or_a_checkout_the_remedy_is_said(checkout: Path) -> None:
    unknown = {"commit": "unknown", "dirty": False}
    said, trouble = asked(checkout, PATH="/nowhere")
    assert said == unknown and "is not installed; install it" in trouble
    shutil.rmtree(checkout / ".git")
    said, trouble = asked(checkout)
    assert said == unknown and f"{checkout} is in no git checkout" in trouble
    # What it says to write is read.
    named = {"commit": "f" * 40, "dirty": True}
    (checkout / "commit.json").write_text(json.dumps(named))
    assert asked(checkout) == (named, "")


def test_the_commit_that_pip_installed_is_that_of_the_build(checkout: Path) -> None:
    shutil.rmtree(checkout / ".git")
    about = checkout / "resnet_repro-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: resnet-repro\nVersion: 0.1.0\n")
    url = {"url": "https://example.org/x.git", "vcs_info": {"vcs": "git", "commit_id": "a" * 40}}
    (about / "direct_url.json").write_text(json.dumps(url))
    assert asked(checkout) == ({"commit": "a" * 40, "dirty": False}, "")


def test_other_code_is_named_with_what_to_do() -> None:
    assert code_trouble(source_digest()) == code_trouble("") == ""
    trouble = code_trouble("0" * 16)
    assert "0" * 16 in trouble and source_digest() in trouble and "install the same" in trouble
