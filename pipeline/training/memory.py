"""How this process keeps the memory that it has used (torch-free): about a fifth of a CPU's
training rate hangs on it.

An SGD step allocates and frees the same large activations each time. The C library hands such
memory back to the system and gets it again as pages that have to be zeroed; told to keep it, it
does neither. No number changes.
"""

import ctypes

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""`mallopt`'s names (malloc.h of the GNU C library)."""

LARGEST = 2**31 - 1
GROW_BY = 64 << 20


def keep_freed_memory() -> bool:
    """Keep freed memory for the next allocation, for the life of this process; False where the C
    library is another.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    options = ((MMAP_THRESHOLD, LARGEST), (TRIM_THRESHOLD, LARGEST), (TOP_PAD, GROW_BY))
    return all([mallopt(name, value) for name, value in options])
