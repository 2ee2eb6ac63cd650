"""What several tests share: a tiny row, the digits in storage, and the command line as a user calls
it.
"""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from pipeline.data.catalogue.digits import digits
from pipeline.data.datasets import Dataset
from pipeline.data.stored import write_dataset
from pipeline.storage import Storage
from tests import forked

# The same examples every time, on machines of any speed.
settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
# A search, with other examples each time: RESNET_REPRO_FUZZ says how many for each property.
FUZZ = int(os.environ.get("RESNET_REPRO_FUZZ") or 0)
settings.register_profile(
    "search", max_examples=FUZZ or 100, deadline=None, suppress_health_check=list(HealthCheck)
)
settings.load_profile("search" if FUZZ else "steady")


def examples(few: int) -> int:
    """How many examples a slow property is tried with: few, or as many as a search asks for."""
    return FUZZ or few


Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def digits_dataset() -> Dataset:
    return digits()


@pytest.fixture
def storage(tmp_path: Path, digits_dataset: Dataset) -> Storage:
    """A storage folder with the digits prepared in it."""
    storage = Storage(str(tmp_path / "storage"))
    write_dataset(storage, digits_dataset, {"kind": "embedded"})
    return storage


@pytest.fixture(scope="session")
def cli() -> Cli:
    """`resnet-repro ARGUMENTS` in a process of its own, off a terminal."""

    def call(*arguments: str | Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        words = [str(argument) for argument in arguments]
        return forked.command(words, timeout, os.environ | forked.WIDTH)

    return call


@pytest.fixture(scope="session")
def real_images() -> Path:
    """A folder with real images in the parquet layout, by RESNET_REPRO_TEST_DATA; tests that need
    it skip without.
    """
    return _real("cifar10-jpeg")


@pytest.fixture(scope="session")
def real_photographs() -> Path:
    """A folder with real photographs in the parquet layout, by RESNET_REPRO_TEST_DATA; tests that
    need it skip without.
    """
    return _real("imagenet-sample")


def _real(name: str) -> Path:
    folder = Path(os.environ.get("RESNET_REPRO_TEST_DATA") or "/nowhere") / name
    if not folder.exists():
        pytest.skip(f"RESNET_REPRO_TEST_DATA names no folder with {name}")
    return folder
