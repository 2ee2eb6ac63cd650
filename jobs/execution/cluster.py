"""The Ray cluster a command runs on: joining or starting it, and what it can ever hold."""

import logging
import os
import re
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import ray
import yaml
from ray._private import ray_constants
from ray.experimental.internal_kv import internal_kv_get_gcs_client

from jobs.console.termination import TerminatedError
from jobs.execution.processors import usable_cpus
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
"""Ray's settings where the user has none: it prints nothing of its own, so that what a command says
is what a person sees. (ACCEL_ENV_VAR: a worker without a GPU must not see all of them.)
"""

RAY_TRAIN_ENVIRONMENT = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30"}
"""For Ray Train's controllers: workers that did not start in time are requested again, as many as
there is room for by then.
"""

OWN_RAY = "RESNET_REPRO_OWN_RAY"
"""Set in all processes of a Ray that a command started for itself, trials of a grid among them."""
OWN = (
    QUIET
    | RAY_TRAIN_ENVIRONMENT
    | {
        OWN_RAY: "1",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0",
    }
)
"""The settings of such a Ray: all that Ray Train would give its processes, and the end of a run is
noticed sooner.
"""

PRELOADED = "RAY_preload_python_modules"
WITH_RAY_TRAIN = "ray.train.v2._internal.execution.controller"
"""What takes long to import, and processes of such a Ray import as they start, a processor each."""
WITH_TORCH = f"{WITH_RAY_TRAIN},jobs.execution.worker,pipeline.training.loop"
"""And what only workers need, where enough processors import it at once, and not too many: each
process holds it in memory.
"""
CPUS_WITH_TORCH = range(8, 33)

KNOCK_SECONDS = 5.0
TOKEN_REMEDY = (
    "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH (or RAY_AUTH_TOKEN) to what the cluster was "
    "started with"
)


@contextmanager
def connected(address: str | None, trains: bool = False) -> Iterator[None]:
    """Ray for the time of a command: the cluster at `address` or RAY_ADDRESS, or a local one.

    One that is started here listens on loopback alone, and ends with the command. Where it is to
    train, its processes load what that takes as they start.

    Raises:
        InputError: there is no cluster at the address.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    named = address or os.environ.get("RAY_ADDRESS")
    # What the user has set in the environment stays.
    os.environ.pop(OWN_RAY, None)
    for name, value in (QUIET if named else own_environment(trains)).items():
        os.environ.setdefault(name, value)
    # Without an address Ray would look for a cluster of this machine that somebody else started,
    # and take that one; `local` always starts one.
    options = {"address": named} if named else {"address": "local", "include_dashboard": False}
    if named:
        _check_reachable(named)

    # What Ray's C++ prints while it joins a cluster is the only place that names a wrong token.
    printed = ""
    try:
        with (
            _stderr_kept() if named else nullcontext(str) as read,
            nullcontext() if named else _on_loopback(),
            nullcontext() if named else _unmoved_by_signals(),
            _own_sigterm(),
        ):
            try:
                ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
            finally:
                printed = read()
    except Exception as error:  # Ray raises bare ones too, such as when its node starts too slowly
        if named and wants_token(f"{error} {printed}"):
            raise InputError(
                f"the Ray cluster at {named} wants another token; {TOKEN_REMEDY}"
            ) from error
        what = f"no Ray cluster at {named}" if named else "Ray does not start on this machine"
        raise InputError(f"{what}: {first_line(error)}") from error
    # After init, which sets the levels of its own loggers.
    for name in ("ray", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        # Ctrl-C can take Ray in the middle of something; what the command did stands.
        try:
            ray.shutdown()
        except Exception as error:
            print(f"warning: Ray did not shut down in order ({first_line(error)})", file=sys.stderr)


def own_environment(trains: bool) -> dict[str, str]:
    """The settings of a Ray that is started here, to train or for something shorter."""
    if not trains:
        return OWN
    return OWN | {PRELOADED: WITH_TORCH if usable_cpus() in CPUS_WITH_TORCH else WITH_RAY_TRAIN}


def wants_token(text: str) -> bool:
    """Whether Ray's words are about a token that is missing or wrong."""
    # Ray has no exception for it: an HTTP status or a word in its message has to do.
    return re.search(r"\b40[13]\b|[Uu]nauth|[Aa]uthentication", text) is not None


def _check_reachable(address: str) -> None:
    """Knock before Ray does, which waits for many minutes where nobody answers.

    Raises:
        InputError: nobody does.
    """
    # Addresses such as `auto` or ray://NAME without a port are left to Ray.
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
    """What is written to standard error meanwhile, by C++ too, kept to be read instead of shown."""
    sys.stderr.flush()
    # File descriptor 2 itself: libraries in C++ do not write to Python's sys.stderr.
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
    """Start Ray on 127.0.0.1, as it does where it supports no cluster, and not on every interface.

    Whoever reaches Ray's ports can run code: on a laptop in a café nobody else should.
    """
    supported = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = supported


