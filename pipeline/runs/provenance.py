"""What a result was made with: commit, versions, hardware.

Recorded beside a run's identity, never part of it: the same run on another machine is the same run.
"""

import platform
import re
import subprocess
import sys
from functools import cache
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

from pipeline.errors import first_line
from pipeline.storage import regular_file
from pipeline.stored_json import parse

PACKAGES = (
    "resnet-repro",
    "torch",
    "torchvision",
    "ray",
    "mlflow",
    "numpy",
    "pyarrow",
    "pandas",
    "safetensors",
    "pillow",
    "scipy",
)
"""The packages whose versions are recorded with a run."""

_BYSTANDERS = ("mlflow", "pandas")
"""Those that no number of a run passes through: another version of them is no drift."""

COMMIT_FILE = "commit.json"
"""Beside the package where it was packed from a checkout: what `source_commit` says of that."""


UNKNOWN = "unknown"
PACKAGE_ROOT = Path(__file__).resolve().parents[2]
"""The folder that this code is imported from."""


def source_commit() -> dict[str, Any]:
    """`commit` and `dirty` of the checkout that this package runs from, or was built from.

    'unknown' where neither says it; `commit_trouble` then says why.
    """
    return dict(_commit()[0])


def commit_trouble() -> str:
    """Why the commit is unknown, and what to do about it; empty where it is known."""
    return _commit()[1]


@cache
def _commit() -> tuple[dict[str, Any], str]:
    """What is known of the commit, and why it is not more."""
    try:
        packed = parse(regular_file(PACKAGE_ROOT / COMMIT_FILE))
        return {"commit": str(packed["commit"]), "dirty": bool(packed["dirty"])}, ""
    except (OSError, ValueError, KeyError, TypeError):
        pass
    folder = Path(__file__).resolve().parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        # Installed inside somebody else's repository, its HEAD would be a commit of another
        # project.
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
        # Untracked files cannot have been imported from a commit's package, so they do not count.
        dirty = bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
        return {"commit": commit, "dirty": dirty}, ""
    except (OSError, subprocess.SubprocessError) as error:
        if built_from := _built_from():
            return {"commit": built_from, "dirty": False}, ""
        return {"commit": UNKNOWN, "dirty": False}, _git_trouble(error)


def _built_from() -> str:
    """The commit that pip installed this package from (PEP 610); empty where it names none."""
    try:
        installed = distribution("resnet-repro")
        origin = parse((installed.read_text("direct_url.json") or "{}").encode())
        here = Path(str(installed.locate_file("pipeline"))).resolve() == PACKAGE_ROOT / "pipeline"
        return str(origin["vcs_info"]["commit_id"]) if here else ""
    except (PackageNotFoundError, OSError, ValueError, KeyError, TypeError):
        return ""


def _git_trouble(error: Exception) -> str:
    """Why git does not tell the commit, with the remedy."""
    if isinstance(error, FileNotFoundError):
        return f"git, which would tell it of {PACKAGE_ROOT}, is not installed; install it"
    said = str(getattr(error, "stderr", "") or "")
    # Its words depend on the language, the command that it advises does not.
    if advised := re.search(r"git config --global --add safe\.directory \S.*", said):
        return f"git does not trust {PACKAGE_ROOT}, which another user owns; run `{advised[0]}`"
    if (PACKAGE_ROOT / ".git").exists():
        return f"git cannot read {PACKAGE_ROOT} ({first_line(Exception(said or error))}); repair it"
    named = '{"commit": "...", "dirty": false}'
    return (
        f"{PACKAGE_ROOT} is in no git checkout of this project; clone it with git, or write "
        f"{named} into {PACKAGE_ROOT / COMMIT_FILE}"
    )


@cache
def source_digest() -> str:
    """A digest of the code that decides a run's numbers (`pipeline/**/*.py`).

    It also tells uncommitted changes apart. Of the files as they are when a process first asks:
    what it has imported does not change with them.
    """
    digest = blake2b(digest_size=8)
    package = Path(__file__).resolve().parents[1]
    # With the path relative to the package: the same code gives the same digest wherever it is
    # installed.
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def code_trouble(expected: str) -> str:
    """How this process's code differs from that of the command that began it; empty if it does not.

    `expected` is the command's `source_digest`; empty where nobody knows it.
    """
    if expected in ("", source_digest()):
        return ""
    return (
        f"{platform.node()} would train with other code than this command's: {PACKAGE_ROOT} there "
        f"has the digest {source_digest()}, here it is {expected}; install the same commit on "
        "every node, or give the command to `resnet-repro submit`, which ships its code"
    )


def drift(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """What differs between two attempts of one run that could change its bytes.

    By name, what it was and what it is.

    That is commit, source, device (a GPU's model) and its driver, hardware (the CPU's model),
    torch's threads, whether kernels are deterministic, and the version of Python and of each
    package in `PACKAGES` but those that no number passes through; on GPUs of CUDA and cuDNN too.
    """
    fields = (
        "commit",
        "source",
        "device",
        "gpu_driver",
        "hardware",
        "threads",
        "deterministic",
    )
    # Only what both recorded is compared: what an older version did not record is no difference.
    compared = [
        (name, before.get(name), now.get(name)) for name in fields if name in before and name in now
    ]
    old, new = before.get("versions", {}), now.get("versions", {})
    compared += [
        (name, old.get(name), new.get(name))
        for name in sorted(old.keys() & new.keys())
        if name not in _BYSTANDERS
    ]
    return {
        name: (str(was), str(is_now))
        for name, was, is_now in compared
        if _kinds(was) != _kinds(is_now)
    }


def _kinds(value: Any) -> Any:
    """The kinds of hardware of workers, in whatever order; other values as they are."""
    return frozenset(value.split(" + ")) if isinstance(value, str) else value


def drift_text(differing: dict[str, tuple[str, str]]) -> str:
    """What `drift` found, in a line; empty if nothing."""
    return ", ".join(
        f"{name}: {was[:40]} then, {now[:40]} now" for name, (was, now) in differing.items()
    )


def versions() -> dict[str, str]:
    """Python's version and those of the packages that can change a number."""
    by_package = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            by_package[package] = version(package)
        except PackageNotFoundError:
            continue
    return by_package


def hardware() -> str:
    """The CPU's model and count; a GPU's name is added by whoever trains on it."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def gpu_driver(file: Path = Path("/proc/driver/nvidia/version")) -> str:
    """The version of NVIDIA's driver, as its kernel module says; 'unknown' where it does not."""
    try:
        first = file.read_text().partition("\n")[0]
    except OSError:
        return "unknown"
    # "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build ..."
    found = re.search(r"\s(\d+\.\d+(\.\d+)*)\s", first)
    return found[1] if found else "unknown"


def native_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware: AVX512-BF16, AMX, or Arm's extension."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    flags = {
        flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()
    }
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=20
    ).stdout.strip()
