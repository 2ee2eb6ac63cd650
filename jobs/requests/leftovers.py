"""What commands that were killed have left behind in a storage.

A file is written under another name and then renamed, a measurement trains in a folder of its own:
of a command that is killed meanwhile they stay. Buckets keep no such file, as uploads are whole.
"""

import os
import re
from pathlib import Path
from time import time

from pipeline.storage import Storage

TEMPORARY = re.compile(
    r".+\.[0-9a-f]{32}\.partial"  # a file that a storage was writing
    r"|\..+-[0-9]+-[0-9a-f]{8}\.partial"  # or that was written beside its target
    r"|\.probe-[0-9a-f]{32}|\.doctor-[0-9a-f]{8}(-[0-9a-f]{8})?"  # to see whether it can be written
    r"|\.artifact\.uploading\.\w+"  # MLflow's
)
MEASUREMENT = re.compile(r"plan-[0-9a-f]{8}")
OLD_SECONDS = 24 * 3600.0
"""What was changed since may be in use; clocks of a cluster's machines differ by less."""


def leftovers(storage: Storage) -> list[str]:
    """Temporary files that nobody has changed for a day, and measurements' folders without others.

    Paths in the storage, of names that nothing but ours and MLflow's temporary files have.
    """
    if storage.local is None:
        return []
    found = []
    # What is deleted meanwhile is passed over.
    for root, folders, files in os.walk(storage.local):
        here = Path(root)
        measurements = [
            name for name in folders if here == storage.local and MEASUREMENT.fullmatch(name)
        ]
        # What lies in a folder that goes as a whole is not named.
        folders[:] = sorted(set(folders) - set(measurements))
        for name in [*measurements, *sorted(filter(TEMPORARY.fullmatch, files))]:
            path = here / name
            if not path.is_symlink() and (name in measurements or path.is_file()) and _is_old(path):
                found.append(path.relative_to(storage.local).as_posix())
    return found


def _is_old(path: Path) -> bool:
    """Whether nothing of it was changed for a day."""
    try:
        files = [path, *path.rglob("*")] if path.is_dir() else [path]
        return time() - max(file.lstat().st_mtime for file in files) > OLD_SECONDS
    except OSError:  # it is gone by now
        return False
