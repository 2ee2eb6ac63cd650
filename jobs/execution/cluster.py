"""The Ray cluster a command runs on: joining or starting it, and whether it can ever hold what is
asked of it.
"""

import logging
import os
import re
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryFile

import ray
import yaml
from ray._private import ray_constants

from pipeline.errors import InputError, first_line

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


KNOCK_SECONDS = 5.0
TOKEN_REMEDY = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH (or RAY_AUTH_TOKEN) to what the cluster was started with"


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Ray for the time of a command: the cluster at `address` or RAY_ADDRESS, or one of this
    machine's own on loopback.

    Raises:
        InputError: there is no cluster at the address.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    named = address or os.environ.get("RAY_ADDRESS")
    options = {"address": named} if named else {"address": "local", "include_dashboard": False}
    if named:
        _check_reachable(named)
    said = ""
    try:
        with (
            _stderr_kept() if named else nullcontext(str) as read,
            nullcontext() if named else _on_loopback(),
        ):
            try:
                ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
            finally:
                said = read()
    except Exception as error:  # Ray raises bare ones too, such as when its node starts too slowly
        if named and wants_token(f"{error} {said}"):
            raise InputError(
                f"the Ray cluster at {named} wants another token; {TOKEN_REMEDY}"
            ) from error
        what = f"no Ray cluster at {named}" if named else "Ray does not start on this machine"
        raise InputError(f"{what}: {first_line(error)}") from error
    for name in ("ray", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        try:
            ray.shutdown()
        except (
            Exception
        ) as error:  # as Ctrl-C can take it in the middle; what the command did stands
            print(f"warning: Ray did not shut down in order ({first_line(error)})", file=sys.stderr)


def wants_token(text: str) -> bool:
    """Whether Ray's words are about a token that is missing or wrong."""
    return re.search(r"\b40[13]\b|[Uu]nauth|[Aa]uthentication", text) is not None


def _check_reachable(address: str) -> None:
    """Knock before Ray does, which waits for many minutes where nobody answers.

    Raises:
        InputError: nobody does.
    """
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"no Ray cluster answers at {address} ({first_line(error)}); name the head's address "
            "and port, 6379 by default"
        ) from error


@contextmanager
def _stderr_kept() -> Iterator[Callable[[], str]]:
    """What is written to standard error meanwhile, by libraries in C++ too, kept for whoever asks
    instead of shown.
    """
    sys.stderr.flush()
    with TemporaryFile() as kept:
        before = os.dup(2)
        os.dup2(kept.fileno(), 2)

        def read() -> str:
            kept.seek(0)
            return kept.read().decode(errors="replace")

        try:
            yield read
        finally:
            os.dup2(before, 2)
            os.close(before)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Start Ray on 127.0.0.1, as it does by itself where it supports no cluster; else it listens on
    every interface.
    """
    supported = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = supported


Node = dict[str, float]
"""What one node has: CPUs, GPUs, bytes of memory, ... by Ray's names."""

BOOTSTRAP = "ray_bootstrap_config.yaml"
"""In the home of the head's user, where Ray's launcher made the cluster."""


def nodes() -> list[Node]:
    """The nodes that the cluster has, or those that its autoscaler may grow it to where they are
    more.
    """
    there: list[Node] = [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    declared = _declared()
    return declared if _total(declared) > _total(there) else there


def _declared() -> list[Node]:
    """What `ray up` wrote on the head of the nodes that it may start; none elsewhere. Ray itself
    does not say.
    """
    try:
        config = yaml.safe_load((Path.home() / BOOTSTRAP).read_text())
        kinds, most = dict(config["available_node_types"]), int(config["max_workers"])
        head = kinds.pop(config["head_node_type"])
        workers = [
            dict(kind["resources"])
            for kind in kinds.values()
            for _ in range(int(kind["max_workers"]))
        ]
    except (OSError, RuntimeError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError):
        return []
    return [dict(head["resources"]), *workers[:most]]


def _total(several: list[Node]) -> tuple[float, float]:
    return sum(node.get("GPU", 0) for node in several), sum(node.get("CPU", 0) for node in several)


def places(several: list[Node], each: Node) -> int:
    """How many workers that take `each` fit, as none can be spread over two nodes."""
    return sum(
        int(min(node.get(name, 0) / amount for name, amount in each.items() if amount) + 1e-9)
        for node in several
    )


def check_fits(several: list[Node], workers: int, each: Node) -> None:
    """Refuse what the cluster can never have, instead of waiting for it for ever.

    Raises:
        InputError: names what is missing.
    """
    fit = places(several, each)
    if fit >= workers:
        return
    wanted = " and ".join(f"{amount:g} {name}" for name, amount in each.items() if amount)
    most = " and ".join(
        f"{max((n.get(name, 0) for n in several), default=0):g} {name}"
        for name in each
        if each[name]
    )
    raise InputError(
        f"{workers} worker(s) of {wanted} each: the cluster has room for {fit}, a node has {most} "
        "at the most; "
        f"ask for fewer --workers{' or --device cpu' if each.get('GPU') else ' or --threads'}"
    )


def threads_per_worker(several: list[Node], runs: int, workers: int) -> int:
    """Threads that give a CPU cluster its best total rate: one for each run at once, more only when
    runs are few.
    """
    total = sum(int(node.get("CPU", 0)) for node in several)
    at_once = max(1, min(runs, total // workers))
    return cpus_that_fit(several, at_once * workers, wanted=max(1, total // (at_once * workers)))


def cpus_that_fit(several: list[Node], workers: int, wanted: int) -> int:
    """At most `wanted` CPUs a worker, as many as so many workers can have at once; one where even
    that is too much.
    """
    return next(
        (cpus for cpus in range(wanted, 1, -1) if places(several, {"CPU": cpus}) >= workers), 1
    )


def head_memory() -> float:
    """Bytes of memory that Ray counts on the head node."""
    heads = [
        node
        for node in ray.nodes()
        if node["Alive"] and "node:__internal_head__" in node["Resources"]
    ]
    return float(heads[0]["Resources"].get("memory", 8e9)) if heads else 8e9
