"""The files below a path that a user names: which belong to a dataset, and which are others'.

People's folders hold what their operating systems and tools leave there. Such things are never a
class, an image or a table; what is left out is counted and named, so that the numbers add up.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

FEW = 5
"""So many names are said; of others only how many there are."""

FOREIGN = "of an operating system or a tool"
FOREIGN_NAMES = frozenset({
    "__macosx", "icon\r", "network trash folder", "temporary items",
    "$recycle.bin", "recycler", "system volume information",
    "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "~snapshot",
    "lost+found", "__pycache__",
})  # fmt: skip
"""What macOS, Windows, network drives, file systems and Python leave in folders; in lower case."""


def is_foreign(name: str) -> bool:
    """Whether a file or folder of this name is an operating system's or a tool's, and no data.

    All names that begin with a dot are: `.DS_Store`, `.ipynb_checkpoints`, `._a.jpg`.
    """
    return name.startswith(".") or name.casefold() in FOREIGN_NAMES


class Tally:
    """How many files below `root` are read, and which are left out and why.

    `what` says which files are counted.
    """

    def __init__(self, root: Path, what: str) -> None:
        self._root, self._what = root, what
        self.read = 0
        self._names: dict[str, list[str]] = defaultdict(list)
        self._counts: Counter[str] = Counter()

    def leave_out(self, why: str, place: Path, files: int = 1) -> None:
        """Count a file, or a folder with so many `files`, as left out."""
        self._counts[why] += files
        slash = "/" if place.is_dir() else ""
        self._names[why].append(f"{os.path.relpath(place, self._root)}{slash}")

    def notes(self) -> tuple[str, ...]:
        """One line, if anything was left out."""
        if not self._names:
            return ()
        reasons = "; ".join(
            f"{self._counts[why]:,} {why} ({few(names)})" for why, names in self._names.items()
        )
        total = self.read + self._counts.total()
        return (f"of {total:,} {self._what} {self.read:,} are read; left out: {reasons}",)


def few(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    shown = [name if name.isprintable() else ascii(name) for name in names]
    more = len(shown) - FEW
    return ", ".join(shown[:FEW]) + (f" and {more:,} more" if more > 0 else "")


def beside(read: str, others: Iterable[Path]) -> tuple[str, ...]:
    """A note on what holds the same as what is `read`, or may, if there is anything of the kind."""
    names = few(f"{place.name}{'/' if place.is_dir() else ''}" for place in others)
    return (f"read: {read}; beside it and not read: {names}",) if names else ()


def held(folder: Path) -> str:
    """What lies in a folder, for a line that says why nothing of it can be read."""
    names = sorted(f"{place.name}{'/' if place.is_dir() else ''}" for place in folder.iterdir())
    return few(names) or "nothing"


def files_below(folder: Path, tally: Tally, suffix: str = "") -> list[Path]:
    """The files below a folder whose names end in `suffix`, sorted; foreign ones are left out.

    Links are followed, but no folder is entered twice.

    Raises:
        OSError: a folder cannot be read.
    """
    found: list[Path] = []
    entered: set[str] = set()
    for place, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        where = os.path.realpath(place)
        if where in entered:
            folders.clear()
            continue
        entered.add(where)
        for name in sorted(filter(is_foreign, folders)):
            leave_out_foreign(Path(place, name), tally, suffix)
        folders[:] = sorted(name for name in folders if not is_foreign(name))
        for name in sorted(names):
            if name.endswith(suffix):
                if is_foreign(name):
                    leave_out_foreign(Path(place, name), tally)
                else:
                    found.append(Path(place, name))
    # By their strings: comparing paths takes minutes of a million.
    return sorted(found, key=str)


def leave_out_foreign(place: Path, tally: Tally, suffix: str = "") -> None:
    """Count a foreign file or folder as left out; of a folder, the files that end in `suffix`."""
    if not place.is_dir():
        tally.leave_out(FOREIGN, place)
        return
    names = (name for _, _, names in os.walk(place) for name in names)
    files = sum(name.endswith(suffix) for name in names)
    if files or not suffix:
        tally.leave_out(FOREIGN, place, files)


def _raise(error: OSError) -> None:
    raise error
