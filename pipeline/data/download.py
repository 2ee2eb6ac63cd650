"""Fetching official files: whole, with the right md5, or not at all."""

from hashlib import file_digest, md5
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from pipeline.data.progress import Progress, silent
from pipeline.errors import InputError
from pipeline.storage import check_regular


def download(url: str, checksum: str, target: Path, progress: Progress = silent) -> Path:
    """Fetch `url` to `target` unless it is there already; `checksum` is its md5.

    Raises:
        InputError: it cannot be fetched, or something else came (says what, and how to do without).
    """
    if target.exists() and md5_of(target) == checksum:
        return target
    # Under another name until its checksum is right: what bears the file's name is then whole.
    partial = target.with_name(f"{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with urlopen(url, timeout=60) as response, open(partial, "wb") as file:
            total, done = int(response.headers.get("Content-Length", 0)), 0
            while block := response.read(1 << 20):
                done += file.write(block)
                progress(done, total)
        found = md5_of(partial)
        if found != checksum:
            raise OSError(f"md5 {found} after {done:,} bytes, not {checksum}: cut short or changed")
        partial.replace(target)
    except (URLError, OSError, HTTPException) as error:
        raise InputError(
            f"{url}: {error}; fetch it elsewhere and name it with --from PATH"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def md5_of(path: Path) -> str:
    """The md5 of a file, in hexadecimal.

    Raises:
        InputError: it cannot be read.
    """
    try:
        check_regular(path)
        # Block by block: ImageNet's archive is larger than a machine's memory.
        with open(path, "rb") as file:
            return file_digest(file, lambda: md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
