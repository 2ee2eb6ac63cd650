"""What a result was made with: commit, versions, hardware.

Recorded beside a run's identity, never part of it: the same run on another machine is the same run.
"""

import platform
import re
import subprocess
import sys
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

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


def source_commit() -> dict[str, Any]:
    """`commit` and `dirty` of the checkout that this package runs from, or was packed from.

    'unknown' where there is none.
    """
    folder = Path(__file__).resolve().parent
    root = folder.parents[1]
    try:
        packed = parse(regular_file(root / COMMIT_FILE))
        return {"commit": str(packed["commit"]), "dirty": bool(packed["dirty"])}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        # Installed inside somebody else's repository, its HEAD would be a commit of another
        # project.
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
        # Untracked files cannot have been imported from a commit's package, so they do not count.
        dirty = bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return {"commit": "unknown", "dirty": False}
    return {"commit": commit, "dirty": dirty}


def source_digest() -> str:
    """A digest of the code that decides a run's numbers (`pipeline/**/*.py`).

    It also tells uncommitted changes apart.
    """
    digest = blake2b(digest_size=8)
    package = Path(__file__).resolve().parents[1]
    # With the path relative to the package: the same code gives the same digest wherever it is
    # installed.
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


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
