"""The Ray cluster a command runs on: joining or starting it, and what it can ever hold."""

import logging
import os
import re
import secrets
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager, nullcontext, suppress
from pathlib import Path
from stat import S_ISDIR
from tempfile import TemporaryFile
from typing import Any

import ray
import yaml
from ray._common.utils import get_default_ray_temp_dir
from ray._private import auto_init_hook, ray_constants, services
from ray.experimental.internal_kv import internal_kv_get_gcs_client

from jobs.console.redaction import hiding_secrets
from jobs.console.termination import TerminatedError
from jobs.execution.processors import usable_cpus
from pipeline.errors import InputError, first_line
from pipeline.runs.provenance import PACKAGE_ROOT

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

OF_RAY = ("RAY_", "TUNE_", OWN_RAY, "PYTHONBREAKPOINT")
"""How the names begin of what such a Ray leaves in the environment, its debugger's among them."""

PRELOADED = "RAY_preload_python_modules"
WITH_RAY_TRAIN = "ray.train.v2._internal.execution.controller"
"""What takes long to import, and processes of such a Ray import as they start, a processor each."""
WITH_TORCH = f"{WITH_RAY_TRAIN},jobs.execution.worker,pipeline.training.loop"
"""And what only workers need, where enough processors import it at once, and not too many: each
process holds it in memory.
"""
CPUS_WITH_TORCH = range(8, 33)

SOCKET_BYTES = 107
"""A path of a socket is no longer on Linux."""
SOCKET_OF_A_SESSION = "/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"

KNOCK_SECONDS = 5.0
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How a client of gRPC begins, with empty settings; a server answers with its own."""
TOKEN_REMEDY = (
    "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH (or RAY_AUTH_TOKEN) to what the cluster was "
    "started with"
)


@contextmanager
def connected(address: str | None, trains: bool = False) -> Iterator[None]:
    """Ray for the time of a command: the cluster at `address` or RAY_ADDRESS, or a local one.

    One that is started here listens on loopback alone, and ends with the command. Where it is to
    train, its processes load what that takes as they start. `local` always starts one.

    Raises:
        InputError: there is no cluster at the address, or none can be started here.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    # A thread that still asks Ray for something when the command has left it, as after a signal,
    # would have Ray start or join another cluster, with none of what is set here.
    auto_init_hook.enable_auto_connect = False
    named = address or os.environ.get("RAY_ADDRESS")
    named = None if named == "local" else named and _living(named)
    with _settings(QUIET if named else own_environment(trains)):
        _begin(named)
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
                what = f"Ray did not shut down in order ({first_line(error)})"
                print(f"warning: {what}", file=sys.stderr)


@contextmanager
def _settings(wanted: Mapping[str, str]) -> Iterator[None]:
    """Ray's settings in the environment, where the user has none, for the time of a Ray.

    Processes that are started later are no part of it. With the RAY_AUTH_MODE that Ray sets, one
    that had loaded Ray before would start a Ray that asks for a token, and show it none.
    """
    os.environ.pop(OWN_RAY, None)
    before = set(os.environ)
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name in set(os.environ) - before:
            if name.startswith(OF_RAY):
                del os.environ[name]


