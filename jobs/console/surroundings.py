"""What a command finds around it and libraries rely on: a home, a user's name, a direct loopback.

Containers and schedulers start programs without; each library would end in a traceback of its own.
"""

import getpass
import os
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def settle(environment: MutableMapping[str, str] | None = None) -> None:
    """Give this process, and those that it starts, what is missing; what is there stays."""
    settled = os.environ if environment is None else environment
    _reach_loopback_directly(settled)
    if not _has_home(settled):
        settled["HOME"] = str(_own_folder())
    # A user id may have no name, as in containers that are given any; getpass asks these first.
    try:
        getpass.getuser()
    except (KeyError, OSError):
        settled.setdefault("LOGNAME", f"uid-{os.getuid()}")


def _reach_loopback_directly(environment: MutableMapping[str, str]) -> None:
    """A proxy knows of no service on this machine: Ray's dashboard, or a server of MLflow's."""
    for name in ("no_proxy", "NO_PROXY"):
        if any(proxy.lower().endswith("_proxy") for proxy in environment):
            present = [host for host in environment.get(name, "").split(",") if host]
            missing = [host for host in LOOPBACK if host not in present]
            environment[name] = ",".join([*present, *missing])


def _has_home(environment: MutableMapping[str, str]) -> bool:
    """Whether there is a home folder; what a user has in one that is read-only stays in use."""
    home = Path(environment.get("HOME") or os.path.expanduser("~"))
    # Containers name the root where they know of none.
    return home.is_absolute() and home.is_dir() and (home != Path("/") or os.access(home, os.W_OK))


def _own_folder() -> Path:
    """A folder that stands for a home: this user's alone, and the same for the next command."""
    folder = Path(tempfile.gettempdir(), f"resnet-repro-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        # Somebody else may have made it, to be trusted with what is kept in a home.
        if folder.lstat().st_uid == os.getuid() and not folder.is_symlink():
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="resnet-repro-"))
