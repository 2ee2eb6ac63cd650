"""A report's folder: put in place file by file, and rid of what only an earlier report has.

`report.json` lists a report's files with their checksums. A list may come from elsewhere, and a
folder may hold a user's own files: only what is provably a report's own is deleted or replaced. A
report that was killed on the way says so, and the next one ends its work.
"""

import fcntl
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from json import dumps
from pathlib import Path, PurePosixPath
from stat import S_ISDIR, S_ISREG
from tempfile import mkdtemp
from typing import Any

from analysis.report.pages import INDEX
from pipeline.errors import InputError
from pipeline.storage import checksum
from pipeline.stored_json import parse

MADE = "report.json"
FORMAT = "resnet-repro/report/1"
BEFORE = "before"
"""In the list of a report that is being put in place: the list of the one that was there."""

MOST_LISTED = 64 << 20
MOST_BYTES = 1 << 30
"""Of a list, and of another file of a report, that is read."""

MOST_UNLISTED = 100
ELSEWHERE = "write the report elsewhere with `resnet-repro report --out`"
TEMPORARY, LOCK = ".report-", "lock"

Files = dict[str, bytes]


def about_report(folder: Path) -> dict[str, Any]:
    """What the report in a folder says of itself; empty if there is none of ours."""
    try:
        about = parse(own_file(folder, MADE, MOST_LISTED) or b"")
    except ValueError:
        return {}
    return about if isinstance(about, dict) and about.get("format") == FORMAT else {}


def listed_files(about: dict[str, Any], key: str = "files") -> dict[str, str]:
    """The checksums of a report's files by name, of those that lie in its folder."""
    files = about.get(key)
    named = files.items() if isinstance(files, dict) else ()
    # A list from elsewhere must not make an audit, or the next report, touch files outside.
    return {
        name: digest
        for name, digest in named
        if isinstance(digest, str) and name != MADE and _lies_inside(name)
    }


def own_file(folder: Path, name: str, most: int = MOST_BYTES) -> bytes | None:
    """The content of a regular file in a folder; None where there is none, or a link on the way."""
    path = folder / name
    try:
        if _linked(folder, name):
            return None
        found = path.lstat()
        if not S_ISREG(found.st_mode) or found.st_size > most:
            return None
        return path.read_bytes()
    except OSError:
        return None


def unlisted_files(folder: Path, listed: set[str], apart: Collection[str] = ()) -> list[str]:
    """Files in a report's folder that are not the report's, at most a hundred, by name.

    What is hidden is passed over, and the folders of `apart`; links are named and not followed.
    """
    found: list[str] = []
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and not (Path(root) == folder and name in apart)
        )
        inside = Path(root).relative_to(folder)
        links = [name for name in folders if Path(root, name).is_symlink()]
        names = {(inside / name).as_posix() for name in [*files, *links] if name[0] != "."}
        found += sorted(names - listed - {MADE})
        if len(found) >= MOST_UNLISTED:
            break
    return found[:MOST_UNLISTED]


def reports_within(folder: Path) -> list[str]:
    """The folders directly in a report's that hold a report of their own, by name."""
    with suppress(OSError):
        names = (entry.name for entry in folder.iterdir() if not entry.is_symlink())
        return sorted(name for name in names if about_report(folder / name))
    return []


def others_line(folder: Path, files: Collection[str]) -> str:
    """What lies in a report's folder and is not the report's, in a line; empty if nothing does."""
    others = unlisted_files(folder, set(files), reports_within(folder))
    if not others:
        return ""
    more = f" and {len(others) - 1} more" if len(others) > 1 else ""
    return f"not of this report, and left as it was: {folder / others[0]}{more}"


