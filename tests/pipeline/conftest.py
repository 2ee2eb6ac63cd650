"""One thread for torch: small networks are fastest so, and the same bytes come out on any machine's
number of cores.
"""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