def _begin(named: str | None) -> None:
    """Have Ray join the cluster that is named, or start one of its own.

    Raises:
        InputError: neither can be done.
    """
    # Without an address Ray would look for a cluster of this machine that somebody else started,
    # and take that one; `local` always starts one.
    options = {"address": named} if named else _own_options()

    # What Ray's C++ prints while it joins a cluster is the only place that names a wrong token.
    printed = ""
    try:
        with (
            _stderr_kept() if named else nullcontext(str) as read,
            nullcontext() if named else _on_loopback(),
            # Ray has workers import from the driver's folder first: whatever lies where a command
            # is given, `pipeline.py` or another checkout, they are to have this code.
            chdir(PACKAGE_ROOT),
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


def where() -> str:
    """What a command that is connected trains on, in words."""
    return "this machine" if OWN_RAY in os.environ else "this cluster"


def own_environment(trains: bool) -> dict[str, str]:
    """The settings of a Ray that is started here, to train or for something shorter."""
    if not trains:
        return OWN
    return OWN | {PRELOADED: WITH_TORCH if usable_cpus() in CPUS_WITH_TORCH else WITH_RAY_TRAIN}


def wants_token(text: str) -> bool:
    """Whether Ray's words are about a token that is missing or wrong."""
    # Ray has no exception for it: an HTTP status or a word in its message has to do.
    return re.search(r"\b40[13]\b|[Uu]nauth|[Aa]uthentication", text) is not None


def _own_options() -> dict[str, object]:
    """What a Ray of this command's own is started with.

    Raises:
        InputError: the folder that RAY_TMPDIR names cannot be used, nor any other.
    """
    # Ray keeps a token for all Rays of a user in the home, which may be read-only.
    named = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    if not named and not _can_be_written(Path(os.path.expanduser("~/.ray"))):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    options: dict[str, object] = {"address": "local", "include_dashboard": False}
    usual = Path(get_default_ray_temp_dir())
    if trouble := _session_trouble(usual):
        # Short, and this user's: whoever else made it could read, or lead away, all of it.
        spare = Path(f"/tmp/ray-{os.getuid()}")
        with suppress(FileExistsError):
            spare.mkdir(mode=0o700)
        about = spare.lstat()
        own = about.st_uid == os.getuid() and S_ISDIR(about.st_mode)
        if "RAY_TMPDIR" in os.environ or not own or _session_trouble(spare):
            raise InputError(
                f"Ray does not start on this machine: {usual} {trouble}; set RAY_TMPDIR to a short "
                "path of a folder that you can write"
            )
        options["_temp_dir"] = str(spare)
    return options


def _session_trouble(folder: Path) -> str:
    """Why Ray could not keep its sessions in a folder; empty if it can."""
    most = SOCKET_BYTES - len(SOCKET_OF_A_SESSION)
    if len(os.fsencode(folder)) > most:
        return f"is longer than {most} bytes, too long for the sockets that Ray makes there"
    return "" if _can_be_written(folder) else "cannot be written"


def _can_be_written(folder: Path) -> bool:
    """Whether a folder can be written, or made where the nearest one above it can."""
    there = next((each for each in (folder, *folder.parents) if each.exists()), folder)
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _living(address: str) -> str:
    """The address of a cluster's head, knocked at before Ray does.

    Ray itself waits for many minutes where nobody answers, and hears no signal meanwhile.

    Raises:
        InputError: nobody answers there, or it is no cluster's head.
    """
    if address.startswith(("http://", "https://")):
        raise InputError(
            f"{address}, as RAY_ADDRESS or --address, is a cluster's dashboard, which takes jobs "
            "alone: give the command to `resnet-repro submit`, name the head's address and port, "
            "6379 by default, or set RAY_ADDRESS=local for a Ray of this command's own"
        )
    if address == "auto":
        return _started_here()
    # Addresses such as ray://NAME without a port are left to Ray.
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal() and (silence := _silence(host.strip("[]"), int(port))):
        raise InputError(
            f"no Ray cluster answers at {address} ({silence}); name the head's address and port, "
            "6379 by default"
        )
    return address


def _started_here() -> str:
    """The address of the cluster that `ray start` began or joined on this machine: `auto`.

    Raises:
        InputError: none is alive.
    """
    # Ray would take the Ray of whatever other command runs here, and wait for one that is dead.
    last = services.find_bootstrap_address(None)
    others = [each for each in services.find_gcs_addresses() if not each.startswith("127.")]
    silent = ""
    for known in filter(None, (last, *sorted(others))):
        host, _, port = known.rpartition(":")
        silence = _silence(host.strip("[]"), int(port))
        if not silence:
            return known
        silent = silent or f" ({known}, as `ray start` left it: {silence})"
    raise InputError(
        f"auto: no Ray cluster runs on this machine{silent}; start one with `ray start --head`, or "
        "set RAY_ADDRESS=local for one of this command's own"
    )


def _silence(host: str, port: int) -> str:
    """Why no server of gRPC, as a cluster's head is, can be spoken to; empty if one can."""
    try:
        with socket.create_connection((host, port), timeout=KNOCK_SECONDS) as knock:
            if os.environ.get("RAY_USE_TLS", "0") != "0":
                return ""
            knock.sendall(HTTP2_GREETING)
            answer = knock.recv(9)
    except OSError as error:
        return first_line(error)
    # A frame of HTTP/2 has its kind in the fourth byte: 4 are settings.
    return "" if answer[3:4] == b"\x04" else "what answers there is no Ray"


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


def remote(begins: Callable[..., Any], **options: Any) -> Any:
    """`ray.remote` of a task's function or an actor's class, whose process shows no password."""
    return ray.remote(**options)(hiding_secrets(begins))


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
        f"{' or --device cpu' if each.get('GPU') else ' or fewer threads of each'}"
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
