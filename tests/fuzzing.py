"""How many examples the property tests try: few and always the same, or as many as one asks for.

`RESNET_REPRO_FUZZ=100 pytest TESTS` tries a hundred times as many, others each time.
"""

import os

TIMES = int(os.environ.get("RESNET_REPRO_FUZZ") or 1)


def examples(usual: int) -> int:
    """The examples of a property test that usually tries so many."""
    return usual * TIMES
