"""The Ray cluster a command runs on: joining or starting it, and whether it can ever hold what is asked of it."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import ray
from ray._private import ray_constants

from pipeline.errors import InputError

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


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Ray for the time of a command: the cluster at `address` or RAY_ADDRESS, or one of this machine's own on loopback.

    Raises:
        InputError: there is no cluster at the address.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    named = address or os.environ.get("RAY_ADDRESS")
    options = {"address": named} if named else {"address": "local", "include_dashboard": False}
    try:
        with nullcontext() if named else _on_loopback():
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"no Ray cluster at {named}: {str(error).splitlines()[0]}") from error
    for name in ("ray", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Start Ray on 127.0.0.1, as it does by itself where it supports no cluster; else it listens on every interface."""
    supported = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = supported


def largest_resources() -> dict[str, float]:
    """What the cluster has, or may grow to where its autoscaler says how far."""
    from ray._private.state import state

    now = ray.cluster_resources()
    declared = state.get_max_resources_from_cluster_config() or {}
    return {name: max(now.get(name, 0), declared.get(name, 0)) for name in now.keys() | declared.keys()}


def check_fits(workers: int, cpus: float, gpus: float) -> None:
    """Refuse what the cluster can never have, instead of waiting for it for ever.

    Raises:
        InputError: names each resource that is missing.
    """
    has = largest_resources()
    for name, each in (("CPU", cpus), ("GPU", gpus)):
        wanted, most = workers * each, has.get(name, 0)
        if wanted > most:
            raise InputError(
                f"{workers} worker(s) of {each:g} {name} need {wanted:g} {name}, the cluster has {most:g} at the most; "
                f"ask for fewer --workers{' or --threads' if name == 'CPU' else ' or --device cpu'}"
            )
