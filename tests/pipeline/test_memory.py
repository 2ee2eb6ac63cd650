"""Memory that an iteration frees is there for the next one, without new pages."""

import subprocess
import sys

import pytest

from pipeline.memory import keep_freed_memory

PAGES_OF_16_MB = 4096
COUNT_FAULTS = """
import resource, sys, numpy
from pipeline.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def work():
    held = [numpy.ones(1 << 21) for _ in range(4)]  # four times 16 MB, then all are freed
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(way: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", COUNT_FAULTS, way], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts pages as Linux does")
def test_freed_memory_comes_back_without_page_faults() -> None:
    if not keep_freed_memory():
        pytest.skip("another C library than GNU's")
    assert faults("kept") < PAGES_OF_16_MB < faults("as it is")
