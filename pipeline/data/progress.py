"""How reading something long tells how far it is, without knowing what shows it."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with (done, all) now and then while something long is read."""


def silent(done: int, total: int) -> None:
    """Show no progress."""