def put_report(files: Files, out: Path) -> None:
    """Write beside the target, then move file by file, so that each is whole; the list last.

    What the report that was there lists, and this one does not have, is deleted.

    Raises:
        InputError: files of somebody else are in the way.
        OSError: the folder cannot be written.
    """
    # Names come from frames that may come from elsewhere: none may lead out of the folder.
    if not all(_lies_inside(name) for name in files):
        raise ValueError("a report's files lie in its folder")
    out.mkdir(parents=True, exist_ok=True)
    _delete_abandoned(out)
    about = about_report(out)
    _check_free(files, out, about)
    owned = _owned(about)
    with _temporary_folder(out) as temporary:
        for name, content in files.items():
            target = Path(temporary, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        # First a list of both reports: whoever comes after a kill knows all files that are ours.
        unfinished = Path(temporary, f"{MADE}.unfinished")
        unfinished.write_text(dumps(_both_lists(files, owned)))
        os.replace(unfinished, out / MADE)
        # Files first, then the page that leads to them: a reader meanwhile finds no page without
        # its files.
        for name in sorted(files.keys() - {MADE}, key=lambda name: (name == INDEX, name)):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(Path(temporary, name), out / name)
        for name in sorted(owned.keys() - files.keys()):
            if _is_ours(out, name, owned[name]):
                (out / name).unlink(missing_ok=True)
        # Last, so that an audit finds no list without all it names, and nothing besides.
        os.replace(Path(temporary, MADE), out / MADE)


def _both_lists(files: Files, owned: dict[str, set[str]]) -> dict[str, Any]:
    """What a folder says of itself while one report takes the place of another."""
    before = {name: sorted(digests) for name, digests in owned.items()}
    listed = {name: checksum(files[name]) for name in files if name != MADE}
    return {"format": FORMAT, "files": listed, BEFORE: before}


def _owned(about: dict[str, Any]) -> dict[str, set[str]]:
    """The checksums that each file of a report has, or had before it was interrupted."""
    owned = {name: {digest} for name, digest in listed_files(about).items()}
    before = about.get(BEFORE)
    for name, digests in before.items() if isinstance(before, dict) else ():
        if isinstance(digests, list) and _lies_inside(name) and name != MADE:
            owned.setdefault(name, set()).update(one for one in digests if isinstance(one, str))
    return owned


def _is_ours(folder: Path, name: str, digests: set[str]) -> bool:
    """Whether a file is a report's: a regular one, with no link on the way, as it was written."""
    content = own_file(folder, name)
    return content is not None and checksum(content) in digests


def _check_free(files: Files, out: Path, about: dict[str, Any]) -> None:
    """Refuse to write through links, over folders, and over files that no report lists."""
    owned = _owned(about)
    for name in sorted(files):
        if _linked(out, name):
            raise InputError(f"{out / name}: a link is on the way; {ELSEWHERE}")
        with suppress(FileNotFoundError, NotADirectoryError):
            found = (out / name).lstat()
            if S_ISDIR(found.st_mode):
                raise InputError(f"{out / name}: is a folder; {ELSEWHERE}")
            unknown = name not in owned and own_file(out, name) != files[name]
            if unknown and not (about and name == MADE):
                raise InputError(f"{out / name}: is there and no report's; move it, or {ELSEWHERE}")


def _lies_inside(name: str) -> bool:
    """Whether a name leads to a file within a folder, spelled in the one way that ours are."""
    path = PurePosixPath(name)
    return (
        "\0" not in name
        and not path.is_absolute()
        and ".." not in path.parts
        and str(path) == name != "."
    )


def _linked(folder: Path, name: str) -> bool:
    """Whether a folder on the way to a file is a link; the report's own folder may be one."""
    parents = list(PurePosixPath(name).parents)[:-1]
    return any((folder / parent).is_symlink() for parent in parents)


@contextmanager
def _temporary_folder(out: Path) -> Iterator[Path]:
    """A folder in the report's, locked for as long as whoever made it lives."""
    folder = Path(mkdtemp(dir=out, prefix=TEMPORARY))
    try:
        with open(folder / LOCK, "w") as lock:
            # Some shared folders know no locks: there, what a killed report leaves behind stays.
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                lock.write(FORMAT)
                lock.flush()
            yield folder
    finally:
        _delete_temporary(folder)


def _delete_abandoned(out: Path) -> None:
    """Delete the temporary folders of reports that were killed: ours, and locked by nobody."""
    for folder in out.glob(f"{TEMPORARY}*"):
        if folder.is_symlink() or own_file(folder, LOCK, 100) != FORMAT.encode():
            continue
        with suppress(OSError), open(folder / LOCK, "r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _delete_temporary(folder)


def _delete_temporary(folder: Path) -> None:
    """Delete a temporary folder, its lock last: by that the next report knows it as ours."""
    with suppress(OSError):
        for inside in folder.iterdir():
            if inside.name != LOCK:
                shutil.rmtree(inside) if inside.is_dir() else inside.unlink()
    shutil.rmtree(folder, ignore_errors=True)
