"""A folder that every node can reach: a local path, a shared folder or an object store.

Through pyarrow's file systems. Paths are relative, with `/`. A file appears whole or not at all. It
knows nothing of runs or datasets.
"""

import glob
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from io import FileIO
from pathlib import Path
from uuid import uuid4

from pipeline.errors import InputError, first_line, redacted


def checksum(content: bytes) -> str:
    """What a manifest says of a file's content: 64 hexadecimal digits."""
    return blake2b(content, digest_size=32).hexdigest()


class Storage:
    """Bytes by relative path under one root.

    Raises (from the constructor):
        InputError: the URI is malformed, its scheme unknown, or its place cannot be opened.
    """

    def __init__(self, uri: str) -> None:
        # A URI is printed, stored in runs and sent to workers: no secret may be part of it.
        if uri != redacted(uri):
            raise InputError(
                f"--storage {uri}: a password in it would be shown and stored; set "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        if not uri.strip():
            raise InputError("--storage: is empty; name a folder or s3://BUCKET/PLACE")
        # Imported where it is used: whoever only names this module, as `--help` does, need not wait
        # for it.
        import pyarrow as pa
        from pyarrow import fs

        try:
            self.uri = uri if "://" in uri else str(Path(uri).expanduser().resolve())
            self._files, self._root = fs.FileSystem.from_uri(self.uri)
        except (pa.ArrowException, OSError, ValueError, RuntimeError) as error:
            raise InputError(
                f"--storage {uri}: not a folder or URI that can be opened ({first_line(error)})"
            ) from error
        self.local = Path(self._root) if isinstance(self._files, fs.LocalFileSystem) else None
        if self.local is not None:
            self._check_folder(self.local)
        elif not self._root.strip("/"):
            raise InputError(f"--storage {uri}: names no bucket; expected s3://BUCKET/PLACE")

    def _check_folder(self, place: Path) -> None:
        """Refuse a path that is no folder and cannot become one."""
        try:
            there = next((each for each in (place, *place.parents) if each.exists()), None)
        except OSError as error:  # longer than names are, or behind a folder that is closed
            raise InputError(f"--storage {place}: {error.strerror or error}") from error
        if there is not None and not there.is_dir():
            raise InputError(
                f"--storage {place}: cannot be written, {there} is no folder; name another place"
            )

    def check_writable(self) -> None:
        """Write, read and delete a probe.

        Raises:
            InputError: the place cannot be written (says why).
        """
        probe = f".probe-{uuid4().hex}"
        try:
            self.write(probe, b"probe")
            # Some mounted buckets accept a write and return something else.
            if self.read(probe) != b"probe":
                raise OSError("what was written is not what is read back")
            self.delete(probe)
        except OSError as error:
            raise InputError(
                f"--storage {self.uri}: cannot be written ({first_line(error)}); name another place"
            ) from error

    def path(self, path: str) -> str:
        """The full path, for messages and for libraries that open files themselves."""
        return f"{self._root}/{path}"

    def uri_of(self, path: str) -> str:
        """The URI of a path under this one, for libraries that take URIs.

        Options behind a `?` stay behind it.
        """
        root, mark, options = self.uri.partition("?")
        return f"{root.rstrip('/')}/{path}{mark}{options}"

    def read(self, path: str, most: int | None = None) -> bytes:
        """A file's content, of at most so many bytes; FileNotFoundError if there is none.

        Raises:
            InputError: something else lies there, such as a folder or a pipe, or a larger file.
        """
        full = self.path(path)
        if self.local is not None:
            return regular_file(full, most)
        with self._files.open_input_file(full) as file:
            _check_size(full, file.size() if most is not None else 0, most)
            return file.read()

    def read_if_there(self, path: str, most: int | None = None) -> bytes | None:
        try:
            return self.read(path, most)
        except FileNotFoundError:
            return None

    def write(self, path: str, content: bytes) -> None:
        """Replace a file whole: locally by a rename, in an object store by one upload."""
        full = self.path(path)
        if self.local is None:
            with self._files.open_output_stream(full) as stream:
                stream.write(content)
            return
        Path(full).parent.mkdir(parents=True, exist_ok=True)
        # A name of its own, since two processes may write the same file; flushed to disk before the
        # rename, since a rename alone may survive a power cut without the content.
        partial = f"{full}.{uuid4().hex}.partial"
        try:
            with open(partial, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, full)
        finally:
            Path(partial).unlink(missing_ok=True)

    def names(self, path: str) -> list[str]:
        """Sorted names directly under a folder; empty if there is no such folder."""
        full = self.path(path)
        if self.local is not None:
            try:
                found = os.listdir(full)
            except (FileNotFoundError, NotADirectoryError):
                return []
            # A name that is no text can be neither printed nor ours.
            return sorted(name for name in found if name.isprintable())
        from pyarrow import fs

        try:
            entries = self._files.get_file_info(fs.FileSelector(full, allow_not_found=True))
        except OSError:
            if self.file_size(path) is None:
                raise
            return []  # a file, which has nothing under it
        return sorted(entry.base_name for entry in entries)

    def folders(self, path: str) -> list[str]:
        """Sorted names of the folders directly under a folder, hidden ones left out."""
        return [
            name
            for name in self.names(path)
            if not name.startswith(".") and self._is_folder(f"{path}/{name}")
        ]

    def _is_folder(self, path: str) -> bool:
        return self._type(path) == "Directory"

    def exists(self, path: str) -> bool:
        return self._type(path) != "NotFound"

    def _type(self, path: str) -> str:
        """What lies there, in pyarrow's words: File, Directory, NotFound or Unknown."""
        return str(self._files.get_file_info(self.path(path)).type.name)

    def size(self, path: str) -> int:
        """Bytes in a folder."""
        from pyarrow import fs

        files = self._files.get_file_info(
            fs.FileSelector(self.path(path), recursive=True, allow_not_found=True)
        )
        return sum(file.size or 0 for file in files if file.is_file)

    def file_size(self, path: str) -> int | None:
        """Bytes of a file; None if there is none."""
        file = self._files.get_file_info(self.path(path))
        return file.size if file.is_file else None

    def delete(self, path: str) -> None:
        """Delete a file or a whole folder, if it is there."""
        # Another process may replace a file of the folder meanwhile, which is then gone between
        # being listed and being deleted: that is no error, and the rest still has to go.
        for _ in range(5):
            with suppress(FileNotFoundError):
                return self._delete(path)
        self._delete(path)

    def _delete(self, path: str) -> None:
        match self._type(path):
            case "Directory":
                self._files.delete_dir(self.path(path))
            case "NotFound":
                pass
            case _:
                self._files.delete_file(self.path(path))


@contextmanager
def whole_file(out: Path) -> Iterator[Path]:
    """A file beside the target to write into, which takes its name at the end.

    So whoever waits for the target never sees half of it. Where it fails nothing is left behind,
    and what a process of this machine left that was killed goes with the next one.

    Raises:
        OSError: it cannot be written.
    """
    here = os.uname().nodename
    for left in out.parent.glob(f".{glob.escape(out.name)}.{here}-*.partial"):
        writer = left.name.removesuffix(".partial").split("-")[-2]
        ended = Path("/proc/self").exists() and not Path(f"/proc/{writer}").exists()
        if writer.isdecimal() and ended:
            left.unlink(missing_ok=True)
    partial = out.with_name(f".{out.name}.{here}-{os.getpid()}-{uuid4().hex[:8]}.partial")
    try:
        yield partial
        partial.replace(out)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def regular_file(path: str | Path, most: int | None = None) -> bytes:
    """The content of a file on this machine, of at most so many bytes.

    Raises:
        InputError: something else lies there, such as a folder or a pipe, or a larger file.
        OSError: there is none (FileNotFoundError), or it cannot be read.
    """
    try:
        # Before it is opened: to open a pipe waits for ever, and a device may do anything.
        check_regular(path, most)
        # Without blocking, and looked at again, as another may lie there by now.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:
            _check_mode(path, os.fstat(file.fileno()).st_mode)
            content = file.readall() if most is None else _read(file, most + 1)
    except NotADirectoryError as error:  # a file where a folder would be
        raise FileNotFoundError(*error.args) from error
    _check_size(path, len(content), most)
    return content


def check_regular(path: str | Path, most: int | None = None) -> os.stat_result:
    """What the system says of a file, for libraries that open files themselves.

    Raises:
        InputError: it is a folder, a pipe, a socket or a device, or has more than so many bytes.
        OSError: there is none, or it cannot be looked at.
    """
    about = os.stat(path)
    _check_mode(path, about.st_mode)
    _check_size(path, about.st_size, most)
    return about


def _read(file: FileIO, most: int) -> bytes:
    """At most so many bytes; the system may give fewer at a time."""
    parts: list[bytes] = []
    while most and (part := file.read(most)):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


def _check_mode(path: str | Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
        raise InputError(f"{path}: is {what}, where a file is expected; move it away")


def _check_size(path: str | Path, size: int, most: int | None) -> None:
    if most is not None and size > most:
        raise InputError(f"{path}: has {size:,} bytes, of at most {most:,}; move it away")