@contextmanager
def _unmoved_by_signals() -> Iterator[None]:
    """Start processes that SIGHUP and SIGUSR1 do not end: workers have to save first.

    A terminal that is closed, and a batch system, sends them to all processes at once.
    """
    # Blocked, and not ignored: what comes meanwhile reaches this process afterwards.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGUSR1})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this process's way to take SIGTERM: by Ray's, Ray is killed before anything is saved.

    Raises:
        TerminatedError: it came while Ray started.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as error:  # by Ray's handler
        raise TerminatedError("SIGTERM") from error
    finally:
        if callable(before):
            signal.signal(signal.SIGTERM, before)


STOPS = b"resnet-repro"
"""Ray's namespace for the jobs that are asked to end."""


def ask_to_stop() -> None:
    """Ask this command's workers and drivers, on all nodes, to save and end (`asked_to_stop`).

    Raises:
        ray.exceptions.RpcError: the head does not answer.
    """
    _store().internal_kv_put(_job(), b"stop", True, STOPS, timeout=KNOCK_SECONDS)


def asked_to_stop() -> bool:
    """Whether this process's command was asked to end, as far as the head answers."""
    with suppress(ray.exceptions.RpcError):
        return bool(_store().internal_kv_exists(_job(), STOPS, timeout=KNOCK_SECONDS))
    return False


def _store() -> Any:
    """What the processes of a cluster share by names; it is lost with the head."""
    client = internal_kv_get_gcs_client()
    assert client is not None, "asked before Ray was started"
    return client


def _job() -> bytes:
    """The job of Ray's that a command is, in all its processes."""
    return str(ray.get_runtime_context().get_job_id()).encode()


Node = dict[str, float]
"""What one node has: CPUs, GPUs, bytes of memory, ... by Ray's names."""

BOOTSTRAP = "ray_bootstrap_config.yaml"
"""In the home of the head's user, where Ray's launcher made the cluster."""


def nodes() -> list[Node]:
    """The nodes that the cluster has, or those that its autoscaler may grow it to, if more."""
    present: list[Node] = [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    # Only where it comes to more: a cluster may have been given nodes by hand.
    declared = _declared()
    return declared if _total(declared) > _total(present) else present


def _declared() -> list[Node]:
    """The nodes that the autoscaler may start, by the file that `ray up` wrote on the head.

    None elsewhere: Ray itself does not say.
    """
    try:
        config = yaml.safe_load((Path.home() / BOOTSTRAP).read_text())
        # The head is of a kind of its own, and `max_workers` bounds all the other kinds together.
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


def _total(nodes: list[Node]) -> tuple[float, float]:
    return sum(node.get("GPU", 0) for node in nodes), sum(node.get("CPU", 0) for node in nodes)


def places(nodes: list[Node], each: Node) -> int:
    """How many workers that take `each` fit, as none can be spread over two nodes."""
    # Fractions of GPUs are binary ones: without the margin, ten workers of 0.1 are nine.
    return sum(
        int(min(node.get(name, 0) / amount for name, amount in each.items() if amount) + 1e-9)
        for node in nodes
    )


def check_fits(nodes: list[Node], workers: int, each: Node) -> None:
    """Refuse what the cluster can never have, instead of waiting for it for ever.

    Raises:
        InputError: names what is missing.
    """
    fit = places(nodes, each)
    if fit >= workers:
        return
    # What the largest node has says whether fewer workers or smaller ones would fit.
    largest = {name: max((node.get(name, 0) for node in nodes), default=0) for name in each}
    asked = " and ".join(f"{amount:g} {name}" for name, amount in each.items() if amount)
    most = " and ".join(f"{largest[name]:g} {name}" for name in each if each[name])
    raise InputError(
        f"{workers} worker(s) of {asked} each: the cluster has room for {fit}, a node has "
        f"{most} at the most; ask for fewer --workers"
        f"{' or --device cpu' if each.get('GPU') else ' or --threads'}"
    )


def threads_per_worker(nodes: list[Node], runs: int, workers: int) -> int:
    """Threads of each worker that give a CPU cluster its best total rate.

    One, with as many runs at once as there are CPUs, as small convolutions gain little by a second
    thread; more only when runs are few.
    """
    total = sum(int(node.get("CPU", 0)) for node in nodes)
    # How many runs fit if each worker takes one CPU; what is left over is shared out evenly.
    at_once = max(1, min(runs, total // workers))
    return cpus_that_fit(nodes, at_once * workers, at_most=max(1, total // (at_once * workers)))


def cpus_that_fit(nodes: list[Node], workers: int, at_most: int) -> int:
    """The most CPUs a worker, up to `at_most`, that all workers can have at once; at least one."""
    return next(
        (cpus for cpus in range(at_most, 1, -1) if places(nodes, {"CPU": cpus}) >= workers), 1
    )


def head_memory() -> float:
    """Bytes of memory that Ray counts on the head node."""
    heads = [
        node
        for node in ray.nodes()
        if node["Alive"] and "node:__internal_head__" in node["Resources"]
    ]
    # 8 GB is assumed where Ray counts no memory, as of a head that is only described.
    return float(heads[0]["Resources"].get("memory", 8e9)) if heads else 8e9
